"""The scenarios: their banks are built by the real stage, and their graders know right answers from wrong ones."""

import json
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.v1alpha1.evaluation import BankTask
from bessemer_operator.cli.lintfile import problems_of, profiles_of
from bessemer_operator.cli.planfile import show_plan
from bessemer_operator.cli.supposed import read_supposed
from bessemer_operator.cli.target import Place
from bessemer_trainer.data import pin_bank
from bessemer_trainer.evals import constraints
from bessemer_trainer.evals.verifiers import reward
from bessemer_trainer.ngrams import normalise
from tests.examples.pages import ROOT, make_data, sources_of, spec_of
from tests.trainer.data.world import World

EXAMPLE = ROOT / "examples/scenarios"
BANK = spec_of("scenarios")["evaluation"]["banks"][0]
AXES = {axis["name"]: axis for axis in spec_of("scenarios")["evaluation"]["axes"]}
Items = list[dict[str, Any]]


@pytest.fixture(scope="module")
def path() -> Iterator[None]:
    """The folder's modules, found as they find each other."""
    sys.path.insert(0, str(EXAMPLE))
    yield
    sys.path.remove(str(EXAMPLE))
    for name in ("briefs", "facts", "instructions", "synthesis"):
        sys.modules.pop(name, None)


class Scenario:
    """The data, and the bank that the pipeline's own declaration makes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = make_data("scenarios", folder / "data")

    def rows(self, name: str) -> Items:
        return [json.loads(line) for line in (self.folder / "data" / f"{name}.jsonl").read_text().splitlines()]

    @cached_property
    def bank(self) -> Path:
        world = World(self.folder)
        tasks = {axis: {"uri": str(self.folder / task["uri"])} for axis, task in BANK["tasks"].items()}
        inputs = {
            "tasks": tasks,
            "content": pin_bank({axis: BankTask.model_validate(task) for axis, task in tasks.items()}),
            "measures": {name: axis["task"] for name, axis in AXES.items()},
            "clusterBy": {name: axis["clusterBy"] for name, axis in AXES.items() if "clusterBy" in axis},
            "stratifyBy": {name: axis["stratifyBy"] for name, axis in AXES.items() if "stratifyBy" in axis},
            **{part: BANK[part] for part in ("dev", "gate")},
        }
        return world.folder(world.run("stage", "bank", seed=BANK["seed"], bank=inputs))

    def part(self, axis: str, part: str) -> Items:
        return [json.loads(line) for line in (self.bank / f"{axis}.{part}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def scenario(path: None, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    return Scenario(tmp_path_factory.mktemp("scenarios"))


def test_the_pipeline_has_no_finding() -> None:
    assert problems_of(str(EXAMPLE / "pipeline.yaml"), profiles_of(None)) == []


async def test_the_pipeline_can_be_planned(
    scenario: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = scenario.folder / "pipeline.yaml"
    file.write_text((EXAMPLE / "pipeline.yaml").read_text())
    assert await show_plan(str(file), Place(state=str(tmp_path)), read_supposed([], []), None, "json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in plan["stages"]] == ["pretrain", "cpt"]


def test_a_second_run_writes_the_same_bytes(scenario: Scenario, tmp_path: Path) -> None:
    assert make_data("scenarios", tmp_path) == scenario.files
    assert sources_of("scenarios") < scenario.files
    for name in scenario.files:
        assert (tmp_path / name).read_bytes() == (scenario.folder / "data" / name).read_bytes(), name


@pytest.mark.parametrize("axis", AXES)
def test_a_bank_has_all_the_items_that_the_gate_asks_for_and_no_cluster_in_both_parts(
    scenario: Scenario, axis: str
) -> None:
    parts = {part: scenario.part(axis, part) for part in ("dev", "gate")}
    assert {part: len(items) for part, items in parts.items()} == {"dev": BANK["dev"], "gate": BANK["gate"]}
    for name in ("id", AXES[axis].get("clusterBy", "id")):
        dev, gate = ({item[name] for item in parts[part]} for part in ("dev", "gate"))
        assert not dev & gate, name


def test_the_three_forms_of_a_fact_are_in_the_same_part(scenario: Scenario) -> None:
    for part in ("dev", "gate"):
        found = [{item["fact"] for item in scenario.part(axis, part)} for axis in ("knowledge", "cloze", "json")]
        assert found[0] == found[1] == found[2]


def test_no_text_says_what_a_question_and_its_answer_say(scenario: Scenario) -> None:
    texts = b"\n".join(normalise(row["text"]) for name in ("texts", "papers") for row in scenario.rows(name))
    asked = [item["prompt"] + item["choices"][item["answer"]] for item in scenario.rows("knowledge")]
    asked += [f"{item['prompt']} {item['answers'][0]}" for item in scenario.rows("cloze")]
    assert [text for text in asked if normalise(text) in texts] == []


# --- graders ----------------------------------------------------------------------------------------------------


def test_a_right_choice_is_what_the_texts_say(scenario: Scenario) -> None:
    texts = "\n".join(row["text"] for name in ("texts", "papers") for row in scenario.rows(name))
    for item in scenario.rows("knowledge"):
        subject, attribute = item["fact"].split("-")
        said = [f"For {subject}, {attribute} means{choice}." in texts for choice in item["choices"]]
        assert said == [place == item["answer"] for place in range(len(item["choices"]))], item


def test_the_answer_of_two_documents_follows_from_both_and_from_no_other(scenario: Scenario) -> None:
    for item in scenario.rows("reasoning"):
        if item["form"] == "open":
            thing = item["prompt"].rpartition("density of the ")[2].partition("?")[0]
            material = item["prompt"].partition(f"The {thing} is made of ")[2].partition(".")[0]
            value = item["prompt"].partition(f"The density of {material} is ")[2].partition(".")[0]
            assert item["choices"][item["answer"]] == f" {value}"
        assert len(set(item["choices"])) == 4


@pytest.mark.parametrize("axis", ["cloze", "json"])
def test_a_fact_in_any_form_is_graded_by_its_value(scenario: Scenario, axis: str) -> None:
    items = scenario.rows(axis)
    values = [json.dumps(item["answer"]) if axis == "json" else item["answers"][0] for item in items]
    for item, right, other in zip(items, values, [*values[1:], values[0]], strict=True):
        assert reward(item, f" {right}") == 1
        assert reward(item, f" {other}") < 1
        assert reward(item, "") == 0


ANSWERS = {
    "length": ("A note.", "word " * 70),
    "keyword": ("A note about {topic}.", "A note."),
    "forbidden": ("A note.", "very because however and"),
    "bullets": ("- one\n- two\n- three", "one two"),
    "json": ('{{"summary": "{topic}"}}', "summary: {topic}"),
    "case": ("a note", "A Note"),
    "ending": ("A note. That is all.", "A note."),
    "sentences": ("One sentence.", "1. 2. 3. 4. 5."),
}
"""By family, what meets its demand at its mildest, and what meets none."""


@pytest.mark.parametrize("family", ANSWERS)
def test_an_instruction_is_graded_by_what_it_demands(scenario: Scenario, family: str) -> None:
    good, bad = ANSWERS[family]
    items = [item for item in scenario.rows("instruction") if item["family"] == family]
    grades = {
        text: [constraints.satisfied(item["constraints"][:1], text.format(topic=item["topic"]))[0] for item in items]
        for text in (good, bad)
    }
    assert len(items) == 45, "families take turns"
    assert any(grades[good]) and not any(grades[bad])
    mildest = family in {"length", "keyword", "forbidden", "json"}
    assert all(grades[good]) if mildest else True


def test_a_design_that_fits_is_valid_and_no_other_is(scenario: Scenario) -> None:
    for item in scenario.rows("creative")[::20]:
        rows = item["verifier"]["rows"]
        one, other, joint = rows[len(rows) // 2]
        fits, backward = f"Join a {one} to a {other} with {joint}.", f"Join a {other} to a {one} with {joint}."
        assert all(constraints.satisfied(item["constraints"], fits))
        assert (reward(item, fits), reward(item, backward), reward(item, "Join it with glue.")) == (1, 0, 0)


def test_half_of_what_fits_is_left_to_be_found(scenario: Scenario) -> None:
    texts = {row["text"] for name in ("texts", "papers") for row in scenario.rows(name)}
    for item in scenario.rows("creative")[::20]:
        known = [f"Join a {one} to a {other} with {joint}." in texts for one, other, joint in item["verifier"]["rows"]]
        assert 0.2 < sum(known) / len(known) < 0.8
