"""Paired statistics of one axis: the numbers a gate decides from.

Takes the stored per-item results of two arms on the same items and returns one `AxisEvidence`. It must not decide
anything (the gate does, in the operator) and must not read files (the compare stage does).

Everything is oriented so that larger is better: the values of a metric to be decreased have their sign changed, so
delta = candidate_mean - baseline_mean always. Where no error can be estimated (one cluster, or no spread at all in a
metric that is not 0/1) every p is 1: nothing is ever shown.

Methods. Items that are 0 or 1: the score test of Tango (1998, Statistics in Medicine 17:891-908) for a paired
difference, at any null difference; where items are clustered its variance is inflated by the design effect, as Rao
and Scott (1992, Biometrics 48:577-585) do for counts, and by its upper limit sum(sizes^2) / n where too few clusters
flipped to estimate it. Anything else: the mean difference with CR2 standard errors
and Bell-McCaffrey degrees of freedom (Bell and McCaffrey 2002, Survey Methodology 28:169-181; Pustejovsky and
Tipton 2018, JBES 36:672-683). All tests are one-sided.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit  # the two functions of the t distribution; nothing else of scipy is used

from bessemer_api.job import AxisEvidence
from bessemer_api.v1alpha1.gate import GateAxis

MIN_TELLING_CLUSTERS = 20
"""With fewer clusters in which anything flipped, the design effect is not estimated but taken as the largest there is.

