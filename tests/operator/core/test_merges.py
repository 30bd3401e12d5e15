"""Merges in the lineage: identities, controls, order, and when the inputs are known."""

from typing import Any

import pytest

from bessemer_api.digest import input_digest
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineSpec
from bessemer_operator.core.lineage import Facts, Node, ancestors, build_nodes, ordered_work
from bessemer_operator.core.merges import all_merges
from tests.api.documents import DIGEST, PIPELINE, edited
from tests.support.world import digest_of

STAGES = PIPELINE["spec"]["stages"]
SLERP = {
    "name": "slerp",
    "method": "slerp",
    "parents": [{"stage": "cpt"}, {"stage": "pretrain"}],
    "t": [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": [0.25]}],
    "controls": ["linear"],
}
MERGED = {"spec.merges": [SLERP], "spec.promotion.candidates": ["slerp"]}
MERGE = "spec.merges.0"
TASKS = {"method": "ties", "density": 0.5, "base": {"stage": "pretrain"}}


def spec_of(edits: dict[str, Any]) -> PipelineSpec:
    return AdaptationPipeline.model_validate(edited(PIPELINE, edits)).spec


def finished(spec: PipelineSpec) -> dict[str, Node]:
    """All nodes once everything that they are made from is done."""
    contents = {key: digest_of(key) for key in ("base", "data/poems", "bank/bank")}
    outputs: dict[str, str] = {}
    while True:
        nodes = build_nodes(spec, Facts(contents, outputs, lambda *_: ""))
        known = {node.digest: digest_of("out", node.digest) for node in nodes.values() if node.digest}
        if known.keys() == outputs.keys():
            return nodes
        outputs = {digest: output for digest, output in known.items() if digest}


def merge_of(nodes: dict[str, Node], name: str) -> MergeInputs:
    inputs = nodes[name].inputs
    assert isinstance(inputs, MergeInputs)
    return inputs


def test_a_merge_is_made_from_the_outputs_of_its_parents_in_order() -> None:
    nodes = finished(spec_of(MERGED))
    assert merge_of(nodes, "slerp").wire() == {
        "method": "slerp",
        "space": "weights",
        "t": [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": [0.25]}],
        "parents": [nodes["cpt"].output, nodes["pretrain"].output],
        "seed": 0,
        "rerun": "",
        "recipe": 1,
    }


def test_its_control_has_the_same_parents_and_the_same_t_and_nothing_of_the_geometry() -> None:
    nodes = finished(spec_of(MERGED))
    merge, control = merge_of(nodes, "slerp"), merge_of(nodes, "slerp-linear")
    assert control == merge.model_copy(update={"method": "linear"})
    assert nodes["slerp"].digest != nodes["slerp-linear"].digest


@pytest.mark.parametrize(
    ("weights", "expected"),
    [(None, [1, 1]), ([3, 1], [3, 1]), ([2, -1], [2, 0]), ([-1, -1], [1, 1])],
    ids=["no_weights", "weights", "a_negative_weight", "only_negative_weights"],
)
def test_the_control_of_task_vectors_is_the_mean_of_the_parents(
    weights: list[float] | None, expected: list[float]
) -> None:
    tasks = {**SLERP, **TASKS, "t": None, "weights": weights}
    nodes = finished(spec_of({**MERGED, "spec.merges": [tasks]}))
    control = merge_of(nodes, "slerp-linear")
    assert (control.method, control.weights, control.base, control.density) == ("linear", expected, None, None)
    assert merge_of(nodes, "slerp").base == nodes["pretrain"].output


def test_a_merge_waits_for_all_that_it_is_made_from() -> None:
    spec = spec_of({**MERGED, "spec.data.poems.holdout": 0.1, f"{MERGE}.heldOut": "poems"})
    nodes = finished(spec)
    assert nodes["slerp"].after == ("cpt", "pretrain", "data-poems")
    assert merge_of(nodes, "slerp").held_out == nodes["data-poems"].output
    unknown = build_nodes(spec, Facts({}, {}, lambda *_: ""))
    assert (unknown["slerp"].inputs, unknown["slerp-linear"].inputs) == (None, None)


def test_a_parent_that_its_gate_holds_is_not_merged() -> None:
    spec = spec_of(MERGED)
    known = {node.digest: node.output for node in finished(spec).values() if node.digest and node.output}
    contents = {key: digest_of(key) for key in ("base", "data/poems", "bank/bank")}
    held = build_nodes(spec, Facts(contents, known, lambda stage, *_: "gate: Failed" if stage.gate else ""))
    assert held["slerp"].inputs is None


def test_a_stage_and_a_merge_can_start_from_a_merge() -> None:
    again = {**SLERP, "name": "again", "parents": [{"stage": "slerp-linear"}, {"stage": "after"}], "controls": None}
    after = {**STAGES[2], "name": "after", "from": "slerp", "gate": None}
    spec = spec_of({**MERGED, "spec.merges": [again, SLERP], "spec.stages": [*STAGES, after]})
    nodes = finished(spec)
    order = [item.name for item in ordered_work(spec)]
    assert order.index("slerp") < order.index("after") < order.index("again")
    assert nodes["after"].inputs is not None
    assert merge_of(nodes, "again").parents == [nodes["slerp-linear"].output, nodes["after"].output]
    assert {"slerp", "cpt", "data-poems"} <= ancestors(nodes, "again")


def test_the_seed_counts_only_where_something_is_random() -> None:
    dare = {**SLERP, **TASKS, "t": None, "method": "dareTies"}
    seeds = [
        merge_of(finished(spec_of({**MERGED, "spec.merges": [m], "spec.seed": 5})), "slerp").seed for m in (SLERP, dare)
    ]
    assert seeds == [0, 5]


def test_rerun_from_a_merge_does_it_and_what_follows_again() -> None:
    spec = spec_of(MERGED)
    contents = {key: digest_of(key) for key in ("base", "data/poems", "bank/bank")}
    known = {node.digest: node.output for node in finished(spec).values() if node.digest and node.output}
    again = build_nodes(spec, Facts(contents, known, lambda *_: "", rerun=("cpt", "2")))
    assert again["slerp"].inputs is None
    again = build_nodes(spec, Facts(contents, known, lambda *_: "", rerun=("slerp", "2")))
    assert (merge_of(dict(again), "slerp").rerun, merge_of(dict(again), "slerp-linear").rerun) == ("2", "")


GOLDEN = {
    "slerp": (
        {"method": "slerp", "parents": ["sha256:" + "a" * 64, "sha256:" + "b" * 64], "t": [{"value": [0.5]}]},
        "sha256:41349e117a810f872bbac46f8da6d92419c8d37c845c6faff7a1b520ccf202c2",
    ),
    "dareTies": (
        {"method": "dareTies", "parents": ["sha256:" + "a" * 64, "sha256:" + "b" * 64], "base": DIGEST, "density": 0.5},
        "sha256:e7e3a6cd93af1e0c9649e8d229f403d6382c0be1192a6da791c5861abdd802f4",
    ),
}


@pytest.mark.parametrize(("inputs", "digest"), GOLDEN.values(), ids=list(GOLDEN))
def test_the_identity_of_a_merge_is_as_it_was(inputs: dict[str, Any], digest: str) -> None:
    assert input_digest(MergeInputs.model_validate(inputs)) == digest


def test_controls_follow_their_merges() -> None:
    assert [merge.name for merge in all_merges(spec_of(MERGED))] == ["slerp", "slerp-linear"]
