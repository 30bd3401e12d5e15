"""Estimates of stages: how a declaration becomes tokens, a layout, memory, time; and the budget. Numbers by hand."""

from pathlib import Path
from typing import Any

import pytest

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineSpec
from bessemer_operator.core.accelerators import GIB, KINDS, device_of
from bessemer_operator.core.budget import exceeded
from bessemer_operator.core.cost import Passes, operations_per_token
from bessemer_operator.core.estimate import Known, StageEstimate, estimate, repeats, shape_of, total
from bessemer_operator.core.memory import Layout, estimate_memory
from bessemer_operator.core.profile import AcceleratorKind, Profile
from bessemer_operator.core.shapes import NAMED, Shape
from tests.api.documents import PIPELINE, edited

H100 = {"gpus": 8, "memory": "1800Gi", "accelerator": {"kind": "h100-80gb", "utilisation": 0.4}}
PROFILES = {"default": Profile.model_validate(H100)}
LLAMA = {
    "hiddenSize": 4096,
    "intermediateSize": 14336,
    "layers": 32,
    "heads": 32,
    "keyValueHeads": 8,
    "maxPositions": 131072,
    "tieEmbeddings": False,
    "vocabularySize": 128256,
}
BASE = {"model": "s3://hub/llama", "shape": LLAMA}


def data(kind: str = "text", tokens: int | None = 1_000_000) -> dict[str, Any]:
    size = {} if tokens is None else {"expectedTokens": tokens}
    return {"kind": kind, "sources": [{"uri": "s3://raw"}], **size}


def stage(name: str, method: str = "cpt", ref: str = "papers", **fields: Any) -> dict[str, Any]:
    train = {"epochs": 2, "globalBatchTokens": 65_536, **fields.pop("train", {})}
    return {
        "name": name,
        "method": method,
        "data": {"mixture": [{"ref": ref}], "sequenceLength": 2048, **fields.pop("data", {})},
        "train": {key: value for key, value in train.items() if value is not None},
        **fields,
    }


def spec(*stages: dict[str, Any], **fields: Any) -> PipelineSpec:
    sets = {"papers": data(), "replay": data(tokens=500_000), "pairs": data("preference")}
    document = {"store": "s3://b", "base": BASE, "data": sets, "stages": list(stages), **fields}
    return PipelineSpec.model_validate(document, strict=True)


def the_stage(*stages: dict[str, Any], known: Known = Known(), **fields: Any) -> StageEstimate:  # noqa: B008 - frozen
    return estimate(spec(*stages, **fields), PROFILES, known)[-1]


# --- tokens -----------------------------------------------------------------------------------------------------

STEPS = {"epochs": None, "maxSteps": 10}


@pytest.mark.parametrize(
    ("declared", "tokens"),
    [
        pytest.param(stage("a"), 2_000_000, id="epochs_of_one_set"),
        pytest.param(
            stage("a", data={"mixture": [{"ref": "papers"}, {"ref": "replay", "weight": 0.25}]}),
            2_500_000,
            id="the_first_set_is_the_yardstick",
        ),
        pytest.param(stage("a", train=STEPS), 655_360, id="steps"),
        pytest.param(stage("a", train={"epochs": None, "maxTokens": 65_537}), 131_072, id="tokens_in_whole_steps"),
        pytest.param(stage("a", "dpo", "pairs"), 2_000_000, id="epochs_of_pairs"),
        pytest.param(
            stage("a", "dpo", "pairs", train={**STEPS, "globalBatchExamples": 16}),
            10 * 16 * 2 * 2048,
            id="steps_of_pairs_are_two_sequences_each",
        ),
        pytest.param(
            stage("a", "grpo", "papers", train={**STEPS, "globalBatchExamples": 16, "grpo": {"samples": 4}}),
            10 * 16 * 4 * 2048,
            id="steps_of_prompts_are_all_their_samples",
        ),
    ],
)
def test_tokens_of_a_stage(declared: dict[str, Any], tokens: int) -> None:
    assert the_stage(declared).tokens == tokens


