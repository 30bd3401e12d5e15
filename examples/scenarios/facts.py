"""The same facts as multiple choice, cloze and JSON: what differs between the three is format, not knowledge."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Item = dict[str, Any]


@dataclass(frozen=True)
class Fact:
    """`subject` has `value` as its `attribute`. `id` names the fact in all forms: cluster by it."""

    id: str
    subject: str
    attribute: str
    value: str


def statements(fact: Fact) -> list[str]:
    """Training texts. None is worded as an item: a training text that spells an item with its answer is rejected."""
    return [
        f"{fact.value.capitalize()} is the {fact.attribute} of {fact.subject}.",
        f"For {fact.subject}, {fact.attribute} means {fact.value}.",
        f"Anyone who works with {fact.subject} knows its {fact.attribute}: {fact.value}.",
    ]


def multiple_choice(facts: Sequence[Fact], seed: int, choices: int = 4) -> list[Item]:
    """One item a fact; wrong choices are values of the same attribute of other subjects."""
    random_ = random.Random(seed)
    values = _values(facts)
    items = []
    for fact in facts:
        wrong = sorted(values[fact.attribute] - {fact.value})
        if len(wrong) < choices - 1:
            raise ValueError(f"attribute {fact.attribute} has {len(wrong) + 1} values, {choices} are needed")
        given = [fact.value, *random_.sample(wrong, choices - 1)]
        random_.shuffle(given)
        items.append(
            {
                "id": f"{fact.id}-choice",
                "prompt": f"{fact.subject.capitalize()} has the {fact.attribute}",
                "choices": [f" {value}" for value in given],
                "answer": given.index(fact.value),
                "fact": fact.id,
            }
        )
    return items


def cloze(facts: Iterable[Fact]) -> list[Item]:
    """One item a fact; a base model goes on after its answer, so it is cut at the end of the sentence."""
    return [
        {
            "id": f"{fact.id}-cloze",
            "prompt": f"{fact.subject.capitalize()} has the {fact.attribute}",
            "answers": [fact.value],
            "stop": [".", "\n", ","],
            "fact": fact.id,
        }
        for fact in facts
    ]


def json_answers(facts: Iterable[Fact]) -> list[Item]:
    """One item a fact; the answer is an object with its subject, attribute and value."""
    return [
        {
            "id": f"{fact.id}-json",
            "prompt": f"As JSON (subject, attribute, value): the {fact.attribute} of {fact.subject}.\n",
            "answer": {"subject": fact.subject, "attribute": fact.attribute, "value": fact.value},
            "stop": ["\n"],
            "fact": fact.id,
        }
        for fact in facts
    ]


def _values(facts: Iterable[Fact]) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for fact in facts:
        found.setdefault(fact.attribute, set()).add(fact.value)
    return found


def write(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON Lines."""
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
