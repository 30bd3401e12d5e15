"""What every stage gets (Context) and gives back (Outcome), and how it shows its progress. No stage logic here."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bessemer_api.job import CompareReport, DiagnoseReport, PromoteReport, ResolveReport, RollbackReport, RunSpec
from bessemer_api.v1alpha1.evaluation import Progress as ToldProgress
from bessemer_trainer.metrics import Board
from bessemer_trainer.store import Store

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Done out of total, time left, and the newest metrics: for people (stderr) and for `/progress` and `/metrics`."""

    def __init__(self, board: Board, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._quiet = quiet
        self._clock = clock
        self._start: tuple[float, int] | None = None
        self._last_line = -_SECONDS_BETWEEN_LINES

    def update(self, done: int, total: int, message: str = "", **metrics: float) -> None:
        """Tell where the work stands. `done` and `total` are in any one unit; metrics keep their last value."""
        now = self._clock()
        if self._start is None:
            self._start = (now, done)
        share = min(1.0, done / total) if total > 0 else 0.0
        left = self._seconds_left(now, done, total)
        told = ToldProgress(
            progress_percentage=round(100 * share),
            estimated_remaining_seconds=left,
            metrics={name: value for name, value in sorted(metrics.items()) if math.isfinite(value)},
            message=message[:256],
        )
        self._board.publish({**metrics, "progress_ratio": share}, told.wire())
        self._line(now, f"{done}/{total}", left, message, metrics)

    def _seconds_left(self, now: float, done: int, total: int) -> int | None:
        """None until there is a rate to reckon with."""
        if self._start is None or done <= self._start[1]:
            return None
        per_unit = (now - self._start[0]) / (done - self._start[1])
        return max(0, round(per_unit * (total - done)))

    def _line(self, now: float, count: str, left: int | None, message: str, metrics: Mapping[str, float]) -> None:
        if self._quiet or now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        words = [count, message, *(f"{name} {value:.4g}" for name, value in metrics.items())]
        if left is not None:
            words.append(f"{left} s left")
        sys.stderr.write("  ".join(word for word in words if word) + "\n")


@dataclass(frozen=True, slots=True)
class Context:
    """The world of a stage."""

    spec: RunSpec
    store: Store
    scratch: Path
    progress: Progress


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage made; becomes the RunReport."""

    output_digest: str | None = None
    step: int | None = None
    tokens: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    resolve: ResolveReport | None = None
    compare: CompareReport | None = None
    diagnose: DiagnoseReport | None = None
    promote: PromoteReport | None = None
    rollback: RollbackReport | None = None
    url: str = ""
