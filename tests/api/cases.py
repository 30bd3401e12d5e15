"""One table of cases for every rule that one object can decide. pydantic and the real API server must agree on it."""

from typing import Any

from tests.api.case import Case
from tests.api.documents import ABSENT, DIGEST, DOCUMENTS
from tests.api.merge_cases import MERGE_CASES

WORDS, PRETRAIN, CPT = (f"spec.stages.{index}" for index in range(3))
FORGETTING, RELEASE = "spec.gates.0", "spec.gates.1"
AXES = [{"name": f"axis{n}", "winBy": 0.0, "notWorseThan": 0.05} for n in range(3)]
TRAINED_WORDS = {f"{WORDS}.train": {"epochs": 1}}


LLAMA = {"hiddenSize": 64, "intermediateSize": 128, "layers": 2, "heads": 4, "vocabularySize": 4096}
ONE_LENGTH = "train needs exactly one of epochs, maxSteps and maxTokens"
BELONG_TOGETHER = "baseline.channel and baseline.orElse belong together"
ONE_BASELINE = "baseline needs exactly one of channel, stage, stageInput: true and base: true"
ONE_ELSE = "orElse needs exactly one of base: true and stage"
AT_LEAST = "compose.atLeast is larger than the number of axes with winBy"
ALSO = "alsoAgainst names an axis that the gate does not have"
FIRST = "the first channel follows no other: it has no `after`"
PROMOTION = "spec.promotion"
GIT = f"{PROMOTION}.channels.0.git"
PUSHED = {"repository": "https://git.example.com/org/deploy.git", "path": "biomed/service.yaml", "key": "a.storageUri"}
OVER_SSH = {"repository": "ssh://git@git.example.com/o/r.git", "mode": "pullRequest", "provider": "gitea"}
NEEDS_PROVIDER = "mode pullRequest needs the provider, and an https repository"
NO_PROVIDER = "provider belongs to mode pullRequest"
PROD_LATER = {"name": "prod", "after": {"soak": "72h"}}
ASK = {"then": "requireApproval", "timeout": "48h"}
TOKENIZER_ONLY = "tokenizer belongs to method tokenizer and only there"
TRAIN_ONLY = "train belongs to every training method, and only there"
MODEL_ONLY = "model belongs to method pretrain, and only there"
EXAMPLES_ONLY = "train.globalBatchExamples belongs to methods on pairs or prompts, and to sft without packing"
AXIS, ITEMS = "spec.evaluation.axes.0", "spec.evaluation.banks.0.tasks.loss"
QUIZ = {"name": "loss", "task": "multipleChoice"}
SHORT = {"name": "loss", "task": "exactMatch"}
BRIEF = {"name": "loss", "task": "distinctValidNovel"}
NO_METRIC = "the task has no such metric"
GENERATES = "maxNewTokens belongs to tasks that generate"
SAMPLES = "samples and temperature belong to tasks that sample"
ONE_PROMPT = "passages belongs to tasks whose items have one prompt"
HAS_PROMPT = "perturb and prompt: chat belong to tasks whose items have a prompt"
HEAT = "several samples need a temperature above 0"
ONE_ORIGIN = "items need exactly one of uri and reasoningGym"
OF_A_URI = "sha256 and lmEval belong to a uri"
ONE_PLACE = "a data set has either sources or derive"
OTHER_KIND = "derive.rule makes rows of another kind than this data set"
WHOLE_SEQUENCES = "train.globalBatchTokens must be a multiple of data.sequenceLength"


def derive(rule: str) -> dict[str, Any]:
    """A data set that is made from the poems by rule."""
    return {"from": "poems", "rule": rule}


