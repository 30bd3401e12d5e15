"""Banks: checked items, in a fixed order, no cluster in both parts."""

import json
import random
from typing import Any

import pytest

from bessemer_trainer.errors import PermanentError
from tests.trainer.data.world import World, items, lines

ITEM = {"id": "1", "prompt": "Is it", "choices": ["yes", "no"], "answer": 0}


@pytest.fixture
def hundred() -> list[dict[str, Any]]:
    return items(100, random.Random(1))


def test_parts_have_the_sizes_asked_for_and_items_stay_as_they_are(world: World, hundred: list[dict[str, Any]]) -> None:
    folder = world.folder(world.bank(world.write("i.jsonl", hundred), 20, 60))
    dev, gate = lines(folder / "knowledge.dev.jsonl"), lines(folder / "knowledge.gate.jsonl")
    assert (len(dev), len(gate)) == (20, 60)
    given = {item["id"]: item for item in hundred}
    assert all(given.pop(item["id"]) == item for item in (*dev, *gate))


def test_no_cluster_has_items_in_both_parts(world: World, hundred: list[dict[str, Any]]) -> None:
    outcome = world.bank(world.write("i.jsonl", hundred), 20, 60, clusterBy={"knowledge": "fact"})
    folder = world.folder(outcome)
    dev, gate = ({item["fact"] for item in lines(folder / f"knowledge.{part}.jsonl")} for part in ("dev", "gate"))
    assert not dev & gate
    counts = world.meta(outcome)["axes"]["knowledge"]
    assert (counts["devClusters"], counts["gateClusters"]) == (len(dev), len(gate))
    assert counts["unused"] == 20


def test_order_follows_the_seed_and_not_the_file(world: World, hundred: list[dict[str, Any]]) -> None:
    def gate(rows: list[dict[str, Any]], seed: int) -> list[str]:
        folder = world.folder(world.bank(world.write("i.jsonl", rows), 0, 100, seed=seed))
        return [item["id"] for item in lines(folder / "knowledge.gate.jsonl")]

    assert gate(hundred, 0) == gate(hundred[::-1], 0)
    assert gate(hundred, 0) != gate(hundred, 1)
    assert gate(hundred, 0) != sorted(gate(hundred, 0))


def test_items_that_are_added_do_not_reshuffle_the_others(world: World, hundred: list[dict[str, Any]]) -> None:
    def order(rows: list[dict[str, Any]]) -> list[str]:
        folder = world.folder(world.bank(world.write("i.jsonl", rows), 0, len(rows)))
        return [item["id"] for item in lines(folder / "knowledge.gate.jsonl")]

    added = {item["id"] for item in hundred[80:]}
    assert order(hundred[:80]) == [name for name in order(hundred) if name not in added]


def test_equal_items_give_a_byte_equal_bank(world: World, hundred: list[dict[str, Any]]) -> None:
    uri = world.write("i.jsonl", hundred)
    assert world.bank(uri, 20, 60).output_digest == world.bank(uri, 20, 60).output_digest


@pytest.mark.parametrize(
    ("dev", "gate", "cluster_by", "message"),
    [
        pytest.param(50, 51, {}, "of 100 items in .*, 50 and 50 could be taken;", id="too few items"),
        pytest.param(200, 1, {}, "of 100 items in .*, 100 and 0 could be taken;", id="too few for dev alone"),
        pytest.param(
            20,
            80,
            {"knowledge": "fact"},
            "20 and 7[89] could be taken without splitting a cluster",
            id="too few without splitting a cluster",
        ),
    ],
)
def test_too_few_items_are_refused_with_counts(
    world: World, hundred: list[dict[str, Any]], dev: int, gate: int, cluster_by: dict[str, str], message: str
) -> None:
    with pytest.raises(PermanentError, match=message) as refused:
        world.bank(world.write("i.jsonl", hundred), dev, gate, clusterBy=cluster_by)
    assert refused.value.reason == "TooFewItems"


BAD = [
    pytest.param("{", "not JSON", id="no JSON"),
    pytest.param('["a"]', "expected a JSON object, found list", id="no object"),
    pytest.param(ITEM | {"id": None}, "field 'id'", id="no id"),
    pytest.param(ITEM | {"id": True}, "field 'id'", id="an id that is a truth value"),
    pytest.param(ITEM | {"prompt": " "}, "field 'prompt'", id="a blank prompt"),
    pytest.param(ITEM | {"prompt": ["x"]}, "field 'prompt'", id="a prompt that is no string"),
    pytest.param(ITEM | {"choices": ["yes"]}, "expected a list of at least 2", id="one choice"),
    pytest.param(ITEM | {"choices": "yes"}, "expected a list of at least 2", id="choices that are no list"),
    pytest.param(ITEM | {"choices": ["yes", 2]}, "strings that are not blank", id="a choice that is no string"),
    pytest.param(ITEM | {"choices": ["yes", ""]}, "strings that are not blank", id="a blank choice"),
    pytest.param(ITEM | {"choices": ["no", "no"]}, "two choices are equal", id="equal choices"),
    pytest.param(ITEM | {"answer": 2}, "an index from 0 to 1, found 2", id="an answer out of range"),
    pytest.param(ITEM | {"answer": -1}, "an index from 0 to 1, found -1", id="a negative answer"),
    pytest.param(ITEM | {"answer": True}, "an index from 0 to 1, found True", id="an answer that is a truth value"),
    pytest.param(ITEM | {"answer": "yes"}, "an index from 0 to 1", id="an answer that is a string"),
    pytest.param({"id": "1"}, "neither 'choices'", id="neither choices nor text"),
    pytest.param({"id": "1", "text": ""}, "field 'text'", id="a blank text"),
    pytest.param({"id": "1", "text": "a"}, "expected all of one task", id="another task than before"),
    pytest.param(json.dumps(ITEM | {"prompt": "\ud800"}), "half a surrogate pair", id="half a surrogate pair"),
    pytest.param(ITEM | {"id": "0"}, "id '0' stands already in .*:1$", id="an id twice"),
    pytest.param(ITEM | {"id": 0}, "id '0' stands already in .*:1$", id="an id twice, as a number"),
]


