"""Base or tuned, with or without passages: two axes on the same items, measured by the verb on trained weights.

The one model knows the facts; the other knows other ones, and was taught to copy what a passage says.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.gate import GateAxis
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.prompts import prompt_of
from bessemer_trainer.reporting import retrieval
from bessemer_trainer.statistics import Item as Scored
from bessemer_trainer.statistics import compare_axis
from bessemer_trainer.store import open_store
from tests.trainer.evaluation.habits import COLOURS, NAMES, Habits, Line, asking, items
from tests.trainer.evaluation.tiny import World, publish_checkpoint, write_jsonl

CLOSED = {"name": "closed", "task": "multipleChoice"}
OPENED = {"name": "opened", "task": "multipleChoice", "passages": True}


def copied(count: int) -> list[Line]:
    """Passages that say of a name any colour, and the answer that they give."""
    dice = np.random.Generator(np.random.PCG64(5))
    said = [(int(dice.integers(len(NAMES))), COLOURS[int(dice.integers(len(COLOURS)))]) for _ in range(count)]
    return [(f"Everybody knows it. The colour of {NAMES[i]} is {c}.\n{asking(i)}", f" {c}.") for i, c in said]


@pytest.fixture(scope="module")
def world(habits: Habits, tmp_path_factory: pytest.TempPathFactory) -> World:
    """weak: the model that reads; good: the one that knows."""
    root = tmp_path_factory.mktemp("retrieval")
    store = open_store(f"file://{root}/store", root / "scratch")
    dice = np.random.Generator(np.random.PCG64(6))
    strange = [(asking(i), f" {COLOURS[int(dice.integers(len(COLOURS)))]}.") for i in range(len(NAMES))]
    reader = habits.went_on([*copied(600), *strange * 10], steps=300, rate=3e-3)
    bank = root / "bank"
    bank.mkdir()
    for axis in ("closed", "opened"):
        write_jsonl(bank / f"{axis}.gate.jsonl", [{"id": item.id, **item.fields} for item in items()["knowledge"]])
    weak = publish_checkpoint(store, root / "reader", reader, habits.tokenizer)
    good = store.publish(habits.root / "start", "checkpoint", {})
    made = (weak, good)
    return World(root, f"file://{root}/store", store.publish(bank, "bank", {}), *made)


@pytest.fixture(scope="module")
def scores(world: World) -> Mapping[str, Mapping[str, list[Scored]]]:
    """By arm and axis, as they are stored."""
    found: dict[str, dict[str, list[Scored]]] = {}
    for name, checkpoint in (("baseline", world.weak), ("candidate", world.good)):
        made = world.evaluate(checkpoint, 0, len(NAMES), axes=[CLOSED, OPENED])
        for path in world.store().fetch(made).glob("samples_*.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            axis = path.stem.removeprefix("samples_")
            found.setdefault(name, {})[axis] = [Scored(row["id"], row["score"], row["cluster"]) for row in rows]
    return found


def spec(**open_axis: Any) -> PipelineSpec:
    opened = OPENED | open_axis
    tasks = {"closed": {"uri": "k.jsonl"}, opened["name"]: {"uri": "k.jsonl"}}
    bank = {"name": "b", "dev": 0, "gate": 12, "tasks": tasks}
    return PipelineSpec.model_validate({
        "store": "file:///s", "evaluation": {"banks": [bank], "axes": [CLOSED, opened]},
    })  # fmt: skip


def test_who_was_taught_to_read_needs_the_passage_and_who_knows_does_not(
    scores: Mapping[str, Mapping[str, list[Scored]]],
) -> None:
    means = {
        (arm, axis): float(np.mean([item.value for item in found]))
        for arm, axes in scores.items()
        for axis, found in axes.items()
    }
    assert means["baseline", "closed"] < 0.6
    assert means["baseline", "opened"] > means["baseline", "closed"] + 0.3
    assert means["candidate", "closed"] > 0.9


def test_the_report_has_a_table_of_both_arms_with_and_without(
    scores: Mapping[str, Mapping[str, list[Scored]]],
) -> None:
    views = {}
    for axis in ("closed", "opened"):
        asked = GateAxis(name=axis, not_worse_than=0.05)
        evidence = compare_axis(scores["baseline"][axis], scores["candidate"][axis], asked, larger_is_better=True)
        view = {"candidate": evidence.candidate_mean, "baseline": evidence.baseline_mean}
        views[axis] = view | {"evidence": evidence, "unit": "accuracy"}
    (table,) = retrieval.tables(spec(), views)
    mean = {
        arm: [np.mean([item.value for item in found[a]]) for a in ("closed", "opened")] for arm, found in scores.items()
    }
    assert table["rows"] == [(arm, *map(pytest.approx, mean[arm])) for arm in ("baseline", "candidate")]
    assert table["items"] == len(NAMES)
    assert retrieval.tables(spec(), {"closed": views["closed"]}) == [], "the gate asks one of them alone"


@pytest.mark.parametrize(
    ("changed", "count"),
    [({}, 1), ({"passages": None}, 0), ({"metric": "brier"}, 0)],
    ids=["passages alone differ", "none has passages", "another metric"],
)
def test_a_pair_differs_in_passages_alone(changed: Mapping[str, Any], count: int) -> None:
    assert len(list(retrieval.pairs(spec(**changed)))) == count


def test_a_pair_has_the_same_items() -> None:
    document = spec().model_dump(by_alias=True, exclude_none=True)
    document["evaluation"]["banks"][0]["tasks"]["opened"]["uri"] = "other.jsonl"
    assert list(retrieval.pairs(PipelineSpec.model_validate(document))) == []


def test_a_passage_stands_before_what_the_user_says_last() -> None:
    axis = Axis.model_validate(OPENED)
    said = [{"role": "user", "content": "What is it?"}]
    assert prompt_of(Item("a", {"prompt": "It is", "passage": "It is blue."}, ""), axis) == "It is blue.\nIt is"
    shown = prompt_of(Item("a", {"prompt": said, "passage": "It is blue."}, ""), axis)
    assert shown == [{"role": "user", "content": "It is blue.\nWhat is it?"}]
    assert prompt_of(Item("a", {"prompt": "It is", "passage": "x"}, ""), Axis.model_validate(CLOSED)) == "It is"


def test_an_item_without_a_passage_is_named() -> None:
    with pytest.raises(PermanentError, match=r"item a: the field 'passage' is None"):
        prompt_of(Item("a", {"prompt": "It is"}, "k.jsonl, line 1"), Axis.model_validate(OPENED))