CASES = (
    Case("an_ordinary_pipeline_is_accepted"),
    Case("the_longest_deadline_is_accepted", "", {f"{CPT}.limits": {"deadline": "99999d99999h99999m99999s"}}),
    Case("a_pipeline_without_stages_is_accepted", "", {"spec": {"store": "s3://b", "base": {"model": "s3://b/m"}}}),
    # Length of training
    Case("no_length_of_training_is_refused", ONE_LENGTH, {f"{CPT}.train": {"globalBatchTokens": 512}}),
    Case("two_lengths_of_training_are_refused", ONE_LENGTH, {f"{CPT}.train.epochs": 1}),
    Case("three_lengths_of_training_are_refused", ONE_LENGTH, {f"{CPT}.train.epochs": 1, f"{CPT}.train.maxTokens": 9}),
    Case("a_length_in_tokens_is_accepted", "", {f"{CPT}.train": {"maxTokens": 10**15, "globalBatchTokens": 512}}),
    Case("half_an_epoch_is_accepted", "", {f"{PRETRAIN}.train.epochs": 0.5}),
    # Shape of the model
    Case(
        "heads_that_do_not_divide_the_width_are_refused", "heads must divide hiddenSize", {f"{PRETRAIN}.model.heads": 5}
    ),
    Case(
        "key_value_heads_that_do_not_divide_heads_are_refused",
        "keyValueHeads must divide heads",
        {f"{PRETRAIN}.model.keyValueHeads": 3},
    ),
    Case("a_base_with_a_shape_is_accepted", "", {"spec.base": {"model": "s3://b/m", "shape": LLAMA}}),
    Case(
        "a_shape_of_a_base_without_a_vocabulary_is_refused",
        "ocabulary",
        {
            "spec.base": {
                "model": "s3://b/m",
                "shape": {name: LLAMA[name] for name in LLAMA if name != "vocabularySize"},
            }
        },
    ),
    Case("grouped_query_attention_is_accepted", "", {f"{PRETRAIN}.model.keyValueHeads": 2}),
    # What belongs to which method
    Case("a_tokenizer_stage_without_settings_is_refused", TOKENIZER_ONLY, {f"{WORDS}.tokenizer": ABSENT}),
    Case("tokenizer_settings_on_cpt_are_refused", TOKENIZER_ONLY, {f"{CPT}.tokenizer": {}}),
    Case("pretrain_without_a_shape_is_refused", MODEL_ONLY, {f"{PRETRAIN}.model": ABSENT}),
    Case(
        "a_shape_on_cpt_is_refused",
        MODEL_ONLY,
        {f"{CPT}.model": {"hiddenSize": 64, "intermediateSize": 128, "layers": 2, "heads": 4}},
    ),
    Case("cpt_without_train_is_refused", TRAIN_ONLY, {f"{CPT}.train": ABSENT}),
    Case("train_on_a_tokenizer_is_refused", TRAIN_ONLY, TRAINED_WORDS),
    Case("a_batch_of_broken_sequences_is_refused", WHOLE_SEQUENCES, {f"{CPT}.train.globalBatchTokens": 500}),
    Case(
        "the_default_batch_fits_the_default_sequence",
        "",
        {f"{CPT}.data.sequenceLength": ABSENT, f"{CPT}.train": {"epochs": 1}},
    ),
    Case(
        "a_default_batch_of_broken_sequences_is_refused",
        WHOLE_SEQUENCES,
        {f"{CPT}.data.sequenceLength": 1000, f"{CPT}.train": {"epochs": 1}},
    ),
    # Alignment
    *(Case(f"{method}_is_accepted", "", {f"{CPT}.method": method}) for method in ("sft", "dpo", "orpo", "kto", "grpo")),
    Case("a_reward_stage_is_accepted", "", {f"{CPT}.method": "reward", f"{CPT}.gate": ABSENT}),
    Case("a_gate_on_a_reward_stage_is_refused", "a reward stage has no gate", {f"{CPT}.method": "reward"}),
    Case("a_batch_in_examples_on_cpt_is_refused", EXAMPLES_ONLY, {f"{CPT}.train.globalBatchExamples": 8}),
    Case(
        "a_batch_in_examples_on_packed_sft_is_refused",
        EXAMPLES_ONLY,
        {f"{CPT}.method": "sft", f"{CPT}.train.globalBatchExamples": 8},
    ),
    Case(
        "a_batch_in_examples_on_unpacked_sft_is_accepted",
        "",
        {f"{CPT}.method": "sft", f"{CPT}.data.packing": False, f"{CPT}.train.globalBatchExamples": 7},
    ),
    Case(
        "a_batch_in_pairs_needs_no_whole_sequences",
        "",
        {
            f"{CPT}.method": "dpo",
            f"{CPT}.train.globalBatchExamples": 7,
            f"{CPT}.train.globalBatchTokens": 500,
        },
    ),
    Case(
        "a_batch_of_broken_sequences_on_dpo_is_refused",
        WHOLE_SEQUENCES,
        {f"{CPT}.method": "dpo", f"{CPT}.train.globalBatchTokens": 500},
    ),
    Case(
        "noise_on_cpt_is_refused",
        "train.neftuneAlpha belongs to method sft",
        {f"{CPT}.train.neftuneAlpha": 5},
    ),
    Case("noise_on_sft_is_accepted", "", {f"{CPT}.method": "sft", f"{CPT}.train.neftuneAlpha": 5}),
    Case(
        "a_loss_type_on_orpo_is_refused",
        "train.lossType belongs to method dpo",
        {f"{CPT}.method": "orpo", f"{CPT}.train.lossType": "ipo"},
    ),
    Case("a_loss_type_on_dpo_is_accepted", "", {f"{CPT}.method": "dpo", f"{CPT}.train.lossType": "sigmoidNorm"}),
    Case(
        "settings_of_grpo_on_dpo_are_refused",
        "train.grpo belongs to method grpo",
        {f"{CPT}.method": "dpo", f"{CPT}.train.grpo": {}},
    ),
    Case("settings_of_grpo_on_grpo_are_accepted", "", {f"{CPT}.method": "grpo", f"{CPT}.train.grpo": {"samples": 2}}),
    Case(
        "lora_on_pretrain_is_refused",
        "train.lora needs a model that was trained before; pretrain makes a new one",
        {f"{PRETRAIN}.train.lora": {}},
    ),
    Case("lora_on_cpt_is_accepted", "", {f"{CPT}.train.lora": {"r": 8, "targets": ["q_proj", "v_proj"]}}),
    Case(
        "a_reward_model_on_dpo_is_refused",
        "reward belongs to method grpo",
        {f"{CPT}.method": "dpo", f"{CPT}.reward": "pretrain"},
    ),
    Case("a_reward_model_on_grpo_is_accepted", "", {f"{CPT}.method": "grpo", f"{CPT}.reward": "judge"}),
    Case(
        "a_reference_of_orpo_is_refused",
        "reference belongs to dpo, kto and grpo",
        {f"{CPT}.method": "orpo", f"{CPT}.reference": "pretrain"},
    ),
    Case("a_reference_of_kto_is_accepted", "", {f"{CPT}.method": "kto", f"{CPT}.reference": "pretrain"}),
    Case(
        "a_chat_template_on_cpt_is_refused",
        "chatTemplate belongs to methods on examples, pairs and prompts",
        {f"{CPT}.chatTemplate": "chatml"},
    ),
    Case("a_chat_template_on_sft_is_accepted", "", {f"{CPT}.method": "sft", f"{CPT}.chatTemplate": "chatml"}),
    Case("a_tokenizer_that_extends_another_is_accepted", "", {f"{WORDS}.tokenizer": {"extend": 100}}),
    Case("a_tokenizer_on_two_nodes_is_refused", "a tokenizer stage has one node", {f"{WORDS}.nodes": 2}),
    Case("cpt_on_two_nodes_is_accepted", "", {f"{CPT}.nodes": 2}),
    Case("a_gate_on_a_tokenizer_is_refused", "a tokenizer stage has no gate", {f"{WORDS}.gate": "forgetting"}),
    Case("a_stage_from_itself_is_refused", "a stage can not start from itself", {f"{CPT}.from": "cpt"}),
    Case("a_stage_from_another_is_accepted", "", {f"{CPT}.from": "pretrain"}),
    # Baseline
    Case("no_baseline_is_refused", ONE_BASELINE, {f"{FORGETTING}.baseline": {}}),
    Case("a_baseline_of_false_is_refused", ONE_BASELINE, {f"{FORGETTING}.baseline": {"base": False}}),
    Case("two_baselines_are_refused", ONE_BASELINE, {f"{FORGETTING}.baseline": {"base": True, "stageInput": True}}),
    Case("a_stage_and_the_base_are_refused", ONE_BASELINE, {f"{FORGETTING}.baseline": {"base": True, "stage": "cpt"}}),
    Case("the_base_as_baseline_is_accepted", "", {f"{FORGETTING}.baseline": {"base": True}}),
    Case("a_stage_as_baseline_is_accepted", "", {f"{FORGETTING}.baseline": {"stage": "pretrain"}}),
    Case("a_channel_without_orElse_is_refused", BELONG_TOGETHER, {f"{RELEASE}.baseline.orElse": ABSENT}),
    Case("orElse_without_a_channel_is_refused", BELONG_TOGETHER, {f"{FORGETTING}.baseline.orElse": {"base": True}}),
    Case("an_empty_orElse_is_refused", ONE_ELSE, {f"{RELEASE}.baseline.orElse": {}}),
    Case("orElse_of_base_false_is_refused", ONE_ELSE, {f"{RELEASE}.baseline.orElse": {"base": False}}),
    Case("orElse_of_base_and_stage_is_refused", ONE_ELSE, {f"{RELEASE}.baseline.orElse.base": True}),
    Case("orElse_of_the_base_is_accepted", "", {f"{RELEASE}.baseline.orElse": {"base": True}}),
    # Looks and axes
    Case("looks_that_fall_are_refused", "looks must increase", {f"{RELEASE}.looks": [400, 200]}),
    Case("looks_that_repeat_are_refused", "looks must increase", {f"{RELEASE}.looks": [200, 200]}),
    Case("looks_that_repeat_later_are_refused", "looks must increase", {f"{RELEASE}.looks": [100, 200, 200, 400]}),
    Case("eight_looks_that_rise_are_accepted", "", {f"{RELEASE}.looks": list(range(50, 450, 50))}),
    Case("more_comparisons_of_an_axis_are_accepted", "", {f"{RELEASE}.alsoAgainst": {"pretrain": ["loss"]}}),
    Case("more_comparisons_of_an_unknown_axis_are_refused", ALSO, {f"{RELEASE}.alsoAgainst": {"pretrain": ["quiz"]}}),
    Case("an_inconclusive_gate_that_asks_a_person_is_accepted", "", {f"{RELEASE}.onInconclusive": ASK}),
    # Promotion
    Case("sixteen_candidates_are_accepted", "", {f"{PROMOTION}.candidates": [f"c{n}" for n in range(16)]}),
    Case("ordered_channels_are_accepted", "", {f"{PROMOTION}.channels": [{"name": "early"}, PROD_LATER]}),
    Case("a_first_channel_that_follows_another_is_refused", FIRST, {f"{PROMOTION}.channels": [PROD_LATER]}),
    # Git targets
    Case("a_push_to_a_repository_is_accepted", "", {GIT: PUSHED}),
    Case(
        "a_repository_over_ssh_is_accepted", "", {GIT: {**PUSHED, "repository": "ssh://git@git.example.com:22/o/r.git"}}
    ),
    Case("a_repository_on_this_machine_is_accepted", "", {GIT: {**PUSHED, "repository": "file:///srv/deploy.git"}}),
    Case("a_pull_request_is_accepted", "", {GIT: {**PUSHED, "mode": "pullRequest", "provider": "gitea"}}),
    Case("a_pull_request_without_provider_is_refused", NEEDS_PROVIDER, {GIT: {**PUSHED, "mode": "pullRequest"}}),
    Case("a_provider_of_a_push_is_refused", NO_PROVIDER, {GIT: {**PUSHED, "provider": "github"}}),
    Case("a_pull_request_over_ssh_is_refused", NEEDS_PROVIDER, {GIT: {**PUSHED, **OVER_SSH}}),
    *(
        Case(f"a_repository_{name}_is_refused", "spec.promotion.channels", {GIT: {**PUSHED, "repository": url}})
        for name, url in {
            "with_a_password": "https://user:secret@git.example.com/o/r.git",
            "with_a_user": "https://user@git.example.com/o/r.git",
            "over_http": "http://git.example.com/o/r.git",
            "of_a_helper": "ext::sh -c date",
            "with_a_way_up": "https://git.example.com/../r.git",
            "with_a_coded_way_up": "https://git.example.com/%2e%2e/r.git",
            "that_is_an_option": "--upload-pack=date",
            "whose_host_is_an_option": "ssh://-oProxyCommand=date/o/r.git",
            "whose_part_is_an_option": "https://git.example.com/o/--x.git",
            "of_an_address_in_brackets": "https://[::ffff:169.254.169.254]/o/r.git",
            "with_a_query": "https://git.example.com/o/r.git?x=1",
            "with_a_space": "https://git.example.com/o/r .git",
            "of_two_lines": "https://git.example.com/o/r.git\nx",
            "of_a_short_form": "git@git.example.com:o/r.git",
        }.items()
    ),
    *(
        Case(f"a_{field.lower()}_that_is_{name}_is_refused", "spec.promotion.channels", {GIT: {**PUSHED, field: text}})
        for field, texts in {
            "path": {"a_way_up": "../x.yaml", "absolute": "/etc/passwd", "the_repository_itself": ".git/config"},
            "branch": {"an_option": "--force", "a_range": "main..x", "a_refspec": "+main:main"},
            "key": {"empty": "", "a_path_of_nothing": "a..b", "an_expression": "$(date)"},
            "evidence": {"a_way_up": "a/../../b", "hidden": "a/.git", "an_option": "-x"},
        }.items()
        for name, text in texts.items()
    ),
    Case("an_approval_with_a_time_out_is_accepted", "", {f"{PROMOTION}.approval": {"required": True, "timeout": "7d"}}),
    Case("more_wins_than_axes_are_refused", AT_LEAST, {f"{RELEASE}.compose": {"atLeast": 2}}),
    Case("the_default_of_one_win_without_winBy_is_refused", AT_LEAST, {f"{FORGETTING}.compose": ABSENT}),
    Case("an_empty_compose_without_winBy_is_refused", AT_LEAST, {f"{FORGETTING}.compose": {}}),
    Case("three_wins_of_three_axes_are_accepted", "", {f"{RELEASE}.compose": {"atLeast": 3}, f"{RELEASE}.axes": AXES}),
    # Axes of an evaluation and where their items come from
    Case("a_metric_of_the_task_is_accepted", "", {AXIS: {**QUIZ, "metric": "brier"}}),
    Case("a_metric_of_another_task_is_refused", NO_METRIC, {AXIS: {**QUIZ, "metric": "usable"}}),
    Case("a_length_of_answers_to_texts_is_refused", GENERATES, {f"{AXIS}.maxNewTokens": 5}),
    Case("samples_of_choices_are_refused", SAMPLES, {AXIS: {**QUIZ, "samples": 2}}),
    Case("a_temperature_of_a_hand_off_is_refused", SAMPLES, {AXIS: {**QUIZ, "task": "handoff", "temperature": 1}}),
    Case("a_perturbed_text_is_refused", HAS_PROMPT, {f"{AXIS}.perturb": ["truncate"]}),
    Case("a_text_as_a_chat_is_refused", HAS_PROMPT, {f"{AXIS}.prompt": "chat"}),
    Case("a_passage_before_a_text_is_refused", ONE_PROMPT, {f"{AXIS}.passages": True}),
    Case(
        "a_passage_before_a_session_is_refused", ONE_PROMPT, {AXIS: {"name": "s", "task": "handoff", "passages": True}}
    ),
    Case("a_passage_before_a_question_is_accepted", "", {AXIS: {**QUIZ, "passages": True}}),
    Case("a_perturbed_chat_is_accepted", "", {AXIS: {**QUIZ, "prompt": "chat", "perturb": ["asrNoise"]}}),
    Case("three_greedy_samples_are_refused", HEAT, {AXIS: {**SHORT, "samples": 3, "temperature": 0}}),
    Case("one_greedy_sample_is_accepted", "", {AXIS: {**SHORT, "samples": 1, "temperature": 0}}),
    Case("a_greedy_design_brief_is_refused", HEAT, {AXIS: {**BRIEF, "temperature": 0}}),
    Case("a_design_brief_is_accepted", "", {AXIS: {**BRIEF, "temperature": 0.7, "stratifyBy": "family"}}),
    Case(
        "a_bank_named_as_the_suites_are_is_refused",
        "no bank may be named regression",
        {"spec.evaluation.banks.0.name": "regression"},
    ),
    Case("items_from_nowhere_are_refused", ONE_ORIGIN, {ITEMS: {}}),
    Case("items_from_two_places_are_refused", ONE_ORIGIN, {f"{ITEMS}.reasoningGym": {"generators": ["chain_sum"]}}),
    Case("items_of_generators_are_accepted", "", {ITEMS: {"reasoningGym": {"generators": ["chain_sum"]}}}),
    Case(
        "a_harness_task_without_a_folder_is_refused",
        OF_A_URI,
        {ITEMS: {"reasoningGym": {"generators": ["chain_sum"]}, "lmEval": {"task": "facts"}}},
    ),
    Case("a_harness_task_is_accepted", "", {ITEMS: {"uri": "s3://raw/tasks", "lmEval": {"task": "facts"}}}),
    # Data sets
    Case("a_set_without_sources_is_refused", ONE_PLACE, {"spec.data.poems.sources": ABSENT}),
    Case("a_set_with_no_sources_is_refused", ONE_PLACE, {"spec.data.poems.sources": []}),
    Case(
        "a_set_with_sources_and_a_rule_is_refused",
        ONE_PLACE,
        {"spec.data.poems.derive": derive("readingComprehension")},
    ),
    Case("a_derived_set_is_accepted", "", {"spec.data.tasks": {"derive": derive("readingComprehension")}}),
    Case(
        "questions_are_prompts_with_completions",
        "",
        {"spec.data.tasks": {"kind": "promptCompletion", "derive": derive("questionAnswer")}},
    ),
    Case(
        "rejected_answers_make_pairs", "", {"spec.data.x": {"kind": "preference", "derive": derive("rejectedAnswers")}}
    ),
    Case("questions_are_no_texts", OTHER_KIND, {"spec.data.tasks": {"derive": derive("questionAnswer")}}),
    Case(
        "texts_are_no_questions",
        OTHER_KIND,
        {"spec.data.tasks": {"kind": "promptCompletion", "derive": derive("readingComprehension")}},
    ),
    Case(
        "rejected_answers_are_no_prompts",
        OTHER_KIND,
        {"spec.data.x": {"kind": "prompts", "derive": derive("rejectedAnswers")}},
    ),
    Case(
        "messages_under_another_name_are_accepted",
        "",
        {"spec.data.poems": {"kind": "messages", "sources": [{"uri": "x", "fields": {"messages": "chat"}}]}},
    ),
    # Keys of maps
    Case(
        "a_long_name_of_a_data_set_is_refused",
        "at most 40 characters",
        {"spec.data": {"d" * 41: {"sources": [{"uri": "x"}]}}},
    ),
    Case("forty_characters_are_accepted", "", {"spec.data": {"d" * 40: {"sources": [{"uri": "x"}]}}}),
    # Numbers at their bounds
    Case("a_holdout_of_0_is_accepted", "", {"spec.data.poems.holdout": 0}),
    Case("a_holdout_of_a_half_is_accepted", "", {"spec.data.poems.holdout": 0.5}),
    # Nodes of a TrainingStage
    Case("a_stage_of_cpt_is_accepted", "", {"spec.nodes": 4}, "TrainingStage"),
    Case("sft_on_four_nodes_is_accepted", "", {"spec.inputs.method": "sft", "spec.nodes": 4}, "TrainingStage"),
    Case("an_import_on_one_node_is_accepted", "", {"spec.inputs": {"method": "import"}}, "TrainingStage"),
    Case(
        "an_import_on_two_nodes_is_refused",
        "only training stages have several nodes",
        {"spec.inputs": {"method": "import"}, "spec.nodes": 2},
        "TrainingStage",
    ),
    Case(
        "training_of_two_lengths_is_refused_in_a_stage",
        ONE_LENGTH,
        {"spec.inputs.train": {"maxSteps": 1, "epochs": 1}},
        "TrainingStage",
    ),
    *MERGE_CASES,
    Case("an_evaluation_is_accepted", kind="Evaluation"),
    Case("an_empty_range_is_refused", "end must be larger than start", {"spec.inputs.start": 200}, "Evaluation"),
)
"""Rules over several fields."""