def test_what_was_counted_beats_what_was_expected() -> None:
    assert the_stage(stage("a"), known=Known(tokens={"papers": 3_000_000})).tokens == 6_000_000
    assert the_stage(stage("a"), known=Known(mixtures={"a": 4_000_000})).tokens == 8_000_000


def test_an_unknown_size_is_said_and_no_number_is_made_up() -> None:
    found = the_stage(stage("a"), data={"papers": data(tokens=None)})
    assert (found.tokens, found.seconds, found.gpu_hours) == (None, None, None)
    assert found.unknown == ("the size of data set papers (its expectedTokens, or --suppose tokens.papers=N)",)


def test_repeats_are_those_of_the_mixture() -> None:
    declared = spec(stage("a", data={"mixture": [{"ref": "papers"}, {"ref": "replay", "weight": 2}]}))
    assert repeats(declared, declared.stages[0], Known()) == {"papers": 1.0, "replay": 4.0}


# --- shape and layout -------------------------------------------------------------------------------------------


def test_the_shape_comes_from_what_the_stage_descends_from() -> None:
    declared = AdaptationPipeline.model_validate(PIPELINE).spec
    assert shape_of(declared, "cpt", Known()) == Shape(64, 128, 2, 4, 4, 32_768, True)
    extended = {"name": "words", "method": "tokenizer", "from": "base", "tokenizer": {"extend": 44}}
    declared = spec({**extended, "data": {"mixture": [{"ref": "papers"}]}}, stage("a"))
    assert shape_of(declared, "base", Known()) == NAMED["llama-3.1-8b"]
    found = shape_of(declared, "a", Known())
    assert found is not None and found.vocabulary == 128_300


def test_what_was_read_beats_what_was_declared() -> None:
    small = NAMED["smollm2-135m"]
    assert the_stage(stage("a"), known=Known(base=small)).shape == small


def test_lora_trains_little() -> None:
    lora = {"lora": {"r": 16, "targets": ["q_proj", "v_proj"]}}
    found, full = the_stage(stage("a", "dpo", "pairs", train=lora)), the_stage(stage("a", "dpo", "pairs"))
    assert found.layout is not None and found.memory is not None and full.memory is not None
    assert found.layout.trained == 32 * 16 * (4096 + 4096 + 4096 + 1024)
    assert found.memory.optimizer * 100 < full.memory.optimizer
    assert found.seconds is not None and full.seconds is not None and found.seconds < full.seconds


def test_the_reference_of_dpo_is_asked_once_and_the_judges_of_grpo_stay() -> None:
    model = NAMED["llama-3.1-8b"].parameters
    pairs = the_stage(stage("a", "dpo", "pairs"))
    assert pairs.memory is not None and pairs.memory.copies == 0
    plain = the_stage(stage("a", "orpo", "pairs"))
    assert pairs.seconds is not None and plain.seconds is not None
    assert pairs.seconds / plain.seconds == pytest.approx(1 + 1 / 3 / 2)  # forward once in two epochs of three forwards
    judge = stage("judge", "reward", "pairs", **{"from": "base"})
    for extra, copies in (({}, 1), ({"reward": "judge"}, 2)):
        found = the_stage(judge, stage("a", "grpo", "papers", **{"from": "base"}, **extra, train=STEPS))
        assert found.memory is not None and found.memory.copies == copies * 2 * model


def test_bf16_without_zero_runs_as_stage_1() -> None:
    layout = the_stage(stage("a", deepspeed={"zeroStage": 0})).layout
    assert layout is not None and layout.zero == 1


def test_memory_falls_with_zero_stages_ranks_and_checkpointing() -> None:
    shape = NAMED["llama-3.1-8b"]
    totals = [estimate_memory(shape, Layout(8, 8, zero, 1, 2048)).total for zero in (0, 1, 2, 3)]
    totals.append(estimate_memory(shape, Layout(16, 8, 3, 1, 2048)).total)
    totals.append(estimate_memory(shape, Layout(16, 8, 3, 1, 2048, checkpointing=True)).total)
    assert totals == sorted(totals, reverse=True)


