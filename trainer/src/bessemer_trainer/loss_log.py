"""What each step of training gave, and `metrics.jsonl` in the run folder. Keeps numbers; decides nothing."""

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from bessemer_trainer.errors import TransientError
from bessemer_trainer.store import Store

_SECONDS_BETWEEN_WRITES = 20.0
_TOLD_ELSEWHERE = frozenset({"step", "tokens", "targets", "learningRate", "gradNorm"})


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step, counted from 1. `loss`: mean over the global batch (nats a token, for likelihoods).

    `tokens`, `targets`: in all steps so far; targets are those that the loss is about. `more`: what the method tells.
    """

    step: int
    tokens: int
    targets: int
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float
    tokens_per_second: float
    more: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """The line of metrics.jsonl."""
        document = {
            "step": self.step,
            "tokens": self.tokens,
            "targets": self.targets,
            "loss": self.loss,
            "learningRate": self.learning_rate,
            "gradNorm": self.grad_norm,
            "tokensPerSecond": round(self.tokens_per_second, 1),
            **{_camel(name): value for name, value in self.more.items()},
        }
        return json.dumps(document) + "\n"

    def metrics(self) -> dict[str, float]:
        """For Prometheus and for people."""
        return {
            "loss": self.loss,
            "tokens_total": float(self.tokens),
            "tokens_per_second": self.tokens_per_second,
            "step_seconds": self.seconds,
            "learning_rate": self.learning_rate,
            "grad_norm": self.grad_norm,
            **self.more,
        }


class LossLog:
    """`metrics.jsonl` of a run folder, over all its attempts. The first rank writes it."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key
        self._lines: list[str] = []
        self._written = time.monotonic()

    def resume_at(self, step: int) -> None:
        """Take over the lines of earlier attempts up to `step`; steps after it are done again."""
        lines = (self._store.read(self._key) or b"").decode(errors="replace").splitlines(keepends=True)
        self._lines = [line for line in lines if _step_of(line) <= step]

    def append(self, record: StepRecord) -> None:
        self._lines.append(record.line())
        if time.monotonic() - self._written > _SECONDS_BETWEEN_WRITES:
            with contextlib.suppress(TransientError):  # for people who watch; what counts is written at each save
                self.flush()

    def flush(self) -> None:
        """An object store can not append: the file is written anew."""
        self._store.write(self._key, "".join(self._lines).encode())
        self._written = time.monotonic()

    def final(self) -> dict[str, float]:
        """Metrics for the report: those of the last step, whichever attempt made it."""
        if not self._lines:
            return {}
        last = json.loads(self._lines[-1])
        return {name: value for name, value in last.items() if name not in _TOLD_ELSEWHERE}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.title() for word in others)


def _step_of(line: str) -> float:
    """Its step; infinity for a line that is none."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
