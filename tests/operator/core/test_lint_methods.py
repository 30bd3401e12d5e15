"""The rules of the lint about methods: each case is a clean pipeline with one edit, and every finding that it gives."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_api.v1alpha1.train import Method
from bessemer_operator.core.lint import lint
from bessemer_operator.core.lint_methods import KINDS
from tests.api.documents import ABSENT, edited
from tests.operator.core.test_lineage_of_methods import BASE, STAGES, stage
from tests.operator.core.test_lint import shown

KIND_OF = {"papers": "text", "qa": "messages", "pairs": "preference", "questions": "prompts"}
WORDS = {
    "name": "words",
    "method": "tokenizer",
    "data": {"mixture": [{"ref": "papers"}]},
    "tokenizer": {"extend": 50},
}
CLEAN: dict[str, Any] = {
    "store": "s3://b",
    "base": {**BASE, "kind": "instruct"},
    "data": {name: {"kind": kind, "sources": [{"uri": "s3://raw"}]} for name, kind in KIND_OF.items()},
    "stages": [
        stage("sft", "sft", "qa"),
        stage("dpo", "dpo", "pairs"),
        stage("judge", "reward", "pairs", **{"from": "sft"}),
        stage("rl", "grpo", "questions", reward="judge", **{"from": "sft"}),
        stage("side", "cpt", "papers", **{"from": "base"}),
    ],
}
SFT, DPO, JUDGE, RL, SIDE = (f"stages.{index}" for index in range(5))
ALIGNMENT = "[AlignmentNotGated at spec.stages[4].method]"
"""The clean pipeline has no gates; that is another rule's subject."""


@dataclass(frozen=True)
class Case:
    """An edit and all that is found beside ALIGNMENT."""

    id: str
    edits: dict[str, Any] = field(default_factory=dict, hash=False)
    found: tuple[str, ...] = ()
    message: str = ""


