"""What a candidate was made by: followed by digests, through merges; what was only compared with is not among it."""

from itertools import permutations
from typing import Any

from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_operator.core.lineage import Node
from bessemer_operator.core.provenance import made_by


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


def test_all_that_went_into_a_merge_each_after_what_went_into_it() -> None:
    assert names("both") == ["bank", "base", "data", "mix", "one", "two", "both"]
    last = made_by(BY_NAME, "both")[-1]
    assert (last.output, last.stage, last.merge) == (digest("9"), None, BY_NAME["both"].inputs)


def test_what_a_stage_only_waited_for_did_not_make_it() -> None:
    assert names("two") == ["bank", "base", "data", "mix", "two"]


def test_the_order_of_keys_in_the_file_is_none_of_the_work() -> None:
    """An API server sorts them; the release, whose card shows this, is the same in both worlds."""
    for order in permutations(NODES[:4]):
        assert made_by({item.name: item for item in [*order, *NODES[4:]]}, "both") == made_by(BY_NAME, "both")


def test_of_two_stages_with_one_output_the_candidate_is_the_maker() -> None:
    twin = node("twin", "e", {"method": "cpt", "startFrom": digest("a"), "data": digest("d")})
    assert [made.name for made in made_by({**BY_NAME, "twin": twin}, "one")][-1] == "one"


def test_a_merge_that_gave_one_of_its_parents_again_is_no_circle() -> None:
    """`three` went on from `one`; the merge of both is `one` to the bit."""
    three = node("three", "7", {"method": "cpt", "startFrom": digest("e"), "data": digest("d")}, ("one",))
    parents = {"method": "linear", "weights": [1, 0], "parents": [digest("e"), digest("7")]}
    again = node("again", "e", parents, ("one", "three"))
    assert {made.name for made in made_by(BY_NAME | {"three": three, "again": again}, "again")} >= {"three", "again"}
    assert [made.name for made in made_by(BY_NAME | {"three": three, "again": again}, "three")][-2:] == ["one", "three"]