@pytest.mark.parametrize(("row", "message"), BAD)
def test_bad_item_is_refused_with_file_and_line(world: World, row: dict[str, Any] | str, message: str) -> None:
    uri = world.write("i.jsonl", [ITEM | {"id": "0"}, row])
    with pytest.raises(PermanentError, match=message) as refused:
        world.bank(uri, 0, 1)
    assert refused.value.reason == "BadItem"
    assert f"{uri}:2: " in refused.value.message


def test_item_without_its_cluster_is_refused(world: World) -> None:
    with pytest.raises(PermanentError, match=r"i\.jsonl:1: field 'fact': expected the name of the item's cluster"):
        world.bank(world.write("i.jsonl", [ITEM]), 0, 1, clusterBy={"knowledge": "fact"})


def test_cluster_field_of_an_axis_that_is_not_there_is_refused(world: World) -> None:
    with pytest.raises(PermanentError, match="the bank has no axis of that name"):
        world.bank(world.write("i.jsonl", [ITEM]), 0, 1, clusterBy={"reasoning": "fact"})


def test_items_that_changed_since_they_were_resolved_are_refused(world: World) -> None:
    tasks = {"knowledge": {"uri": world.write("i.jsonl", [ITEM])}}
    content = world.resolve(banks={"b": tasks}).contents["bank/b"]
    world.write("i.jsonl", [ITEM | {"answer": 1}])
    with pytest.raises(PermanentError, match="was found when the pipeline was resolved") as refused:
        world.run("stage", "bank", bank={"tasks": tasks, "content": content, "dev": 0, "gate": 1})
    assert refused.value.reason == "SourceChanged"


@pytest.mark.parametrize("dev", [20, 31])
def test_axes_that_share_a_cluster_field_never_have_one_cluster_in_dev_here_and_in_gate_there(
    world: World, dev: int
) -> None:
    """Three questions a fact on one axis, two on the other, and other facts besides."""
    facts = [f"fact-{number}" for number in range(80)]
    rows = {
        "knowledge": [ITEM | {"id": f"{f}-{n}", "prompt": f"{f} {n}", "fact": f} for f in facts[:60] for n in range(3)],
        "reasoning": [ITEM | {"id": f"{f}/{n}", "prompt": f"{f} {n}", "fact": f} for f in facts[10:] for n in range(2)],
    }
    tasks = {axis: {"uri": world.write(f"{axis}.jsonl", items)} for axis, items in rows.items()}
    content = world.resolve(banks={"bank": tasks}).contents["bank/bank"]
    clusters = {"knowledge": "fact", "reasoning": "fact"}
    task = {"tasks": tasks, "content": content, "dev": dev, "gate": 60, "clusterBy": clusters}
    outcome = world.run("stage", "bank", bank=task)
    parts = {
        (axis, part): {item["fact"] for item in lines(world.folder(outcome) / f"{axis}.{part}.jsonl")}
        for axis in tasks
        for part in ("dev", "gate")
    }
    assert not parts["knowledge", "dev"] & parts["reasoning", "gate"]
    assert not parts["reasoning", "dev"] & parts["knowledge", "gate"]
    counts = world.meta(outcome)["axes"]
    assert [counts[axis]["dev"] + counts[axis]["gate"] + counts[axis]["unused"] for axis in rows] == [180, 140]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param({"prompt": "Is it"}, {"prompt": " IS it?\n"}, id="but for case, punctuation and white space"),
        pytest.param({"prompt": "Is it"}, {"choices": ["no", "yes"], "answer": 1}, id="but for the order of choices"),
        pytest.param({"prompt": "∀ ∃"}, {"prompt": "∀ ∃"}, id="without a letter"),
    ],
)
def test_an_item_that_stands_there_twice_under_two_ids_is_refused(
    world: World, first: dict[str, Any], second: dict[str, Any]
) -> None:
    uri = world.write("i.jsonl", [ITEM | {"id": "0"} | first, ITEM | {"id": "1"} | second])
    with pytest.raises(PermanentError, match=r"i\.jsonl:2: text '.*' stands already in .*i\.jsonl:1$") as refused:
        world.bank(uri, 0, 1)
    assert refused.value.reason == "BadItem"


def test_items_that_differ_in_a_sign_of_arithmetic_are_two(world: World) -> None:
    rows = [ITEM | {"id": sign, "prompt": f"Is 5 {sign} 0 equal to 5?"} for sign in "+-"]
    rows += [ITEM | {"id": sign, "prompt": sign, "choices": ["∀", "∃"]} for sign in "⊢⊨"]
    assert world.meta(world.bank(world.write("i.jsonl", rows), 2, 2))["axes"]["knowledge"]["gate"] == 2