A few clusters that happened to flip item by item say little about those that flip as one: with 20 clusters of 15
items, a loss exactly at the margin was called "not worse" three times as often as allowed.
"""

Vector = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


class StatisticsError(ValueError):
    """The results of two arms can not be compared; the message names the item or field and what was expected."""


@dataclass(frozen=True, slots=True)
class Item:
    """One stored result: `value` as measured; `cluster` and `stratum` are None where the axis has none."""

    id: str
    value: float
    cluster: str | None = None
    stratum: str | None = None


@dataclass(frozen=True, slots=True)
class MeanError:
    """A mean with its standard error; degrees_of_freedom 0 means that the error could not be estimated."""

    mean: float
    standard_error: float
    degrees_of_freedom: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """Oriented values of both arms, item by item, with codes 0.. of cluster and stratum."""

    baseline: Vector
    candidate: Vector
    clusters: Codes
    strata: Codes

    @property
    def difference(self) -> Vector:
        return self.candidate - self.baseline

    @property
    def n(self) -> int:
        return len(self.baseline)

    @property
    def cluster_sizes(self) -> Codes:
        return np.bincount(self.clusters).astype(np.int64)

    @property
    def is_binary(self) -> bool:
        """Every value of both arms is 0 or 1 (or its negative, for a metric to be decreased)."""
        both = np.abs(np.concatenate([self.baseline, self.candidate]))
        return bool(np.all((both == 0) | (both == 1)))


# --- the score test of Tango for items that are 0 or 1 ----------------------------------------------------------


def tango_variance(wins: float, losses: float, n: float, null: float) -> float:
    """Variance of the mean paired difference when the true difference is `null` (-1 < null < 1).

    The nuisance parameter, the probability q of a loss, takes its maximum likelihood value under the null: the root
    of 2n q^2 + (-wins - losses + (2n - wins + losses) null) q - losses null (1 - null). Then the variance of one
    difference is 2q + null (1 - null). Zero only when null is 0 and nothing flipped.
    """
    b = -wins - losses + (2 * n - wins + losses) * null
    c = -losses * null * (1 - null)
    q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    q = max(q, 0.0, -null)
    return max(2 * q + null * (1 - null), 0.0) / n


def tango_statistic(wins: float, losses: float, n: float, null: float, inflation: float = 1.0) -> float:
    """Score statistic of H0: difference = null; large when the candidate is better. NaN when it is 0/0.

    `wins`: items that only the candidate solved; `losses`: only the baseline; `inflation`: design effect of clusters.
    """
    variance = inflation * tango_variance(wins, losses, n, null)
    return math.nan if variance == 0 else ((wins - losses) / n - null) / math.sqrt(variance)


def normal_tail(z: float) -> float:
    """P(Z > z), accurate far into the tail (NormalDist.cdf is not)."""
    return 0.5 * math.erfc(z / math.sqrt(2))


# --- means with clusters and strata -----------------------------------------------------------------------------


def cluster_mean_error(values: Vector, clusters: Codes) -> MeanError:
    """Mean with its CR2 standard error and Bell-McCaffrey degrees of freedom.

    For a model with an intercept only both have a closed form. With h_g = n_g / n, and S_g the sum of the residuals
    of cluster g: variance = sum_g S_g^2 / (1 - h_g) / n^2, and under independent errors the degrees of freedom are
    1 / (sum_g h_g^2 + sum_{g != k} a_g a_k) with a_g = h_g^2 / (1 - h_g). Clusters of one item give s^2 / n and
    n - 1; equal clusters give (number of clusters) - 1. One cluster: nothing can be estimated.
    """
    mean = float(values.mean())
    share = np.bincount(clusters) / len(values)
    if len(share) < 2:
        return MeanError(mean, 0.0, 0.0)
    sums = np.bincount(clusters, weights=values - mean)
    error = math.sqrt(float(np.sum(sums**2 / (1 - share)))) / len(values)
    if error <= 1e-12 * max(1.0, float(np.abs(values).max())):  # equal values up to rounding: no spread was seen
        return MeanError(mean, 0.0, 0.0)
    weight = share**2 / (1 - share)
    cross = float(weight.sum()) ** 2 - float(np.sum(weight**2))
    return MeanError(mean, error, 1 / (float(np.sum(share**2)) + cross))


def mean_error(values: Vector, clusters: Codes, strata: Codes) -> MeanError:
    """Mean of items drawn in proportion from strata: SE = sqrt(sum w_g^2 s_g^2 / n_g) with w_g = n_g / n.

    s_g^2 / n_g is the CR2 variance within the stratum; degrees of freedom by Satterthwaite. Where a stratum has fewer
    than two clusters, or a cluster lies in two strata, strata are not used: that can only enlarge the error.
    """
    whole = cluster_mean_error(values, clusters)
    if not strata.any():
        return whole
    pairs = np.unique(np.stack([strata, clusters]), axis=1)
    nested = pairs.shape[1] == len(np.unique(clusters))
    if whole.degrees_of_freedom == 0 or not nested or np.bincount(pairs[0]).min() < 2:
        return whole
    parts = []
    for g in range(int(strata.max()) + 1):
        inside = strata == g
        part = cluster_mean_error(values[inside], np.unique(clusters[inside], return_inverse=True)[1])
        parts.append((inside.mean() ** 2 * part.standard_error**2, part.degrees_of_freedom))
    variance = sum(v for v, _ in parts)
    if variance == 0:  # every stratum is constant: its own spread says nothing about the next item
        return whole
    return MeanError(whole.mean, math.sqrt(variance), variance**2 / sum(v**2 / df for v, df in parts if df > 0))


def design_effect(values: Vector, clusters: Codes) -> float:
    """How much clusters enlarge the variance of the mean, at least 1.

    Where too few clusters tell anything, how alike their items are can not be estimated: then the items of a cluster
    count as one (Kish), which is the worst that clusters can do.
    """
    sizes = np.bincount(clusters)
    worst = float(np.sum(sizes**2) / len(values))
    alone = cluster_mean_error(values, np.arange(len(values))).standard_error
    if alone == 0 or len(sizes) < 2:
        return worst
    estimated = max(1.0, (cluster_mean_error(values, clusters).standard_error / alone) ** 2)
    return estimated if _telling_clusters(values, clusters) >= MIN_TELLING_CLUSTERS else max(worst, estimated)


def _telling_clusters(values: Vector, clusters: Codes) -> int:
    """Clusters with an item that is not as most are, whichever value is taken for that of most.

    For differences these are at most the clusters with an item that flipped.
    """
    return min(len(np.unique(clusters[values != value])) for value in np.unique(values))


# --- one axis ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OneSidedTest:
    """The test of one axis: `statistic(null)` falls as null grows; its tail is t or (None) normal; 0: no test."""

    statistic: Callable[[float], float]
    degrees_of_freedom: float | None
    limits: tuple[float, float]  # where the true difference can lie at all

    def p_greater(self, null: float) -> float:
        """One-sided p of H0: d <= null."""
        return self._tail(self.statistic(null))

    def p_less(self, null: float) -> float:
        """One-sided p of H0: d >= null."""
        return self._tail(-self.statistic(null))

    def _tail(self, statistic: float) -> float:
        if self.degrees_of_freedom == 0 or math.isnan(statistic):
            return 1.0  # 0/0: no item flipped and the null is 0; the exact test of McNemar gives 1 too
        if self.degrees_of_freedom is None:
            return normal_tail(statistic)
        return float(stdtr(self.degrees_of_freedom, -statistic))

    def critical(self, level: float) -> float:
        """Quantile of the statistic with `level` below it."""
        if self.degrees_of_freedom is None:
            return NormalDist().inv_cdf(level)
        return float(stdtrit(self.degrees_of_freedom, level))


def _binary_test(pairs: Pairs) -> OneSidedTest:
    difference = pairs.difference
    wins, losses = float(np.sum(difference > 0)), float(np.sum(difference < 0))
    clustered = int(pairs.cluster_sizes.max()) > 1
    inflation = design_effect(difference, pairs.clusters) if clustered else 1.0
    df = _size_degrees_of_freedom(pairs.clusters) if clustered else None
    return OneSidedTest(lambda null: tango_statistic(wins, losses, pairs.n, null, inflation), df, (-1.0, 1.0))


def _size_degrees_of_freedom(clusters: Codes) -> float:
    """Bell-McCaffrey degrees of freedom; they depend on the sizes of the clusters only."""
    marker = (clusters == 0).astype(np.float64)  # any values with some spread
    return cluster_mean_error(marker, clusters).degrees_of_freedom


def _mean_test(pairs: Pairs) -> OneSidedTest:
    error = mean_error(pairs.difference, pairs.clusters, pairs.strata)
    scale = error.standard_error or 1.0  # no spread: every p is 1 by the degrees of freedom
    return OneSidedTest(lambda null: (error.mean - null) / scale, error.degrees_of_freedom, (-math.inf, math.inf))


def _interval(test: OneSidedTest, pairs: Pairs, error: MeanError) -> tuple[float, float]:
    """Two-sided 95 % interval: the differences that the two one-sided tests at 2.5 % do not refuse."""
    if test.degrees_of_freedom == 0:
        return test.limits if math.isfinite(test.limits[0]) else (error.mean, error.mean)
    critical = test.critical(0.975)
    if not math.isfinite(test.limits[0]):
        return error.mean - critical * error.standard_error, error.mean + critical * error.standard_error
    return _root(test, critical, (-1.0, error.mean)), _root(test, -critical, (error.mean, 1.0))


def _root(test: OneSidedTest, target: float, bracket: tuple[float, float]) -> float:
    """Where the falling statistic crosses `target`, by bisection; the end of the bracket when it does not."""
    low, high = bracket
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if test.statistic(middle) > target else (low, middle)
    return (low + high) / 2


def _lower_bound(values: Vector, pairs: Pairs, binary: bool) -> float:
    """One-sided 95 % lower bound of a mean: Wilson's for 0/1 items (effective size under clusters), else t."""
    error = mean_error(values, pairs.clusters, pairs.strata)
    if binary and values.min() >= 0:
        z = NormalDist().inv_cdf(0.95)
        n = pairs.n / design_effect(values, pairs.clusters)
        spread = z * math.sqrt(error.mean * (1 - error.mean) / n + z * z / (4 * n * n))
        return (error.mean + z * z / (2 * n) - spread) / (1 + z * z / n)
    if error.degrees_of_freedom == 0:
        return error.mean
    return error.mean - float(stdtrit(error.degrees_of_freedom, 0.95)) * error.standard_error