BOUNDS = (
    Case("a_negative_seed_is_refused", "greater than or equal to 0", {"spec.seed": -1}),
    Case("nodes_of_zero_are_refused", "greater than or equal to 1", {f"{CPT}.nodes": 0}),
    Case("a_million_nodes_are_refused", "less than or equal to 4096", {f"{CPT}.nodes": 10**6}),
    Case("a_weight_of_zero_is_refused", "greater than 0", {f"{CPT}.data.mixture.0.weight": 0}),
    Case("an_alpha_of_zero_is_refused", "greater than 0", {f"{RELEASE}.alpha": 0}),
    Case("a_beta_of_one_is_refused", "less than 1", {f"{CPT}.train.adamBeta1": 1}),
    Case("a_holdout_of_more_than_a_half_is_refused", "or equal to 0.5", {"spec.data.poems.holdout": 0.51}),
    Case("a_holdout_of_all_is_refused", "or equal to 0.5", {"spec.data.poems.holdout": 1}),
    Case("an_unknown_method_is_refused", "'pretrain'", {f"{CPT}.method": "ppo"}),
    Case("a_negative_neftune_alpha_is_refused", "or equal to 0", {f"{CPT}.train.neftuneAlpha": -1}),
    Case("a_negative_beta_is_refused", "or equal to 0", {f"{CPT}.train.beta": -0.1}),
    Case("a_lora_of_rank_zero_is_refused", "or equal to 1", {f"{CPT}.train.lora": {"r": 0}}),
    Case("a_layer_name_with_a_space_is_refused", "", {f"{CPT}.train.lora": {"targets": ["q proj"]}}),
    Case(
        "one_sample_of_grpo_is_refused", "or equal to 2", {f"{CPT}.method": "grpo", f"{CPT}.train.grpo": {"samples": 1}}
    ),
    Case("an_extension_by_nothing_is_refused", "or equal to 1", {f"{WORDS}.tokenizer.extend": 0}),
    Case("an_unknown_template_is_refused", "'chatml'", {f"{CPT}.method": "sft", f"{CPT}.chatTemplate": "alpaca"}),
    Case("a_number_in_words_is_refused", "", {f"{CPT}.train.learningRate": "2e-5"}),
    Case("a_boolean_for_a_number_is_refused", "", {f"{CPT}.train.epochs": True}),
    Case("a_number_for_a_boolean_is_refused", "", {"spec.suspend": 1}),
    Case("a_fraction_of_a_node_is_refused", "", {f"{CPT}.nodes": 1.5}),
    Case("a_capital_in_a_name_is_refused", "", {f"{CPT}.name": "CPT"}),
    Case("a_name_that_ends_in_a_newline_is_refused", "", {f"{CPT}.name": "cpt\n"}),
    Case("a_name_of_41_characters_is_refused", "", {f"{CPT}.name": "c" * 41}),
    Case("an_http_store_is_refused", "", {"spec.store": "http://models"}),
    Case("a_store_with_a_newline_is_refused", "", {"spec.store": "s3://models\n"}),
    Case("a_uri_with_nul_is_refused", "", {"spec.data.poems.sources.0.uri": "a\0b"}),
    Case("a_budget_of_nothing_is_refused", "greater than 0", {"spec.budget": {"gpuHours": 0}}),
    Case("a_data_set_of_no_tokens_is_refused", "or equal to 1", {"spec.data.poems.expectedTokens": 0}),
    Case("an_unknown_kind_of_rows_is_refused", "", {"spec.data.poems.kind": "csv"}),
    Case("a_field_without_a_name_is_refused", "", {"spec.data.poems.sources.0.fields": {"prompt": ""}}),
    Case(
        "65_stages_are_refused",
        "",
        {"spec.stages": [{**DOCUMENTS["AdaptationPipeline"]["spec"]["stages"][0], "name": f"s{n}"} for n in range(65)]},
    ),
    Case("a_digest_of_63_digits_is_refused", "", {"spec.data.poems.sources.0.sha256": DIGEST[:-1]}),
    Case("a_deadline_of_weeks_is_refused", "", {f"{CPT}.limits": {"deadline": "2w"}}),
    Case("a_deadline_of_more_days_than_there_are_is_refused", "", {f"{CPT}.limits": {"deadline": "99999999999999d"}}),
    Case("a_deadline_of_six_digits_is_refused", "", {f"{CPT}.limits": {"deadline": "100000s"}}),
    Case("a_retry_with_a_space_is_refused", "", {"spec.retry": "once more"}, "TrainingStage"),
    Case("an_unknown_part_of_a_bank_is_refused", "", {"spec.inputs.part": "test"}, "Evaluation"),
    Case("a_merge_of_one_parent_is_refused", "", {"spec.inputs.parents": [DIGEST]}, "MergeJob"),
)
"""Bounds of single fields, all broken. The two judges word that differently; `refused` is what pydantic says."""
