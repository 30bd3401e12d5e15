"""The rules about what stages need: each case is a stage that fits with one edit, and every finding that it gives."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from bessemer_operator.core.findings import Finding
from bessemer_operator.core.lint import lint
from bessemer_operator.core.profile import Profile
from tests.operator.core.test_estimate import BASE, data, spec, stage
from tests.operator.core.test_lint import shown

NODE = {"gpus": 8, "memory": "1000Gi", "accelerator": {"kind": "h100-80gb"}}
TWO = {"mixture": [{"ref": "papers"}, {"ref": "replay", "weight": 1.5}]}
BIG = {**BASE["shape"], "hiddenSize": 8192, "intermediateSize": 28672, "layers": 80, "heads": 64}  # type: ignore[dict-item]


@dataclass(frozen=True)
class Case:
    """Fields of the stage, of the pipeline and of the profile, and all that is found."""

    id: str
    fields: dict[str, Any] = field(default_factory=dict, hash=False)
    found: tuple[str, ...] = ()
    message: str = ""
    pipeline: dict[str, Any] = field(default_factory=dict, hash=False)
    profile: dict[str, Any] = field(default_factory=dict, hash=False)


def batch(size: int, **fields: Any) -> dict[str, Any]:
    return {"deepspeed": {"zeroStage": 3, "microBatchSize": size, **fields}}


CASES = (
    Case("eight_billion_parameters_on_eight_gpus_at_stage_3_fit", batch(1)),
    Case("an_unknown_shape_gives_no_finding", batch(4), pipeline={"base": {"model": "s3://hub/llama"}}),
    Case("a_profile_without_an_accelerator_gives_no_finding", batch(4), profile={"accelerator": None}),
    Case(
        "states_that_are_larger_than_the_gpu_are_an_error_with_what_to_change",
        {"deepspeed": {"zeroStage": 1}},
        ("DoesNotFit at spec.stages[0].deepspeed",),
        "set zeroStage: 3: about",
        profile={"gpus": 4},
    ),
    Case(
        "states_on_one_gpu_are_an_error",
        batch(1),
        ("DoesNotFit at spec.stages[0].deepspeed",),
        "this can not fit: about 1",
        profile={"gpus": 1},
    ),
    Case(
        "activations_that_are_too_large_are_dubious_and_recomputing_helps",
        batch(4),
        ("[MayNotFit at spec.stages[0].deepspeed]",),
        "set gradientCheckpointing: true: about",
    ),
    Case("recomputed_activations_fit", {**batch(4), "train": {"gradientCheckpointing": True}}),
    Case("seventy_billion_on_sixteen_nodes_fit", {**batch(1), "nodes": 16, "train": {
        "gradientCheckpointing": True, "globalBatchTokens": 128 * 2048,
    }}, pipeline={"base": {**BASE, "shape": BIG}}, profile={"memory": "4000Gi"}),
    Case(
        "seventy_billion_on_one_node_are_an_error",
        {**batch(1), "train": {"gradientCheckpointing": True}},
        ("DoesNotFit at spec.stages[0].deepspeed",),
        "nodes: 4",
        pipeline={"base": {**BASE, "shape": BIG}},
        profile={"memory": "4000Gi"},
    ),
    Case(
        "a_pod_that_can_not_load_the_model_is_dubious",
        batch(1),
        ("[HostMemory at spec.stages[0].profile]",),
        "loading the model in each of its 8 processes takes up to 359.0 GiB",
        profile={"memory": "300Gi"},
    ),
    Case("a_budget_that_can_be_checked_is_fine", batch(1), pipeline={"budget": {"gpuHours": 100}}),
    Case(
        "a_budget_that_can_not_be_checked_is_dubious",
        batch(1),
        ("[BudgetUnknown at spec.budget.gpuHours]",),
        "can not be estimated without the size of data set papers",
        pipeline={"budget": {"gpuHours": 100}, "data": {"papers": data(tokens=None)}},
    ),
    Case("a_source_that_is_read_three_times_is_fine", {**batch(1), "data": TWO, "train": {"epochs": 1}}),
    Case(
        "a_source_that_is_read_six_times_is_dubious",
        {**batch(1), "data": TWO},
        ("[RepeatedTooOften at spec.stages[0].data.mixture[1].weight]",),
        "would be read 6.0 times (3.0 in each of 2 epochs)",
    ),
    Case("many_epochs_of_everything_are_meant", {**batch(1), "train": {"epochs": 6}}),
)  # fmt: skip


def findings_of(case: Case) -> tuple[Finding, ...]:
    used = [entry["ref"] for entry in case.fields.get("data", {}).get("mixture", [{"ref": "papers"}])]
    sets = {name: data(tokens={"papers": 1_000_000, "replay": 500_000}[name]) for name in used}
    declared = spec(stage("a", **case.fields), **{"data": sets, **case.pipeline})
    return lint(declared, {"default": Profile.model_validate({**NODE, **case.profile})})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_lint_finds(case: Case) -> None:
    findings = findings_of(case)
    assert sorted({shown(finding) for finding in findings}) == sorted(case.found)
    assert case.message in "\n".join(map(str, findings))
