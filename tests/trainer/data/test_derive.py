"""Derived sets: what the patterns find, that worse answers are wrong, and that the rows feed sft and dpo."""

import json
import random
from typing import Any

import numpy as np
import pytest

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.patterns import corrupted, questions, with_tasks
from tests.trainer.data.world import Data, World

FOUND = [
    (
        "Osmosis is the movement of water through a membrane.",
        "What is osmosis?",
        "The movement of water through a membrane.",
    ),
    (
        "DNA Repair refers to the ways in which a cell mends damage.",
        "What is DNA Repair?",
        "The ways in which a cell mends damage.",
    ),
    (
        "The reaction stops because the enzyme is used up.",
        "What is the reason that the reaction stops?",
        "The enzyme is used up.",
    ),
    ("A lack of iron leads to severe anaemia.", "What leads to severe anaemia?", "A lack of iron."),
    (
        "All cells need energy to live. Therefore, muscle cells need energy too.",
        '"All cells need energy to live." Does it follow that "Muscle cells need energy too."? Answer with yes or no.',
        "Yes",
    ),
    (
        "Most birds can fly well. However, the ostrich never flies at all.",
        '"Most birds can fly well." Does it follow that "The ostrich never flies at all."? Answer with yes or no.',
        "No",
    ),
]


@pytest.mark.parametrize(("text", "prompt", "answer"), FOUND)
def test_patterns_find_what_a_text_answers_itself(text: str, prompt: str, answer: str) -> None:
    found = {question.prompt: question.answer for question in questions(text, random.Random(1), 8)}
    assert found.get(prompt) == answer, found


@pytest.mark.parametrize(
    "text",
    [
        "It is a very common disease of children.",
        "The match was cancelled because of heavy rain in town.",
        "There are the usual three kinds of them.",
        "This leads to many severe problems later.",
    ],
)
def test_what_refers_to_something_outside_of_the_sentence_is_no_question(text: str) -> None:
    assert not [q for q in questions(text, random.Random(1), 8) if q.prompt.startswith("What")]


def test_cloze_and_completion_come_from_the_text(dice: random.Random) -> None:
    text = "The river crosses the valley in spring. Every bridge was repaired in 1907 by the council."
    for seed in range(20):
        for question in questions(text, random.Random(seed), 4):
            if question.prompt.startswith("Fill in the gap: "):
                assert question.prompt.removeprefix("Fill in the gap: ").replace("____", question.answer, 1) in text
            else:
                assert question.answer in text
                assert not question.is_open


@pytest.fixture
def dice() -> random.Random:
    return random.Random(4)


def test_reading_comprehension_is_the_text_with_its_tasks(dice: random.Random) -> None:
    text = "Osmosis is the movement of water. The reaction stops because the enzyme is used up."
    found = questions(text, dice, 2)
    made = with_tasks(text, found, dice)
    assert made.startswith(text)
    assert [made.count(f"Question: {q.prompt}\nAnswer: {q.answer}") for q in found] == [1, 1]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("In 1907.", "In "),
        ("The pressure is higher.", "The pressure "),
        ("A 5 and a 7", "A "),
        ("Water flows downhill", ""),
    ],
)
def test_a_corrupted_answer_differs_in_little(answer: str, kept: str) -> None:
    for seed in range(50):
        wrong = corrupted(answer, random.Random(seed))
        assert wrong is not None
        assert wrong != answer
        assert wrong.startswith(kept)
        assert abs(len(wrong.split()) - len(answer.split())) <= 1


@pytest.mark.parametrize("digits", ["0", "5", "9", "10", "99", "1907", "00"])
def test_another_number_is_always_another(digits: str) -> None:
    assert all(corrupted(f"x {digits}", random.Random(seed)) != f"x {digits}" for seed in range(100))


def test_an_answer_that_can_not_be_corrupted_gives_none() -> None:
    assert corrupted("Yes", random.Random(1)) is None


def derive(world: World, data: Data, kind: str, rule: str, seed: int = 0, **options: Any) -> Data:
    """A set derived from another."""
    inputs = {
        "kind": kind,
        "content": data.outcome.output_digest,
        "derive": {"from": "origin", "rule": rule, **options.pop("settings", {})},
        "rules": {},
        **options,
    }
    outcome = world.run("stage", "prepare", seed=seed, prepare=inputs)
    return Data(world.folder(outcome), outcome)


NAMES = ("Copper", "Glacier", "Harbour", "Theorem", "Protein", "Senate", "Engine", "Novel", "Market", "Garden")


@pytest.fixture
def texts(world: World) -> Data:
    rows = [
        {
            "text": f"{name} {number} is a {name.lower()} of the valley number {number}. "
            f"{name} {number} grows because the rain of {1900 + number} fell. Therefore, it lasts for {number} years."
        }
        for number in range(8)
        for name in NAMES
    ]
    return world.prepare([world.write("a.jsonl", rows)], holdout=0.25)