CASES = (
    Case("every_method_on_its_data_is_fine"),
    # Kinds of data
    Case("sft_on_text_alone_is_an_error", {f"{SFT}.data.mixture.0.ref": "papers"}, (
        "WrongDataKind at spec.stages[0].data.mixture", "[Unused at spec.data.qa]",
    ), "name a data set of kind messages or promptCompletion, or use cpt"),
    Case("text_beside_examples_is_replay", {f"{SFT}.data.mixture": [{"ref": "qa"}, {"ref": "papers"}]}),
    Case("sft_on_preferences_is_an_error", {f"{SFT}.data.mixture": [{"ref": "qa"}, {"ref": "pairs"}]}, (
        "WrongDataKind at spec.stages[0].data.mixture[1].ref",
    )),
    Case("dpo_on_messages_is_an_error", {f"{DPO}.data.mixture.0.ref": "qa"}, (
        "WrongDataKind at spec.stages[1].data.mixture[0].ref",
    ), 'dpo can not read data set "qa" of kind messages'),
    Case("cpt_on_preferences_is_an_error", {f"{SIDE}.data.mixture.0.ref": "pairs"}, (
        "WrongDataKind at spec.stages[4].data.mixture[0].ref", "[Unused at spec.data.papers]",
    )),
    Case("the_second_part_of_a_mixture_counts", {f"{RL}.data.mixture": [{"ref": "questions"}, {"ref": "qa"}]}, (
        "WrongDataKind at spec.stages[3].data.mixture[1].ref",
    )),
    # Origins
    Case("sft_from_a_reward_model_is_an_error", {f"{DPO}.from": "judge"}, ("NeedsCheckpoint at spec.stages[1].from",)),
    Case("a_chain_of_preferences_is_fine", {f"{JUDGE}.from": "dpo"}),
    Case("a_reward_stage_that_is_none_is_an_error", {f"{RL}.reward": "dpo"}, (
        "UnknownRewardStage at spec.stages[3].reward",
    )),
    Case("an_unknown_reward_stage_is_an_error", {f"{RL}.reward": "judg"}, (
        "UnknownStage at spec.stages[3].reward",
    ), 'did you mean "judge"?'),
    Case("a_reward_model_as_reference_is_an_error", {f"{DPO}.reference": "judge"}, (
        "UnknownStage at spec.stages[1].reference",
    )),
    Case("the_base_as_reference_is_fine", {f"{DPO}.reference": "base"}),
    Case("stages_that_need_each_other_are_a_cycle", {f"{SFT}.from": "rl"}, ("Cycle at spec.stages",)),
    Case("an_extension_of_nothing_is_an_error", {"base": ABSENT, "stages": [WORDS], "data": {
        "papers": CLEAN["data"]["papers"]}
    }, ("NeedsCheckpoint at spec.stages[0].from",)),
    Case("cpt_from_an_extension_is_fine", {
        "stages": [*CLEAN["stages"], {**WORDS, "from": "base"}], "stages.4.from": "words",
    }),
    # Batches
    Case("a_batch_in_pairs_is_shared_by_nodes", {f"{DPO}.train.globalBatchExamples": 8, f"{DPO}.nodes": 3}, (
        "UnevenBatch at spec.stages[1].train.globalBatchExamples",
    ), "make globalBatchExamples a multiple of 3"),
    # Beta
    *(
        Case(f"beta_{beta}_of_{method}_{kind}_is_{'unusual' if odd else 'fine'}", {
            f"{DPO}.method": method, f"{DPO}.train.beta": beta, f"{DPO}.train.lossType": kind,
        }, ("[UnusualBeta at spec.stages[1].train.beta]",) if odd else ())
        for method, kind, beta, odd in (
            ("dpo", "sigmoid", 0.01, False), ("dpo", "sigmoid", 0.5, False), ("dpo", "sigmoid", 5.0, True),
            ("dpo", "sigmoidNorm", 5.0, False), ("dpo", "sigmoidNorm", 0.1, True), ("dpo", "ipo", 2.0, True),
            ("kto", "sigmoid", 0.1, False), ("kto", "sigmoid", 1.0, True), ("reward", "sigmoid", 9.0, False),
        )
    ),
    Case("orpo_after_sft_repeats_the_likelihood", {f"{DPO}.method": "orpo"}, (
        "[RepeatsLikelihood at spec.stages[1].method]",
    ), "which sft has trained already"),
    Case("orpo_without_sft_does_not", {f"{DPO}.method": "orpo", f"{DPO}.from": "base"}),
    Case("where_the_loss_is_has_no_effect_on_dpo", {f"{DPO}.train.lossOn": "all"}, (
        "[NoEffect at spec.stages[1].train.lossOn]",
    )),
    Case("the_likelihood_of_orpo_may_cover_the_prompt", {
        f"{DPO}.method": "orpo", f"{DPO}.from": "base", f"{DPO}.train.lossOn": "all",
    }),
    # Templates
    Case("messages_for_a_base_model_are_dubious", {"base.kind": "base"}, (
        "[NoChatTemplate at spec.stages[0].chatTemplate]",
    ), "set chatTemplate, for example chatml"),
    Case("a_template_by_name_is_fine", {"base.kind": "base", f"{SFT}.chatTemplate": "chatml"}),
    Case("a_template_of_the_base_is_fine", {"base.kind": "base", "base.chatTemplate": "roles"}),
    Case("messages_without_a_template_are_dubious", {f"{SFT}.chatTemplate": "none"}, (
        "[NoChatTemplate at spec.stages[0].chatTemplate]",
    ), "can not tell who speaks"),
    Case("a_stage_takes_over_the_template_before_it", {
        "base.kind": "base", f"{SFT}.chatTemplate": "chatml", f"{DPO}.method": "sft", f"{DPO}.data.mixture.0.ref": "qa"
    }),
)  # fmt: skip


def spec_of(edits: dict[str, Any]) -> PipelineSpec:
    return PipelineSpec.model_validate(edited(CLEAN, edits), strict=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_lint_finds(case: Case) -> None:
    findings = lint(spec_of(case.edits))
    assert {shown(finding) for finding in findings} - {ALIGNMENT} == set(case.found)
    assert case.message in "\n".join(map(str, findings))


def test_messages_for_a_model_from_scratch_need_a_template() -> None:
    words = {**WORDS, "tokenizer": {}}
    shape = {"hiddenSize": 64, "intermediateSize": 128, "layers": 2, "heads": 4}
    stages = [words, stage("first", "pretrain", "papers", model=shape), stage("sft", "sft", "qa")]
    data = {name: CLEAN["data"][name] for name in ("papers", "qa")}
    spec = {"base": ABSENT, "stages": stages, "data": data}
    assert [shown(finding) for finding in lint(spec_of(spec))] == ["NoChatTemplate at spec.stages[2].chatTemplate"]
    assert lint(spec_of({**spec, "stages.2.chatTemplate": "chatml"})) == ()


def test_every_method_has_its_kinds() -> None:
    from typing import get_args

    assert set(KINDS) == set(get_args(Method))
    assert STAGES
