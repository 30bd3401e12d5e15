"""What alignment stages are made from: the format of their data, the template, what they read beside their origin."""

from typing import Any

import pytest

from bessemer_api.digest import sha256_digest
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_operator.core.lineage import Facts, Node, ancestors, build_nodes

BASE = {"model": "s3://hub/model", "kind": "instruct"}
TRAIN = {"epochs": 1, "globalBatchTokens": 512}


def stage(name: str, method: str, ref: str, **fields: Any) -> dict[str, Any]:
    train = {**TRAIN, **fields.pop("train", {})}
    data = {"mixture": [{"ref": ref}], "sequenceLength": 64}
    return {"name": name, "method": method, "data": data, "train": train, **fields}


SFT = stage("sft", "sft", "qa", train={"lossOn": "assistant"})
STAGES = [
    stage("cpt", "cpt", "papers"),
    SFT,
    stage("dpo", "dpo", "pairs", reference="cpt"),
    stage("judge", "reward", "pairs", **{"from": "sft"}),
    stage("rl", "grpo", "questions", reward="judge", **{"from": "sft"}),
]


def nodes_of(stages: list[dict[str, Any]], hold: str = "", **spec: Any) -> dict[str, Node]:
    """The nodes of a pipeline in which every piece of work is done; its output is the digest of its digest."""
    kinds = {"papers": "text", "qa": "messages", "pairs": "preference", "questions": "prompts"}
    data = {name: {"kind": kind, "sources": [{"uri": "s3://raw"}]} for name, kind in kinds.items()}
    document = {"store": "s3://b", "base": BASE, "data": data, "stages": stages, **spec}
    contents = dict.fromkeys(("base", *(f"data/{name}" for name in kinds)), "sha256:" + "0" * 64)
    facts = Facts(contents, _Done(), lambda stage, output, nodes: "held" if stage.name == hold else "")
    return build_nodes(PipelineSpec.model_validate(document), facts)


class _Done(dict[str, str]):
    def get(self, key: str, default: Any = None) -> Any:
        return sha256_digest(key.encode())


@pytest.mark.parametrize(
    ("name", "form", "template", "loss_on"),
    [
        ("cpt", "text", "none", "completion"),
        ("sft", "examples", "fromModel", "assistant"),
        ("dpo", "pairs", "fromModel", "completion"),
        ("judge", "pairs", "fromModel", "completion"),
        ("rl", "prompts", "fromModel", "completion"),
    ],
)
def test_the_method_decides_what_rows_become(name: str, form: str, template: str, loss_on: str) -> None:
    inputs = nodes_of(STAGES)[f"{name}-data"].inputs
    assert inputs
    assert inputs.mixture
    assert (inputs.mixture.format, inputs.mixture.chat_template, inputs.mixture.loss_on) == (form, template, loss_on)


@pytest.mark.parametrize(
    ("base", "own", "used"),
    [
        (None, None, "fromModel"),
        ("fromModel", None, "fromModel"),
        ("chatml", None, "chatml"),
        ("chatml", "roles", "roles"),
        (None, "none", "none"),
    ],
)
def test_a_stages_template_comes_before_that_of_the_base(base: str | None, own: str | None, used: str) -> None:
    spec = {} if base is None else {"base": {**BASE, "chatTemplate": base}}
    inputs = nodes_of([{**SFT, "chatTemplate": own}], **spec)["sft-data"].inputs
    assert inputs
    assert inputs.mixture
    assert inputs.mixture.chat_template == used


def test_what_a_stage_reads_beside_its_origin_is_in_its_inputs_and_comes_before() -> None:
    nodes = nodes_of(STAGES)
    dpo, rl = nodes["dpo"].inputs, nodes["rl"].inputs
    assert dpo
    assert rl
    assert (dpo.start_from, dpo.reference_from) == (nodes["sft"].output, nodes["cpt"].output)
    assert (rl.start_from, rl.reward_from) == (nodes["sft"].output, nodes["judge"].output)
    assert rl.reference_from is None
    assert "judge" in ancestors(nodes, "rl")
    order = list(nodes_of([STAGES[0], STAGES[1], STAGES[4], STAGES[3]]))
    assert order.index("judge") < order.index("rl"), "whatever the order in the file"


def test_a_stage_waits_for_a_reference_that_its_gate_holds() -> None:
    nodes = nodes_of(
        [{**STAGES[0], "name": "other"}, {**SFT, "from": "base"}, {**STAGES[2], "reference": "other"}], "other"
    )
    assert nodes["sft"].inputs
    assert nodes["dpo"].inputs is None


def test_an_extension_starts_from_a_checkpoint_and_is_one() -> None:
    words = {
        "name": "words",
        "method": "tokenizer",
        "data": {"mixture": [{"ref": "papers"}]},
        "tokenizer": {"extend": 50},
    }
    nodes = nodes_of([words, STAGES[0]])
    inputs, cpt = nodes["words"].inputs, nodes["cpt"].inputs
    assert inputs
    assert cpt
    assert inputs.start_from == nodes["base"].output
    assert cpt.start_from == nodes["words"].output
    assert nodes["words"].after == ("data-papers", "base")
    new = nodes_of([{**words, "tokenizer": {"vocabularySize": 300}}])["words"].inputs
    assert new
    assert new.start_from is None