def test_derived_rows_follow_the_seed_and_the_set_that_they_come_from(world: World, texts: Data) -> None:
    first = derive(world, texts, "promptCompletion", "questionAnswer")
    again = derive(world, texts, "promptCompletion", "questionAnswer")
    other = derive(world, texts, "promptCompletion", "questionAnswer", seed=1)
    assert first.outcome == again.outcome
    assert first.outcome.output_digest != other.outcome.output_digest
    assert world.meta(first.outcome)["kind"] == "promptCompletion"
    assert len(first.documents) > len(texts.documents)


@pytest.mark.parametrize("share", [0, 0.3])
def test_what_comes_from_a_document_that_was_set_aside_is_set_aside(world: World, texts: Data, share: float) -> None:
    made = derive(world, texts, "promptCompletion", "questionAnswer", holdout=share)
    origins = {row["id"] for row in texts.holdout}
    assert {row["id"].partition("#")[0] for row in made.holdout} >= origins
    assert not {row["id"].partition("#")[0] for row in made.documents} & origins
    trained, held = ({row["id"].partition("#")[0] for row in rows} for rows in (made.documents, made.holdout))
    assert not trained & held
    assert (len(held) > len(origins)) == (share > 0)


@pytest.mark.parametrize("by", ["distractor", "corruption", "both"])
def test_a_rejected_answer_is_never_the_right_one(world: World, texts: Data, by: str) -> None:
    asked = derive(world, texts, "promptCompletion", "questionAnswer")
    pairs = derive(world, asked, "preference", "rejectedAnswers", settings={"rejectBy": by, "perRow": 2})
    right: dict[str, set[str]] = {}
    for row in asked.documents + asked.holdout:
        right.setdefault(row["prompt"], set()).add(row["completion"])
    everything = set().union(*right.values())
    rows = pairs.documents + pairs.holdout
    assert len(rows) >= len(asked.documents)
    for row in rows:
        assert (row["chosen"] in right[row["prompt"]], row["rejected"] in right[row["prompt"]]) == (True, False)
    foreign = sum(row["rejected"] in everything for row in rows) / len(rows)
    assert {"distractor": foreign == 1, "corruption": foreign < 0.5, "both": 0.2 < foreign < 1}[by]
    chosen, rejected = (np.mean([len(row[name]) for row in rows]) for name in ("chosen", "rejected"))
    assert abs(chosen - rejected) < 0.15 * chosen


def test_a_rule_is_refused_for_another_kind(world: World, texts: Data) -> None:
    with pytest.raises(PermanentError, match="makes preference of promptCompletion; found a set of text"):
        derive(world, texts, "preference", "rejectedAnswers")


def test_rules_of_preparation_hold_for_derived_rows(world: World, texts: Data) -> None:
    made = derive(world, texts, "promptCompletion", "questionAnswer", rules={"minCharacters": 60})
    assert made.reasons
    assert set(made.reasons) <= {"minCharacters", "exactDuplicate"}
    assert all(row["id"] == row["source"] for row in made.rejected)


def test_derived_sets_feed_sft_and_dpo(world: World, texts: Data) -> None:
    """From raw text alone: a mixture of examples and one of pairs, each with what is learned in it."""
    comprehension = derive(world, texts, "text", "readingComprehension")
    asked = derive(world, texts, "promptCompletion", "questionAnswer")
    pairs = derive(world, asked, "preference", "rejectedAnswers")
    parts = {"texts": texts, "comprehension": comprehension, "asked": asked, "pairs": pairs}
    named = {name: {"name": name, "digest": data.outcome.output_digest} for name, data in parts.items()}
    words = world.run("stage", "tokenizer", tokenizer={"vocabularySize": 600}, mixture={"parts": [named["texts"]]})
    common = {"tokenizer": words.output_digest, "sequenceLength": 256, "chatTemplate": "roles"}

    def mix(form: str, *names: str) -> dict[str, Any]:
        inputs = {**common, "format": form, "parts": [named[name] for name in names]}
        return world.meta(world.run("stage", "mixture", mixture=inputs))

    examples, preferences = mix("examples", "asked", "comprehension"), mix("pairs", "pairs")
    assert examples["refused"] == preferences["refused"] == 0
    assert [part["documents"] for part in examples["parts"]] == [len(asked.documents), len(comprehension.documents)]
    assert examples["targets"] > len(asked.documents) * 3
    assert preferences["pairs"] == len(pairs.documents) > 100
    assert json.dumps(preferences["parts"][0]["repeats"]) == "1.0"