def axis_evidence(pairs: Pairs, axis: GateAxis, chance: float | None = None) -> AxisEvidence:
    """All numbers of one axis; `chance` is the oriented mean of a guesser, None where there is none.

    p_win and p_no_win are 1 for an axis without winBy. Numbers keep six digits: a report has 4,096 bytes.
    Raises StatisticsError for a margin that the metric can not have.
    """
    binary = pairs.is_binary
    _check_margins(axis, binary)
    test = _binary_test(pairs) if binary else _mean_test(pairs)
    error = mean_error(pairs.difference, pairs.clusters, pairs.strata)
    low, high = _interval(test, pairs, error)
    p_win, p_no_win = _win_tests(test, axis)
    sizes = pairs.cluster_sizes
    return AxisEvidence(
        name=axis.name,
        n=pairs.n,
        clusters=len(sizes),
        largest_cluster_share=_digits(sizes.max() / pairs.n),
        delta=_digits(error.mean),
        standard_error=_digits(error.standard_error),
        low=_digits(low),
        high=_digits(high),
        p_win=_digits(p_win),
        p_hold=_digits(test.p_greater(-axis.not_worse_than)),
        p_worse=_digits(test.p_less(-axis.not_worse_than)),
        p_no_win=_digits(p_no_win),
        baseline_mean=_digits(pairs.baseline.mean()),
        candidate_mean=_digits(pairs.candidate.mean()),
        baseline_low=_digits(_lower_bound(pairs.baseline, pairs, binary)),
        chance=chance,
        binary=binary,
    )


