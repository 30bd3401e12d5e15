"""Rows that are made from a prepared data set by rule (see patterns). Reads the artifact; judges nothing.

What is made of one row depends on the seed, the rule and that row's id alone; a worse answer also on the other answers
of the set. Rows made of a document that was set aside are set aside too, and all rows of one document go together.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bessemer_api.v1alpha1.data import DERIVED, Derive
from bessemer_api.v1alpha1.stage import PrepareInputs
from bessemer_trainer.data import kind_of, read_lines
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.patterns import corrupted, questions, with_tasks
from bessemer_trainer.records import part_text, record_of
from bessemer_trainer.rows import Row
from bessemer_trainer.store import Store

_TRIES = 64
Fields = Mapping[str, Any]


def derived_rows(store: Store, inputs: PrepareInputs, seed: int) -> Iterator[Row]:
    """All rows that the rule makes of the set `inputs.content`. Raises PermanentError(WrongKind | SpecInvalid)."""
    derive = inputs.derive
    if derive is None or inputs.sources:
        raise PermanentError("SpecInvalid", "prepare.derive: expected a rule and no sources")
    needed, made = DERIVED[derive.rule]
    found = kind_of(store, inputs.content)
    if (found, inputs.kind) != (needed, made):
        raise PermanentError(
            "WrongKind", f"{derive.rule} makes {made} of {needed}; found a set of {found} to make {inputs.kind} of"
        )
    folder = store.fetch(inputs.content)
    rule = _rule(derive, folder)
    for name in ("documents", "holdout"):
        for origin in read_lines(folder / f"{name}.jsonl"):
            dice = random.Random(f"{seed}/{derive.rule}/{derive.reject_by}/{origin['id']}")  # noqa: S311 - no secret
            for number, fields in enumerate(rule(origin, dice), start=1):
                record = record_of(fields, inputs.kind, {})
                group = str(origin.get("text") or part_text(origin["prompt"]))
                yield Row(
                    f"{origin['id']}#{number}",
                    str(origin["id"]),
                    0,
                    record.text,
                    record.fields,
                    group,
                    is_held=name == "holdout",
                )


Maker = Callable[[Fields, random.Random], Iterator[Fields]]


def _rule(derive: Derive, folder: Path) -> Maker:
    if derive.rule == "rejectedAnswers":
        trained, held = (list(read_lines(folder / f"{name}.jsonl")) for name in ("documents", "holdout"))
        return RejectedAnswers(derive, trained, held)
    make = _reading_comprehension if derive.rule == "readingComprehension" else _question_answer
    return lambda origin, dice: make(origin, dice, derive.per_row)


def _reading_comprehension(origin: Fields, dice: random.Random, most: int) -> Iterator[Fields]:
    text = str(origin["text"])
    yield {"text": with_tasks(text, questions(text, dice, most), dice)}


def _question_answer(origin: Fields, dice: random.Random, most: int) -> Iterator[Fields]:
    """Questions that can be asked without the text."""
    found = [question for question in questions(str(origin["text"]), dice, 4 * most) if question.is_open]
    for question in found[:most]:
        yield {"prompt": question.prompt, "completion": question.answer}


class RejectedAnswers:
    """A worse answer beside the right one. Holds all answers of the set in memory, to choose distractors from.

    Distractors are answers of rows that are trained on: what was set aside stays unseen.
    """

    def __init__(self, derive: Derive, trained: Sequence[Fields], held: Sequence[Fields]) -> None:
        self._derive = derive
        self._by_kind: dict[str, list[str]] = {}
        self._right: dict[str, set[str]] = {}
        for row in (*trained, *held):
            self._right.setdefault(part_text(row["prompt"]), set()).add(part_text(row["completion"]))
        for row in trained:
            self._by_kind.setdefault(_kind_of_question(row), []).append(part_text(row["completion"]))
        self._all = [answer for answers in self._by_kind.values() for answer in answers]

    def __call__(self, origin: Fields, dice: random.Random) -> Iterator[Fields]:
        right = part_text(origin["completion"])
        seen = set(self._right_answers(origin))
        for number in range(self._derive.per_row):
            wrong = self._wrong(origin, right, number, dice)
            if wrong is not None and wrong not in seen:
                seen.add(wrong)
                yield {"prompt": origin["prompt"], "chosen": right, "rejected": wrong}

    def _right_answers(self, origin: Fields) -> set[str]:
        return self._right[part_text(origin["prompt"])]

    def _wrong(self, origin: Fields, right: str, number: int, dice: random.Random) -> str | None:
        by = self._derive.reject_by
        by = ("distractor", "corruption")[number % 2] if by == "both" else by
        return self._distractor(origin, right, dice) if by == "distractor" else corrupted(right, dice)

    def _distractor(self, origin: Fields, right: str, dice: random.Random) -> str | None:
        """The answer of another question, of one that begins alike where there is one; of a few, the nearest in length.

        A length that tells right from wrong would be all that is learned.
        """
        for answers in (self._by_kind.get(_kind_of_question(origin), []), self._all):
            drawn = [dice.choice(answers) for _ in range(min(_TRIES, 4 * len(answers)))]
            equal = {answer.casefold() for answer in self._right_answers(origin)}
            others = [answer for answer in drawn if answer.casefold() not in equal]
            if others:
                return min(others[:8], key=lambda answer: abs(len(answer) - len(right)))
        return None


def _kind_of_question(row: Fields) -> str:
    """The first words of the question: what, why, fill in."""
    return " ".join(part_text(row["prompt"]).split()[:2]).casefold()
