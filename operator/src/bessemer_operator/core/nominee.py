"""The nominee: which of several candidates sees the items of the gate. Chosen on dev items, which judge nothing else.

Pure. The rule, in order: candidates that break no margin on the dev means; most axes won by more than winBy; the
largest sum of differences in units of their margins, each counted as one margin at most, because every axis has to
hold at the gate and a huge win makes up for no loss; the sum without that limit; the order of declaration. Dev items
are no gate items, so the choice costs no alpha: whoever is chosen, the gate passes it falsely with probability alpha at
most.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.gate import Gate
from bessemer_api.v1alpha1.promotion import DevAxis


@dataclass(frozen=True, slots=True)
class Figures:
    """A candidate on the dev items, against the baseline."""

    name: str
    axes: tuple[DevAxis, ...]
    wins: tuple[str, ...]
    broken: tuple[str, ...]
    score: float
    total: float

    @property
    def rank(self) -> tuple[bool, int, float, float]:
        """Smaller is better."""
        return bool(self.broken), -len(self.wins), -self.score, -self.total


def figures(
    name: str,
    gate: Gate,
    measures: Sequence[Axis],
    means: Mapping[str, float],
    baseline: Mapping[str, float],
    items: int,
) -> Figures:
    """What the dev means say. Raises KeyError when an axis is missing, ValueError for a mean that is no number."""
    axes, wins, broken, margins = [], [], [], []
    for asked, measure in zip(gate.axes, measures, strict=True):
        mean = means[asked.name]
        delta = _difference(measure, mean, baseline[asked.name])
        axes.append(DevAxis(name=asked.name, n=items, mean=mean, delta=delta))
        margins.append(delta / asked.not_worse_than)
        if asked.win_by is not None and delta > asked.win_by:
            wins.append(asked.name)
        if delta <= -asked.not_worse_than:
            broken.append(asked.name)
    score = sum(min(margin, 1.0) for margin in margins)
    return Figures(name, tuple(axes), tuple(wins), tuple(broken), score, sum(margins))


def best(found: Sequence[Figures]) -> Figures:
    """The nominee, by the rule; `found` is in the order of declaration."""
    return min(found, key=lambda item: item.rank)


def why(chosen: Figures, found: Sequence[Figures]) -> str:
    """Why it was chosen, in words."""
    words = f"{len(chosen.wins)} axes won, {len(chosen.broken)} margins broken, {chosen.score:+.2f} margins in all"
    others = ", ".join(
        f"{item.name} ({len(item.wins)} won, {len(item.broken)} broken, {item.score:+.2f})"
        for item in found
        if item is not chosen
    )
    return f"{chosen.name} on dev items: {words}; others: {others}"[:1024]


def _difference(measure: Axis, mean: float, baseline: float) -> float:
    """Candidate minus baseline, oriented so that larger is better; of ratios, the difference of logarithms."""
    if not (math.isfinite(mean) and math.isfinite(baseline)):
        raise ValueError(f"axis {measure.name}: a dev mean is no number")
    metric = measure.measure
    if metric.is_ratio and mean > 0 and baseline > 0:
        mean, baseline = math.log(mean), math.log(baseline)
    return mean - baseline if metric.larger_is_better else baseline - mean
