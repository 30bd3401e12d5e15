"""How a checkpoint is asked by diagnostics: losses of texts, likelihoods of choices, answers. Measures, judges nothing.

Equal questions are asked once. One model at a time is in memory: asking another probe of the same bench drops it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bessemer_api.digest import canonical_json, sha256_digest
from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals import bits_per_byte, multiple_choice
from bessemer_trainer.evals.answering import Answer, ask
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.prompts import prompt_of
from bessemer_trainer.evals.subject import Subject, load_subject

Found = TypeVar("Found")


class Bench:
    """Holds the one model that is in memory."""

    def __init__(self, load: Callable[[Path], Subject] = lambda folder: load_subject(folder, "fp32")) -> None:
        self._load = load
        self._held: tuple[Path, Subject] | None = None

    def subject(self, folder: Path) -> Subject:
        """The model of a checkpoint; the one before it is let go first."""
        if self._held is None or self._held[0] != folder:
            self._held = None
            self._held = (folder, self._load(folder))
        return self._held[1]


class Probe:
    """Asks one checkpoint."""

    def __init__(self, folder: Path, bench: Bench) -> None:
        self._folder = folder
        self._bench = bench
        self._known: dict[str, Any] = {}

    def _once(self, question: Any, answer: Callable[[], Found]) -> Found:  # noqa: ANN401 - any JSON value
        key = sha256_digest(canonical_json(question))
        if key not in self._known:
            self._known[key] = answer()
        found: Found = self._known[key]
        return found

    @property
    def subject(self) -> Subject:
        """The model with its tokenizer."""
        return self._bench.subject(self._folder)

    def bits_per_byte(self, items: Sequence[Item], axis: Axis) -> list[float]:
        """Of the text of each item."""
        return self._once(
            ["bits", *_questions(items)],
            lambda: [s.score for s in bits_per_byte.measure(self.subject, items, axis, _silent)],
        )

    def choices(self, items: Sequence[Item], axis: Axis) -> list[list[float]]:
        """Log-likelihood in nats of every choice of each item."""
        plain = axis.model_copy(update={"metric": None})
        return self._once(
            ["choices", plain.wire(), *_questions(items)],
            lambda: [
                list(sample.detail["logLikelihoods"])
                for sample in multiple_choice.measure(self.subject, items, plain, _silent)
            ],
        )

    def answers(
        self, items: Sequence[Item], diagnostic: Diagnostic, *, axis: Axis | None = None, samples: int | None = None
    ) -> list[list[Answer]]:
        """Answers to the prompt of each item: `samples` at temperature 1, or one greedy answer."""
        count = diagnostic.samples if samples is None else samples
        how = Axis(
            name=axis.name if axis else "answers",
            task="verified",
            prompt=axis.prompt if axis else None,
            samples=count,
            temperature=1.0 if count > 1 else 0.0,
            max_new_tokens=diagnostic.max_new_tokens,
        )
        return self._once(
            ["answers", how.wire(), *_questions(items)],
            lambda: ask(self.subject, [(i, prompt_of(i, how)) for i in items], how, _silent, cap=True),
        )


def changed(item: Item, fields: Mapping[str, Any]) -> Item:
    """The item with other fields, for another wording of the same question."""
    return replace(item, fields={**item.fields, **fields})


def _questions(items: Sequence[Item]) -> list[Any]:
    return [[item.id, dict(item.fields)] for item in items]


def _silent(_done: int) -> None:
    return None
