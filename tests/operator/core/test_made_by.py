"""What a candidate was made by: followed by digests, through merges; what was only compared with is not among it."""

from typing import Any

from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_operator.core.lineage import Node, made_by


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def node(name: str, output: str, inputs: dict[str, Any], after: tuple[str, ...] = ()) -> Node:
    model = MergeInputs if "parents" in inputs else StageInputs
    return Node(name, inputs["method"], after, model.model_validate(inputs), "default", output=digest(output))


NODES = [
    node("base", "a", {"method": "import", "base": {"source": {"uri": "/m"}, "content": digest("0")}}),
    node("data", "b", {"method": "prepare", "prepare": {"content": digest("1"), "rules": {}, "banks": [digest("c")]}}),
    node("bank", "c", {"method": "bank", "bank": {"tasks": {"k": {"uri": "/i"}}, "content": digest("2"), "gate": 1,
                                                  "dev": 0}}),
    node("mix", "d", {"method": "mixture", "mixture": {"parts": [{"name": "data", "digest": digest("b")}]}}),
    node("one", "e", {"method": "cpt", "startFrom": digest("a"), "data": digest("d")}),
    node("two", "f", {"method": "cpt", "startFrom": digest("a"), "data": digest("d"), "seed": 1}, ("one",)),
    node("both", "9", {"method": "linear", "weights": [1, 1], "parents": [digest("e"), digest("f")]}),
]  # fmt: skip
BY_NAME = {item.name: item for item in NODES}


def names(of: str) -> list[str]:
    return [made.name for made in made_by(BY_NAME, of)]


def test_all_that_went_into_a_merge_in_the_order_of_the_pipeline() -> None:
    assert names("both") == ["base", "data", "bank", "mix", "one", "two", "both"]
    last = made_by(BY_NAME, "both")[-1]
    assert (last.output, last.stage, last.merge) == (digest("9"), None, BY_NAME["both"].inputs)


def test_what_a_stage_only_waited_for_did_not_make_it() -> None:
    assert names("two") == ["base", "data", "bank", "mix", "two"]


def test_of_two_stages_with_one_output_the_candidate_is_the_maker() -> None:
    twin = node("twin", "e", {"method": "cpt", "startFrom": digest("a"), "data": digest("d")})
    assert [made.name for made in made_by({**BY_NAME, "twin": twin}, "one")][-1] == "one"
