"""The rules over a whole pipeline: each case is the clean pipeline with one edit, and every finding that it gives."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineSpec
from bessemer_operator.core.findings import Finding
from bessemer_operator.core.lint import errors, lint
from bessemer_operator.core.profile import Profile
from tests.api.documents import ABSENT, PIPELINE, edited

WORDS, PRETRAIN, CPT = (f"spec.stages.{index}" for index in range(3))
FORGETTING, RELEASE = "spec.gates.0", "spec.gates.1"
POEMS = PIPELINE["spec"]["data"]["poems"]
STAGES = PIPELINE["spec"]["stages"]
GATES = PIPELINE["spec"]["gates"]
(BANK,) = PIPELINE["spec"]["evaluation"]["banks"]
(LOSS,) = PIPELINE["spec"]["evaluation"]["axes"]
BASE = {"model": "s3://hub/model", "kind": "base"}
TRAIN = {"epochs": 1, "globalBatchTokens": 512}
SIDE = {"name": "side", "method": "cpt", "from": "pretrain", "data": STAGES[2]["data"], "train": TRAIN}

PARENTS = [{"stage": "cpt"}, {"base": True}]
ALIGNED = {"data": {"mixture": [{"ref": "pairs"}], "sequenceLength": 64}, "train": TRAIN}
MEASURED = {
    "banks": [{**BANK, "tasks": {**BANK["tasks"], "instruction": {"uri": "s3://i"}}}],
    "axes": [LOSS, {"name": "instruction", "task": "bitsPerByte"}],
}
WATCHED: dict[str, Any] = {
    "spec.evaluation": MEASURED,
    f"{RELEASE}.baseline.orElse": {"base": True},
    f"{RELEASE}.axes": [{"name": "instruction", "winBy": 0.0, "notWorseThan": 0.05}],
    f"{RELEASE}.alsoAgainst": {"base": ["instruction"]},
    "spec.promotion.candidates": ["dpo"],
}
OTHER = {**GATES[0], "name": "other", "baseline": {"stage": "cpt"}}


PROD = {"name": "prod"}
TWO = {"spec.stages": [*STAGES, SIDE], "spec.promotion.candidates": ["cpt", "side"]}


@dataclass(frozen=True)
class Case:
    """An edit and all that is found: `rule at path`, warnings in brackets."""

    id: str
    edits: dict[str, Any]
    found: tuple[str, ...] = ()
    message: str = ""
    profiles: dict[str, Profile] | None = field(default=None, hash=False)


GIT = {"repository": "https://git.example.com/org/deploy.git", "path": "biomed/service.yaml", "key": "a.storageUri"}


def for_git(repository: str) -> dict[str, Profile]:
    """Profiles whose credentials for git are for these repositories."""
    return {"default": Profile.model_validate({"gitSecret": "bessemer-git", "gitRepositories": [repository]})}


def axis(name: str = "quiz", margin: float = 0.05) -> dict[str, Any]:
    return {"name": name, "winBy": 0.0, "notWorseThan": margin}


def quiz(items: int, margin: float) -> dict[str, Any]:
    """A release gate over right and wrong answers."""
    bank = {**BANK, "gate": items, "tasks": {**BANK["tasks"], "quiz": {"uri": "s3://raw/quiz.jsonl"}}}
    evaluation = {"banks": [bank], "axes": [LOSS, {"name": "quiz", "task": "multipleChoice"}]}
    return {"spec.evaluation": evaluation, f"{RELEASE}.axes": [axis(margin=margin)], f"{RELEASE}.looks": [items]}


CASES = (
    Case("a_clean_pipeline_has_no_findings", {}),
    Case("an_empty_pipeline_is_dubious", {"spec": {"store": "s3://b"}}, ("[Empty at spec]",)),
    # Data sets
    Case(
        "a_set_derived_from_none_is_named",
        {"spec.data.tasks": {"derive": {"from": "poem", "rule": "readingComprehension"}}},
        ("UnknownDataSet at spec.data.tasks.derive.from",),
        'there is no data set "poem"; did you mean "poems"?',
    ),
    Case(
        "sets_that_are_derived_from_each_other_are_a_cycle",
        {
            "spec.data.a": {"derive": {"from": "b", "rule": "readingComprehension"}},
            "spec.data.b": {"derive": {"from": "a", "rule": "readingComprehension"}},
        },
        ("Cycle at spec.data",),
        "data sets wait for each other in a cycle: a -> b -> a",
    ),
    Case(
        "a_rule_reads_rows_of_one_kind",
        {
            "spec.data.pairs": {"kind": "preference", "derive": {"from": "poems", "rule": "rejectedAnswers"}},
        },
        ("WrongKind at spec.data.pairs.derive.from", "[Unused at spec.data.pairs]"),
        'rejectedAnswers reads rows of kind promptCompletion, but "poems" is of kind text',
    ),
    Case(
        "a_set_that_another_is_derived_from_is_used",
        {
            "spec.data.tasks": {"derive": {"from": "poems", "rule": "readingComprehension"}},
            **{f"spec.stages.{index}.data.mixture": [{"ref": "tasks"}] for index in range(3)},
        },
        ("[NotDecontaminated at spec.data.tasks.prepare]",),
    ),
    # References
    Case(
        "an_unknown_data_set_is_named_with_the_nearest",
        {f"{CPT}.data.mixture.0.ref": "poem"},
        ("UnknownDataSet at spec.stages[2].data.mixture[0].ref",),
        'there is no data set "poem"; did you mean "poems"?',
    ),
    Case(
        "an_unknown_bank_to_decontaminate_against_is_an_error",
        {"spec.data.poems.prepare.decontaminate.against": ["bank", "nowhere"]},
        ("UnknownBank at spec.data.poems.prepare.decontaminate.against[1]",),
    ),
    Case(
        "an_unknown_origin_is_an_error",
        {f"{CPT}.from": "pretrian"},
        ("UnknownStage at spec.stages[2].from",),
        "pretrain",
    ),
    Case("an_origin_of_no_base_is_an_error", {f"{CPT}.from": "base"}, ("UnknownStage at spec.stages[2].from",)),
    Case("an_unknown_stage_gate_is_an_error", {f"{PRETRAIN}.gate": "forget"}, ("UnknownGate at spec.stages[1].gate",)),
    Case(
        "an_unknown_candidate_is_an_error",
        {"spec.promotion.candidates": ["best"]},
        ("UnknownCandidate at spec.promotion.candidates[0]",),
    ),
    Case(
        "a_tokenizer_is_no_candidate",
        {"spec.promotion.candidates": ["words"]},
        ("UnknownCandidate at spec.promotion.candidates[0]",),
    ),
    Case(
        "an_unknown_release_gate_is_an_error",
        {"spec.promotion.gate": "releese"},
        ("UnknownGate at spec.promotion.gate", "[Unused at spec.gates[1]]"),
        'did you mean "release"?',
    ),
    Case(
        "an_unknown_baseline_is_an_error",
        {f"{RELEASE}.baseline.orElse.stage": "first"},
        ("UnknownStage at spec.gates[1].baseline.orElse.stage",),
    ),
    Case(
        "an_unknown_axis_is_an_error_and_nothing_measures_it",
        {f"{RELEASE}.axes": [axis("los")]},
        ("NotMeasured at spec.gates[1].axes", "UnknownAxis at spec.gates[1].axes[0].name"),
        'did you mean "loss"?',
    ),
    Case(
        "profiles_are_checked_where_they_are_known",
        {"spec.profiles": {"train": "h100"}, f"{CPT}.profile": "h200"},
        (
            "UnknownProfile at spec.profiles.train",
            "UnknownProfile at spec.stages[2].profile",
        ),
        profiles={"default": Profile.model_validate({})},
    ),
    Case("profiles_are_not_checked_where_they_are_not_known", {"spec.profiles": {"train": "h100"}}),
    # Names
    Case(
        "two_stages_of_one_name_are_an_error",
        {"spec.stages": [*STAGES, {**SIDE, "name": "pretrain", "from": "cpt"}]},
        ("DuplicateName at spec.stages[3].name",),
    ),
    Case(
        "two_gates_of_one_name_are_an_error",
        {f"{RELEASE}.name": "forgetting", "spec.promotion.gate": "forgetting"},
        ("DuplicateName at spec.gates[1].name", "GateShared at spec.gates[0].name", "GateShared at spec.gates[1].name"),
    ),
    Case(
        "two_axes_of_one_name_are_an_error",
        {"spec.evaluation.axes": [LOSS, LOSS]},
        ("DuplicateName at spec.evaluation.axes[1].name",),
    ),
    Case(
        "two_banks_of_one_name_are_an_error",
        {"spec.evaluation.banks": [BANK, BANK]},
        ("DuplicateName at spec.evaluation.banks[1].name",),
    ),
    Case(
        "a_gate_that_asks_an_axis_twice_is_an_error",
        {f"{RELEASE}.axes": [axis("loss"), axis("loss")]},
        ("DuplicateName at spec.gates[1].axes[1].name",),
    ),
    Case(
        "a_data_set_twice_in_a_mixture_is_an_error",
        {f"{CPT}.data.mixture": [{"ref": "poems"}, {"ref": "poems", "weight": 2}]},
        ("DuplicateName at spec.stages[2].data.mixture[1].ref",),
    ),
    Case(
        "a_filter_twice_is_an_error",
        {"spec.data.poems.prepare.filters": [{"name": "c4"}, {"name": "c4", "mode": "report"}]},
        ("DuplicateName at spec.data.poems.prepare.filters[1].name",),
    ),
    Case("a_stage_called_base_is_an_error", {f"{WORDS}.name": "base"}, ("NameTaken at spec.stages[0].name",)),
    Case(
        "a_stage_with_the_name_of_a_prepared_data_set_is_an_error",
        {f"{WORDS}.name": "data-poems"},
        ("NameTaken at spec.stages[0].name",),
        "that of data set poems",
    ),
    Case(
        "a_stage_with_the_name_of_a_bank_is_an_error",
        {f"{WORDS}.name": "bank-bank"},
        ("NameTaken at spec.stages[0].name",),
    ),
    Case(
        "a_stage_with_the_name_of_shards_is_an_error",
        {f"{WORDS}.name": "cpt-data"},
        ("NameTaken at spec.stages[0].name",),
    ),
    # Places
    Case(
        "relative_places_are_errors",
        {"spec.store": "file://./store", "spec.data.poems.sources.0.uri": "poems.jsonl"},
        ("RelativeUri at spec.data.poems.sources[0].uri", "RelativeUri at spec.store"),
    ),
    Case("absolute_files_are_places", {"spec.store": "file:///store", "spec.data.poems.sources.0.uri": "/poems.jsonl"}),
    # Origins
    Case(
        "pretraining_from_a_checkpoint_is_an_error",
        {f"{PRETRAIN}.from": "cpt", f"{CPT}.from": "base", "spec.base": BASE},
        ("NeedsTokenizer at spec.stages[1].from", "[Unused at spec.stages[0]]"),
        'pretrain starts from cpt stage "cpt", not from a tokenizer',
    ),
    Case(
        "pretraining_from_nothing_is_an_error",
        {"spec.stages": STAGES[1:]},
        ("NeedsTokenizer at spec.stages[0].from",),
        "pretrain has nothing to start from",
    ),
    Case(
        "cpt_from_a_tokenizer_is_an_error",
        {f"{CPT}.from": "words"},
        ("NeedsCheckpoint at spec.stages[2].from",),
        'cpt starts from tokenizer stage "words"',
    ),
    Case(
        "cpt_from_nothing_is_an_error",
        {"spec.stages": [STAGES[2]], f"{RELEASE}.baseline.orElse": {"base": True}},
        ("NeedsCheckpoint at spec.stages[0].from", "NoBase at spec.gates[1].baseline"),
        "cpt has nothing to start from",
    ),
    Case(
        "cpt_from_the_base_is_fine",
        {"spec.base": BASE, "spec.stages": [STAGES[2]], f"{RELEASE}.baseline.orElse": {"base": True}},
    ),
    Case(
        "a_cycle_is_an_error",
        {f"{PRETRAIN}.from": "cpt"},
        ("Cycle at spec.stages", "NeedsTokenizer at spec.stages[1].from"),
        "pretrain -> cpt -> pretrain",
    ),
    Case(
        "a_cycle_through_the_stage_before_is_an_error",
        {
            "spec.stages": [{**STAGES[2], "name": "a", "from": "b"}, {**SIDE, "name": "b", "from": "a"}],
            "spec.promotion.candidates": ["b"],
            f"{RELEASE}.baseline": {"channel": "prod", "orElse": {"base": True}},
            "spec.base": BASE,
        },
        ("Cycle at spec.stages",),
    ),
    Case(
        "two_stages_that_are_gated_against_each_other_are_a_cycle",
        {
            "spec.stages": [*STAGES, {**SIDE, "gate": "other"}],
            "spec.gates": [{**GATES[0], "baseline": {"stage": "side"}}, GATES[1], OTHER],
        },
        ("Cycle at spec.stages",),
        "cpt -> side -> cpt",
    ),
    Case(
        "a_stage_that_is_gated_against_a_later_branch_is_fine",
        {
            "spec.stages": [*STAGES, SIDE],
            f"{FORGETTING}.baseline": {"stage": "side"},
        },
    ),
    Case("the_origin_of_a_tokenizer_has_no_effect", {f"{WORDS}.from": "cpt"}, ("[NoEffect at spec.stages[0].from]",)),
    # Sizes
    Case(
        "a_sequence_longer_than_the_model_is_an_error",
        {f"{CPT}.data.sequenceLength": 4096, f"{CPT}.train.globalBatchTokens": 4096},
        ("SequenceTooLong at spec.stages[2].data.sequenceLength",),
        "4096 tokens, but the model is made for 2048",
    ),
    Case("eight_sequences_on_eight_nodes_are_fine", {f"{CPT}.nodes": 8}),
    Case(
        "eight_sequences_on_three_nodes_are_an_error",
        {f"{CPT}.nodes": 3},
        ("UnevenBatch at spec.stages[2].train.globalBatchTokens",),
        "a multiple of 192",
    ),
    Case(
        "a_micro_batch_that_does_not_divide_is_an_error",
        {f"{CPT}.deepspeed": {"microBatchSize": 3}},
        ("UnevenBatch at spec.stages[2].train.globalBatchTokens",),
    ),
    Case(
        "ranks_of_a_profile_count",
        {f"{CPT}.profile": "big", f"{CPT}.nodes": 2},
        ("UnevenBatch at spec.stages[2].train.globalBatchTokens",),
        "16 ranks",
        profiles={"default": Profile.model_validate({}), "big": Profile.model_validate({"gpus": 8})},
    ),
    # Gates
    Case(
        "a_look_beyond_the_items_of_the_bank_is_an_error",
        {f"{RELEASE}.looks": [200, 401]},
        ("TooFewItems at spec.gates[1].looks[1]",),
        "a look at 401 items, but bank bank has 400 for gating",
    ),
    Case(
        "a_look_at_nineteen_items_is_an_error", {f"{RELEASE}.looks": [19]}, ("TooFewItems at spec.gates[1].looks[0]",)
    ),
    Case("a_margin_that_the_items_show_is_fine", quiz(1200, 0.05)),
    Case(
        "a_margin_that_the_items_can_not_show_is_an_error",
        quiz(100, 0.05),
        ("TooFewItems at spec.gates[0].looks[0]", "Underpowered at spec.gates[1].axes[0].notWorseThan"),
        "100 items can show a margin of",
    ),
    Case(
        "a_veto_by_regression_cases_that_are_not_there",
        {f"{RELEASE}.vetoes": ["regression"]},
        ("NoSuites at spec.gates[1].vetoes",),
        "has no cases",
    ),
    Case(
        "a_regression_suite_of_a_relative_path",
        {"spec.evaluation.regression": [{"uri": "bugs.jsonl"}], f"{RELEASE}.vetoes": ["regression"]},
        ("RelativeUri at spec.evaluation.regression[0].uri",),
    ),
    Case(
        "two_banks_that_share_the_axes_of_a_gate_measure_nothing",
        {
            "spec.evaluation.banks": [BANK, {**BANK, "name": "other", "tasks": {"prose": {"uri": "s3://p"}}}],
            "spec.evaluation.axes": [LOSS, {"name": "prose", "task": "bitsPerByte"}],
            f"{RELEASE}.axes": [axis("loss"), axis("prose")],
        },
        ("NotMeasured at spec.gates[1].axes", "[Unused at spec.evaluation.banks[1]]"),
    ),
    Case(
        "a_gate_that_judges_two_is_an_error",
        {f"{PRETRAIN}.gate": "forgetting", f"{FORGETTING}.baseline": {"base": True}, "spec.base": BASE},
        ("GateShared at spec.gates[0].name",),
        "judges pretrain and cpt",
    ),
    Case(
        "a_gate_on_the_input_of_pretraining_is_an_error",
        {f"{CPT}.gate": ABSENT, f"{PRETRAIN}.gate": "forgetting"},
        ("NoCheckpoint at spec.gates[0].baseline.stageInput",),
    ),
    Case(
        "a_tokenizer_as_baseline_is_an_error",
        {f"{FORGETTING}.baseline": {"stage": "words"}},
        ("NoCheckpoint at spec.gates[0].baseline.stage",),
    ),
    Case(
        "a_candidate_compared_with_itself_is_an_error",
        {f"{FORGETTING}.baseline": {"stage": "cpt"}},
        ("ComparedWithItself at spec.gates[0].baseline.stage",),
    ),
    Case(
        "a_baseline_that_waits_for_its_own_gate_is_an_error",
        {
            "spec.stages": [*STAGES, {**SIDE, "from": "cpt"}],
            f"{FORGETTING}.baseline": {"stage": "side"},
        },
        ("Cycle at spec.stages",),
        "cpt -> side -> cpt",
    ),
    Case(
        "a_baseline_of_no_base_is_an_error",
        {f"{FORGETTING}.baseline": {"base": True}},
        ("NoBase at spec.gates[0].baseline",),
    ),
    Case(
        "a_release_gate_that_observes_is_an_error",
        {f"{RELEASE}.mode": "observe"},
        ("GateObserves at spec.promotion.gate",),
    ),
    Case(
        "a_release_gate_that_ignores_the_incumbent_is_dubious",
        {f"{RELEASE}.baseline": {"stage": "pretrain"}},
        ("[IncumbentNotCompared at spec.promotion.gate]",),
    ),
    # The base model on trial
    Case(
        "a_base_model_without_stages_can_be_put_to_the_test",
        {
            "spec.base": BASE,
            "spec.stages": [],
            "spec.data": {},
            "spec.gates": [{**GATES[1], "baseline": {"channel": "prod", "orElse": {"stage": "x"}}}],
            "spec.promotion.candidates": ["base"],
        },
        ("UnknownStage at spec.gates[0].baseline.orElse.stage",),
    ),
    Case(
        "an_instruct_model_needs_a_gate_on_instruction",
        {
            "spec.base": {**BASE, "kind": "instruct"},
            "spec.stages": [STAGES[2]],
            f"{RELEASE}.baseline.orElse": {"base": True},
        },
        ("[AlignmentNotGated at spec.stages[0].method]", "[NotRealigned at spec.promotion.candidates[0]]"),
        "continued pretraining does not replace alignment",
    ),
    Case(
        "an_instruct_model_that_is_aligned_again_and_watched_is_fine",
        {
            "spec.base": {**BASE, "kind": "instruct"},
            "spec.data.pairs": {**POEMS, "kind": "preference"},
            "spec.stages": [STAGES[2], {**ALIGNED, "name": "dpo", "method": "dpo"}],
            **WATCHED,
        },
    ),
    Case(
        "an_instruct_model_that_is_merged_again_and_watched_is_fine",
        {
            "spec.base": {**BASE, "kind": "instruct"},
            "spec.stages": [STAGES[2]],
            "spec.merges": [{"name": "mean", "method": "linear", "parents": PARENTS, "weights": [1, 1]}],
            **WATCHED,
            "spec.promotion.candidates": ["mean"],
        },
    ),
    Case(
        "alignment_before_continued_pretraining_restores_nothing",
        {
            "spec.base": {**BASE, "kind": "instruct"},
            "spec.data.pairs": {**POEMS, "kind": "preference"},
            "spec.stages": [{**ALIGNED, "name": "dpo", "method": "dpo"}, STAGES[2]],
            **WATCHED,
            "spec.promotion.candidates": ["cpt"],
        },
        ("[NotRealigned at spec.promotion.candidates[0]]",),
    ),
    # What is unused or without effect
    Case("an_unused_data_set_is_dubious", {"spec.data.prose": POEMS}, ("[Unused at spec.data.prose]",)),
    Case("an_unused_branch_is_dubious", {"spec.stages": [*STAGES, SIDE]}, ("[Unused at spec.stages[3]]",)),
    Case("an_unused_base_is_dubious", {"spec.base": BASE}, ("[Unused at spec.base]",)),
    Case("an_unused_gate_is_dubious", {f"{CPT}.gate": ABSENT}, ("[Unused at spec.gates[0]]",)),
    Case(
        "an_unused_axis_and_an_unknown_task_are_dubious",
        {
            "spec.evaluation.axes": [LOSS, {"name": "prose", "task": "bitsPerByte"}],
            "spec.evaluation.banks.0.tasks.pros": {"uri": "s3://p"},
        },
        ("[Unused at spec.evaluation.axes[1]]", "[Unused at spec.evaluation.banks[0].tasks.pros]"),
    ),
    Case(
        "training_on_data_that_may_hold_the_items_is_dubious",
        {"spec.data.poems.prepare": ABSENT},
        ("[NotDecontaminated at spec.data.poems.prepare]",),
    ),
    Case(
        "the_weight_of_an_only_data_set_has_no_effect",
        {f"{CPT}.data.mixture.0.weight": 0.5},
        ("[NoEffect at spec.stages[2].data.mixture[0].weight]",),
    ),
    Case(
        "a_learning_rate_of_zero_has_no_effect",
        {f"{CPT}.train.learningRate": 0},
        ("[NoEffect at spec.stages[2].train.learningRate]",),
    ),
    Case(
        "a_pipeline_without_gates_and_promotion_is_fine",
        {
            "spec.stages": STAGES[:2],
            "spec.gates": [],
            "spec.promotion": ABSENT,
            "spec.evaluation": ABSENT,
            "spec.data.poems.prepare": ABSENT,
        },
    ),
    # Promotion
    Case("two_candidates_with_dev_items_are_clean", TWO),
    Case(
        "two_candidates_without_dev_items_are_an_error",
        {**TWO, "spec.evaluation.banks.0.dev": 0},
        ("NoDevItems at spec.evaluation.banks[0].dev",),
        "2 candidates are chosen between on dev items, but bank bank has none",
    ),
    Case(
        "a_candidate_and_a_channel_twice_are_errors",
        {"spec.promotion.candidates": ["cpt", "cpt"], "spec.promotion.channels": [PROD, PROD]},
        ("DuplicateName at spec.promotion.candidates[1]", "DuplicateName at spec.promotion.channels[1].name"),
    ),
    Case(
        "two channels in one scalar",
        {"spec.promotion.channels": [{"name": "early", "git": GIT}, {"name": "prod", "git": GIT}]},
        ("SharedScalar at spec.promotion.channels[1].git",),
        "channels early and prod write the same scalar, a.storageUri in biomed/service.yaml",
    ),
    Case(
        "two channels in one file",
        {
            "spec.promotion.channels": [
                {"name": "early", "git": GIT},
                {"name": "prod", "git": {**GIT, "key": "b.storageUri"}},
            ]
        },
    ),
    Case(
        "a repository that the credentials are not for",
        {"spec.promotion.channels": [{"name": "prod", "git": GIT}]},
        ("RepositoryNotAllowed at spec.promotion.channels[0].git.repository",),
        "it is for https://git.example.com/other/",
        profiles=for_git("https://git.example.com/other/"),
    ),
    Case(
        "a repository that the credentials are for",
        {"spec.promotion.channels": [{"name": "prod", "git": GIT}]},
        profiles=for_git("https://git.example.com/org/"),
    ),
    Case(
        "a repository whose name only begins as the one that is allowed",
        {"spec.promotion.channels": [{"name": "prod", "git": GIT}]},
        ("RepositoryNotAllowed at spec.promotion.channels[0].git.repository",),
        profiles=for_git("https://git.example.com/org/deploy"),
    ),
    Case(
        "an_unknown_second_candidate_is_named",
        {"spec.promotion.candidates": ["cpt", "slerp"]},
        ("UnknownCandidate at spec.promotion.candidates[1]",),
    ),
    Case(
        "of_ordered_channels_the_gate_compares_with_the_last",
        {"spec.promotion.channels": [PROD, {"name": "late", "after": {"soak": "1h"}}]},
        ("[IncumbentNotCompared at spec.promotion.gate]",),
        "gate release does not compare with what channel late holds",
    ),
    Case(
        "an_approval_that_nobody_can_give_is_an_error",
        {f"{FORGETTING}.onInconclusive": {"then": "requireApproval"}},
        ("NothingToApprove at spec.gates[0].onInconclusive.then",),
    ),
    Case("a_release_gate_may_ask_a_person", {f"{RELEASE}.onInconclusive": {"then": "requireApproval"}}),
    Case("a_further_comparison_with_a_stage_is_clean", {f"{RELEASE}.alsoAgainst": {"pretrain": ["loss"]}}),
    Case(
        "a_further_comparison_with_what_is_not_there_is_an_error",
        {f"{RELEASE}.alsoAgainst": {"base": ["loss"], "sft": ["loss"], "cpt": ["loss"]}},
        (
            "NoBase at spec.gates[1].alsoAgainst.base",
            "UnknownStage at spec.gates[1].alsoAgainst.sft",
            "ComparedWithItself at spec.gates[1].alsoAgainst.cpt",
        ),
    ),
)


def spec_of(case: Case) -> PipelineSpec:
    return AdaptationPipeline.model_validate(edited(PIPELINE, case.edits), strict=True).spec


def shown(finding: Finding) -> str:
    text = f"{finding.rule} at {finding.field}"
    return text if finding.severity == "error" else f"[{text}]"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_lint_finds(case: Case) -> None:
    findings = lint(spec_of(case), case.profiles)
    assert sorted({shown(finding) for finding in findings}) == sorted(case.found)
    assert case.message in "\n".join(map(str, findings))


def test_errors_come_first_and_alone_on_request() -> None:
    case = Case("", {"spec.data.prose": POEMS, f"{CPT}.data.mixture.0.ref": "nothing", f"{RELEASE}.looks": [19, 200]})
    findings = lint(spec_of(case))
    assert [finding.severity for finding in findings] == sorted(finding.severity for finding in findings)
    assert errors(spec_of(case)) == tuple(finding for finding in findings if finding.severity == "error")


def test_a_chain_of_64_stages_is_looked_at_in_time() -> None:
    chain = [{**SIDE, "name": f"s{n}", "from": "base"} if n == 0 else {**SIDE, "name": f"s{n}"} for n in range(64)]
    for before, stage in itertools.pairwise(chain):
        stage["from"] = before["name"]
    edits = {"spec.base": BASE, "spec.stages": chain[::-1], "spec.promotion": ABSENT, "spec.gates": []}
    assert errors(spec_of(Case("", edits))) == ()
