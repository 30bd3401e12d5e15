"""Which diagnostics look at which work, with what, and what becomes of their findings."""

from typing import Any

import pytest

from bessemer_api.job import DiagnoseTask
from bessemer_api.v1alpha1.diagnostic import ALARMS
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_operator.core.diagnosing import LOOKS_AT, task_of
from bessemer_operator.core.lineage import Facts, Node, build_nodes
from tests.operator.core.test_lineage_of_methods import BASE, STAGES
from tests.operator.core.test_merges import MERGED, finished, spec_of
from tests.support.world import digest_of

EVERY = [{"name": name} for name in ALARMS]
BANK = {"name": "bank", "dev": 50, "gate": 100, "tasks": {"knowledge": {"uri": "k.jsonl"}}}
EVALUATION = {
    "banks": [BANK],
    "axes": [{"name": "knowledge", "task": "multipleChoice"}, {"name": "other", "task": "bitsPerByte"}],
    "diagnostics": EVERY,
}


class Done(dict[str, str]):
    """Every piece of work is done; its output is the digest of its digest."""

    def get(self, key: str, default: Any = None) -> Any:
        return digest_of(key)


def asked(name: str, **evaluation: Any) -> tuple[DiagnoseTask | None, dict[str, Node]]:
    """The task for a stage of a pipeline with every diagnostic, once all is done."""
    kinds = {"papers": "text", "qa": "messages", "pairs": "preference", "questions": "prompts"}
    data = {key: {"kind": kind, "sources": [{"uri": "s3://raw"}]} for key, kind in kinds.items()}
    document = {"store": "s3://b", "base": BASE, "data": data, "stages": STAGES, "evaluation": EVALUATION | evaluation}
    spec = PipelineSpec.model_validate(document)
    contents = {key: digest_of(key) for key in ("base", "bank/bank", *(f"data/{key}" for key in kinds))}
    nodes = build_nodes(spec, Facts(contents, Done(), lambda *_: ""))
    return task_of(spec, nodes[name], nodes), nodes


def test_every_diagnostic_of_the_api_has_its_place() -> None:
    assert LOOKS_AT.keys() == ALARMS.keys()


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("cpt", ["generalLoss", "formatGap", "eosRate"]),
        ("sft", ["generalLoss", "formatGap", "eosRate"]),
        ("dpo", ["generalLoss", "eosRate", "diversity", "lengthDrift", "chosenLogProbability", "calibration"]),
        ("rl", ["generalLoss", "eosRate", "diversity", "lengthDrift", "calibration"]),
    ],
)
def test_a_stage_is_looked_at_for_the_failures_of_its_method(stage: str, names: list[str]) -> None:
    task, nodes = asked(stage)
    assert task is not None
    assert [item.name for item in task.diagnostics] == names
    assert (task.checkpoint, task.run) == (nodes[stage].output, nodes[stage].digest)
    assert task.start == nodes[stage].inputs.start_from  # type: ignore[union-attr] # a stage that is done has inputs
    assert task.base == nodes["base"].output
    assert task.bank == nodes["bank-bank"].output
    assert [axis.name for axis in task.axes] == ["knowledge"], "only axes of which the bank has items"


@pytest.mark.parametrize("name", ["judge", "cpt-data", "data-papers", "bank-bank", "base"])
def test_nothing_looks_at_what_is_no_model_of_the_pipeline(name: str) -> None:
    assert asked(name)[0] is None


def test_a_bank_without_dev_items_leaves_what_needs_none() -> None:
    task, _ = asked("dpo", banks=[BANK | {"dev": 0}])
    assert task is not None
    assert (task.bank, task.axes) == (None, [])


def test_a_merge_is_compared_with_its_parents_and_a_control_is_not_looked_at() -> None:
    spec = spec_of(MERGED | {"spec.evaluation.diagnostics": EVERY})
    nodes = finished(spec)
    task = task_of(spec, nodes["slerp"], nodes)
    assert task is not None
    assert task.parents == [nodes["cpt"].output, nodes["pretrain"].output]
    assert {"consistency", "mergeHealth", "refusalDrift"} <= {item.name for item in task.diagnostics}
    assert task_of(spec, nodes["slerp-linear"], nodes) is None