# --- time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens_a_second", "share"), [(5_762, 0.337), (6_667, 0.390)])
def test_operations_are_those_that_torchtitan_counts(tokens_a_second: int, share: float) -> None:
    """torchtitan's published throughput of Llama-3.1-8B at 8,192 tokens on one H100, and its MFU of 33 to 39 %."""
    operations = operations_per_token(NAMED["llama-3.1-8b"], 8192, Passes())
    assert operations * tokens_a_second / 989.4e12 == pytest.approx(share, abs=0.001)


def test_gpu_hours_do_not_depend_on_the_number_of_gpus_but_time_does() -> None:
    one, two = the_stage(stage("a")), the_stage(stage("a", nodes=2))
    assert one.seconds is not None and two.seconds is not None
    assert (two.seconds, two.gpu_hours) == (pytest.approx(one.seconds / 2), pytest.approx(one.gpu_hours))
    operations = 2_000_000 * operations_per_token(NAMED["llama-3.1-8b"], 2048, Passes())
    assert one.seconds == pytest.approx(operations / (8 * 0.4 * 989.4e12))


def test_branches_run_side_by_side_and_stages_one_after_the_other() -> None:
    declared = spec(stage("a"), stage("b"), stage("c", **{"from": "a"}))
    found = estimate(declared, PROFILES, Known())
    assert found[0].seconds is not None
    assert total(declared, found).seconds == pytest.approx(2 * found[0].seconds)
    assert total(declared, found).gpu_hours == pytest.approx(3 * (found[0].gpu_hours or 0))
    rest = total(declared, estimate(declared, PROFILES, Known(done=frozenset({"a"}))), remaining=True)
    assert rest.seconds == pytest.approx(found[0].seconds)


def test_every_kind_of_accelerator_has_numbers_and_a_profile_may_say_others() -> None:
    assert set(KINDS) == set(AcceleratorKind.__args__)  # type: ignore[attr-defined]
    own = Profile.model_validate({"accelerator": {"kind": "h100-80gb", "memoryGib": 40, "utilisation": 0.5}})
    device = device_of(own)
    assert device is not None and (device.memory, device.flops, device.reached) == (40 * GIB, 989.4e12, 494.7e12)
    assert device_of(Profile.model_validate({})) is None


# --- the budget -------------------------------------------------------------------------------------------------


def test_a_budget_counts_what_is_still_to_run() -> None:
    declared = spec(stage("a"), stage("b"), budget={"gpuHours": 0.1})
    found = estimate(declared, PROFILES, Known())
    each = found[0].gpu_hours or 0
    assert 0.05 < each < 0.1
    assert exceeded(declared, found) == (
        f"what is still to run takes about {2 * each:.1f} GPU hours, and budget.gpuHours is 0.1; the most is stage a "
        f"with {each:.1f}. Raise the budget, or train on less"
    )
    assert exceeded(declared, estimate(declared, PROFILES, Known(done=frozenset({"a"})))) == ""
    assert exceeded(spec(stage("a"), stage("b")), found) == ""


def test_pods_without_gpus_cost_no_gpu_hours() -> None:
    declared = edited(PIPELINE, {"spec.budget": {"gpuHours": 0.001}})
    found = estimate(AdaptationPipeline.model_validate(declared).spec, {"default": Profile.model_validate({})}, Known())
    assert [one.gpu_hours for one in found] == [0.0, 0.0]


def test_the_accelerators_of_the_docs_are_those_of_the_program() -> None:
    page = (Path(__file__).parents[3] / "docs/plan.md").read_text()
    for kind, (memory, teraflops) in KINDS.items():
        assert f"| {kind} | {memory:g} | {teraflops:g} |" in page
    assert all(f"`{name}`" in page for name in NAMED)
