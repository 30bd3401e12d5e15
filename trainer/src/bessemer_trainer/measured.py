"""From stored items to evidence, by what a task measures: differences of means, ratios, quantiles, and slices.

The numbers of means are `statistics.py`'s. Here are the two scales that latency and cost need, and the strata.

Ratios: both arms are compared by the natural logarithm of their values, so a difference of 0.05 means 5 %.
Quantiles: the difference of the arms' quantiles, with the standard error of a paired bootstrap over clusters (Efron and
Tibshirani 1993, chapter 6) and normal tails. The bootstrap has a fixed seed: equal items give equal numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bessemer_api.job import AxisEvidence
from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.gate import GateAxis
from bessemer_trainer.statistics import (
    Item,
    Pairs,
    StatisticsError,
    Vector,
    compare_axis,
    normal_tail,
    pair_items,
)

RESAMPLES = 2000
_Z95, _Z975 = 1.6448536269514722, 1.959963984540054


def compare_measured(
    baseline: Sequence[Item], candidate: Sequence[Item], axis: GateAxis, measured: Axis, chance: float | None = None
) -> AxisEvidence:
    """Evidence of one axis from both arms' items. Raises StatisticsError, naming the axis and the item."""
    metric = measured.measure
    if metric.is_ratio:
        baseline, candidate = _logarithms(axis, baseline), _logarithms(axis, candidate)
    found = compare_axis(baseline, candidate, axis, larger_is_better=metric.larger_is_better, chance=chance)
    if metric.quantile is None:
        return found
    sign = 1.0 if metric.larger_is_better else -1.0
    share = metric.quantile if metric.larger_is_better else 1 - metric.quantile
    return _by_quantile(found, pair_items(baseline, candidate, sign), axis, share)


def _logarithms(axis: GateAxis, items: Sequence[Item]) -> list[Item]:
    for item in items:
        if not item.value > 0:
            raise StatisticsError(f"axis {axis.name}: item {item.id} is {item.value}; a ratio needs values above 0")
    return [replace(item, value=math.log(item.value)) for item in items]


def _by_quantile(found: AxisEvidence, pairs: Pairs, axis: GateAxis, share: float) -> AxisEvidence:
    """The evidence with the quantile in the place of the mean."""
    old, new = (float(np.quantile(values, share)) for values in (pairs.baseline, pairs.candidate))
    olds, news = _resampled(pairs, share)
    error = float(np.std(news - olds, ddof=1))
    delta = new - old

    def p_greater(null: float) -> float:
        return 1.0 if error == 0 else normal_tail((delta - null) / error)

    def p_less(null: float) -> float:
        return 1.0 if error == 0 else normal_tail((null - delta) / error)

    wins = (1.0, 1.0) if axis.win_by is None else (p_greater(axis.win_by), p_less(axis.win_by))
    numbers = {
        "delta": delta,
        "standard_error": error,
        "low": delta - _Z975 * error,
        "high": delta + _Z975 * error,
        "p_win": wins[0],
        "p_no_win": wins[1],
        "p_hold": p_greater(-axis.not_worse_than),
        "p_worse": p_less(-axis.not_worse_than),
        "baseline_mean": old,
        "candidate_mean": new,
        "baseline_low": old - _Z95 * float(np.std(olds, ddof=1)),
    }
    return found.model_copy(update={name: float(f"{value:.6g}") for name, value in numbers.items()})


def _resampled(pairs: Pairs, share: float) -> tuple[Vector, Vector]:
    """The quantile of both arms in each resample; whole clusters are drawn, and both arms' items together."""
    random = np.random.Generator(np.random.PCG64(0))
    members = [np.flatnonzero(pairs.clusters == c) for c in range(int(pairs.clusters.max()) + 1)]
    if len(members) == pairs.n:
        drawn = random.integers(pairs.n, size=(RESAMPLES, pairs.n))
        return np.quantile(pairs.baseline[drawn], share, axis=1), np.quantile(pairs.candidate[drawn], share, axis=1)
    olds, news = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        drawn = np.concatenate([members[c] for c in random.integers(len(members), size=len(members))])
        olds[k], news[k] = (np.quantile(values[drawn], share) for values in (pairs.baseline, pairs.candidate))
    return olds, news


def slices_of(
    baseline: Sequence[Item], candidate: Sequence[Item], axis: GateAxis, measured: Axis
) -> list[dict[str, Any]]:
    """One line for each stratum, in the order of names; none where the axis has no strata."""
    strata = sorted({item.stratum for item in baseline if item.stratum is not None})
    return [_slice(baseline, candidate, axis, measured, stratum) for stratum in strata]


def _slice(
    baseline: Sequence[Item], candidate: Sequence[Item], axis: GateAxis, measured: Axis, stratum: str
) -> dict[str, Any]:
    inside = [[item for item in arm if item.stratum == stratum] for arm in (baseline, candidate)]
    found = compare_measured(inside[0], inside[1], axis, measured)
    return {
        "stratum": stratum,
        "n": found.n,
        "clusters": found.clusters,
        "delta": found.delta,
        "standardError": found.standard_error,
        "low": found.low,
        "high": found.high,
        "baselineMean": found.baseline_mean,
        "candidateMean": found.candidate_mean,
        "pWorse": found.p_worse,
    }