def _win_tests(test: OneSidedTest, axis: GateAxis) -> tuple[float, float]:
    """The p of superiority and of its opposite; both 1 without winBy, so that nothing can be read into them."""
    return (1.0, 1.0) if axis.win_by is None else (test.p_greater(axis.win_by), test.p_less(axis.win_by))


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def _check_margins(axis: GateAxis, binary: bool) -> None:
    for field, value in (("notWorseThan", axis.not_worse_than), ("winBy", axis.win_by or 0.0)):
        if binary and value >= 1:
            raise StatisticsError(f"{field} is {value}, but its items are 0 or 1: it must be under 1")


# --- from stored items ------------------------------------------------------------------------------------------


def compare_axis(
    baseline: Sequence[Item],
    candidate: Sequence[Item],
    axis: GateAxis,
    *,
    larger_is_better: bool = True,
    chance: float | None = None,
) -> AxisEvidence:
    """Evidence of one axis from the stored items of both arms, matched by id, in any order.

    `chance` is in units of the metric. Raises StatisticsError, naming the item, for no items, an id twice, an id in
    one arm only, a value that is not finite, a cluster or stratum that the arms do not agree on, or that only some
    items have.
    """
    sign = 1.0 if larger_is_better else -1.0
    try:
        pairs = pair_items(baseline, candidate, sign)
        return axis_evidence(pairs, axis, None if chance is None else sign * chance)
    except StatisticsError as error:
        raise StatisticsError(f"axis {axis.name}: {error}") from error


def pair_items(baseline: Sequence[Item], candidate: Sequence[Item], sign: float = 1.0) -> Pairs:
    """The two arms side by side, sorted by id so that the order of the files can not matter."""
    old, new = _by_id(baseline, "baseline"), _by_id(candidate, "candidate")
    for one, other, name in ((old, new, "candidate"), (new, old, "baseline")):
        missing = sorted(one.keys() - other.keys())
        if missing:
            raise StatisticsError(f"item {missing[0]} (of {len(missing)}) is not in the {name}; expected the same ids")
    ids = sorted(old)
    for i in ids:
        if (old[i].cluster, old[i].stratum) != (new[i].cluster, new[i].stratum):
            raise StatisticsError(f"item {i}: the two arms name a different cluster or stratum")
    return Pairs(
        baseline=sign * np.array([old[i].value for i in ids], dtype=np.float64),
        candidate=sign * np.array([new[i].value for i in ids], dtype=np.float64),
        clusters=_codes([(i, old[i].cluster) for i in ids], "cluster", alone=True),
        strata=_codes([(i, old[i].stratum) for i in ids], "stratum", alone=False),
    )


def _by_id(items: Sequence[Item], arm: str) -> dict[str, Item]:
    if not items:
        raise StatisticsError(f"the {arm} has no items")
    found: dict[str, Item] = {}
    for item in items:
        if item.id in found:
            raise StatisticsError(f"item {item.id} is twice in the {arm}")
        if not abs(item.value) < 1e100:  # also false for NaN; larger numbers would overflow when squared
            raise StatisticsError(f"item {item.id} of the {arm} is {item.value}; expected a finite number")
        found[item.id] = item
    return found


def _codes(labels: Sequence[tuple[str, str | None]], field: str, *, alone: bool) -> Codes:
    """Numbers 0.. for labels; without any label every item is its own group (`alone`), or all are one."""
    without = [i for i, label in labels if label is None]
    if len(without) == len(labels):
        return np.arange(len(labels), dtype=np.int64) if alone else np.zeros(len(labels), dtype=np.int64)
    if without:
        raise StatisticsError(f"item {without[0]} has no {field}, but others have")
    return np.unique([str(label) for _, label in labels], return_inverse=True)[1].astype(np.int64)
