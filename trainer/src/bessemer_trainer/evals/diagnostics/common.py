"""What all diagnostics share: the checkpoints that they look at, what was measured of them, and what they find.

A diagnostic asks an `Arm` for measurements and gets them per item; equal questions are measured once. It reads dev
items alone. It stops nothing: what an alarm means is decided by people, and by a gate that names the veto.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any, Literal

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.diagnostics.probe import Probe
from bessemer_trainer.evals.items import Item

State = Literal["Quiet", "Alarm", "NotMeasured"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One checkpoint: its name for people, its digest, the folder with its files, and how it is asked."""

    name: str
    digest: str
    folder: Path
    meta: Mapping[str, Any]
    probe: Probe


@dataclass(frozen=True, slots=True)
class Case:
    """What a diagnostic is given: the checkpoint, what it was made from, the dev items by axis and the training log."""

    subject: Arm
    start: Arm | None
    base: Arm | None
    parents: Sequence[Arm]
    axes: Sequence[Axis]
    items: Mapping[str, Sequence[Item]]
    log: Sequence[Mapping[str, float]] = ()

    @property
    def reference(self) -> Arm | None:
        """What the checkpoint is compared with: what its stage started from, else its first parent, else the base."""
        return self.start or next(iter(self.parents), None) or self.base


@dataclass(frozen=True, slots=True)
class Finding:
    """What one diagnostic found. `items`: the result of every item; `figures`: a table for people, by name."""

    state: State
    message: str
    value: float | None = None
    limit: float | None = None
    items: Sequence[Mapping[str, Any]] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)


Detector = Callable[[Case, Diagnostic], Finding]
"""detect(case, diagnostic) -> finding."""


class NotThereError(Exception):
    """What a diagnostic needs is not there; the message says what. Becomes the state NotMeasured."""


def items_for(case: Case, diagnostic: Diagnostic, tasks: Sequence[str]) -> tuple[Axis, list[Item]]:
    """The axis that the diagnostic reads and its first dev items. Raises NotThereError."""
    wanted = diagnostic.axis
    fitting = [a for a in case.axes if (a.name == wanted if wanted else a.task in tasks) and case.items.get(a.name)]
    if not fitting:
        what = f"axis {wanted}" if wanted else f"an axis with the task {' or '.join(tasks)}"
        raise NotThereError(f"the bank has no dev items of {what}")
    return fitting[0], list(case.items[fitting[0].name][: diagnostic.items])


def required(arm: Arm | None, what: str) -> Arm:
    """The arm. Raises NotThereError where there is none."""
    if arm is None:
        raise NotThereError(f"there is no {what} to compare it with")
    return arm


def beyond(value: float, limit: float, message: str, **more: Any) -> Finding:  # noqa: ANN401 - fields of Finding
    """An alarm when the value is above the limit."""
    return Finding("Alarm" if value > limit else "Quiet", message, value, limit, **more)


def mean_interval(values: Sequence[float], alpha: float) -> tuple[float, float, float]:
    """Mean, and the one-sided bounds below and above it at level alpha each (normal; 0 spread for one value)."""
    mean = fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    reach = NormalDist().inv_cdf(1 - alpha) * stdev(values) / math.sqrt(len(values))
    return mean, mean - reach, mean + reach


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Figures as the report shows them."""
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
