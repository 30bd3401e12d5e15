"""Paired figures on dev items: any two checkpoints that were measured on the same ones. Dev items choose, they prove
nothing: the gate has items of its own, and of those this report knows only what `compare` told.
"""

from collections.abc import Sequence
from statistics import fmean

from bessemer_api.job import AxisEvidence
from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.gate import GateAxis
from bessemer_trainer.reporting.facts import DevItem, Facts

_ANY_MARGIN = 0.05
"""A comparison needs a margin for its tests of being worse; none of those is shown for dev items."""


def axes_of(facts: Facts) -> list[Axis]:
    """The axes on which anything was measured on dev items."""
    measured = {axis for results in facts.dev.values() for axis in results}
    return [axis for axis in facts.spec.evaluation.axes if axis.name in measured]


def items_of(facts: Facts, checkpoint: str | None, axis: str) -> Sequence[DevItem]:
    """Results of one checkpoint on one axis; none where it was not measured."""
    return facts.dev.get(checkpoint or "", {}).get(axis, ())


def mean_of(facts: Facts, checkpoint: str | None, axis: str) -> float | None:
    """Mean score as measured."""
    found = items_of(facts, checkpoint, axis)
    return fmean(item.score for item in found) if found else None


def paired(facts: Facts, one: str | None, other: str | None, axis: Axis) -> AxisEvidence | None:
    """`one` minus `other`, larger is better; None where both were not measured on the same items."""
    # scipy and numpy are needed for this alone: a report of a pipeline without dev items loads neither
    from bessemer_trainer.statistics import Item, StatisticsError, compare_axis  # noqa: PLC0415

    ours, theirs = (
        [Item(item.id, item.score, item.cluster) for item in items_of(facts, checkpoint, axis.name)]
        for checkpoint in (one, other)
    )
    if not ours or not theirs:
        return None
    try:
        return compare_axis(
            theirs,
            ours,
            GateAxis(name=axis.name, win_by=0.0, not_worse_than=_ANY_MARGIN),
            larger_is_better=not is_loss(axis),
        )
    except StatisticsError:
        return None


def is_loss(axis: Axis) -> bool:
    """Whether a smaller score is better."""
    return not axis.measure.larger_is_better
