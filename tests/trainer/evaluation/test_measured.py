"""Ratios, quantiles and slices: numbers against their formulas, signs, and what can not be compared."""

import math
from typing import Any

import numpy as np
import pytest

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.gate import GateAxis
from bessemer_trainer.measured import compare_measured, slices_of
from bessemer_trainer.statistics import Item, StatisticsError

GATE = GateAxis.model_validate({"name": "a", "winBy": 0.0, "notWorseThan": 0.05})


def axis(task: str, **fields: Any) -> Axis:
    return Axis.model_validate({"name": "a", "task": task, **fields})


def seconds(factor: float, count: int = 200, seed: int = 0, spread: float = 0.02) -> list[Item]:
    random = np.random.Generator(np.random.PCG64(seed))
    base = np.random.Generator(np.random.PCG64(99)).lognormal(-3, 0.3, count)
    values = base * factor * random.lognormal(0, spread, count)
    return [Item(f"i{k}", float(v)) for k, v in enumerate(values)]


@pytest.mark.parametrize("metric", ["mean", "p95"])
def test_a_tenth_faster_is_a_difference_of_a_tenth_in_logarithms(metric: str) -> None:
    found = compare_measured(
        seconds(1, 1000), seconds(0.9, 1000, seed=1), GATE, axis("firstTokenLatency", metric=metric)
    )
    assert found.low < -math.log(0.9) < found.high
    assert found.low < found.delta < found.high
    assert found.p_win < 1e-3
    assert found.candidate_mean - found.baseline_mean == pytest.approx(found.delta, abs=1e-4)


@pytest.mark.parametrize(
    ("task", "fields"), [("firstTokenLatency", {}), ("firstTokenLatency", {"metric": "mean"}), ("sessionCost", {})]
)
def test_swapping_the_arms_flips_every_sign(task: str, fields: dict[str, str]) -> None:
    old, new = seconds(1), seconds(1.1, seed=1)
    one, other = (compare_measured(*arms, GATE, axis(task, **fields)) for arms in ((old, new), (new, old)))
    assert (one.delta, one.low, one.high) == pytest.approx((-other.delta, -other.high, -other.low))
    assert one.delta < 0 < other.delta
    assert (one.p_win, one.p_no_win) == pytest.approx((other.p_no_win, other.p_win))


def test_the_mean_ratio_is_the_paired_mean_of_logarithms() -> None:
    old, new = seconds(1, 50), seconds(0.8, 50, seed=4)
    found = compare_measured(old, new, GATE, axis("sessionCost"))
    logs = [math.log(a.value) - math.log(b.value) for a, b in zip(old, new, strict=True)]
    assert found.delta == pytest.approx(np.mean(logs), rel=1e-5)
    assert found.standard_error == pytest.approx(np.std(logs, ddof=1) / math.sqrt(50), rel=1e-5)


def test_an_interval_of_the_p95_covers_the_truth_as_often_as_it_says() -> None:
    """30 pairs of equal arms; a 95 % interval misses 0 in 1.5 of them on average, hardly ever in 6."""
    missed = 0
    for k in range(30):
        found = compare_measured(
            seconds(1, 300, seed=2 * k, spread=0.1), seconds(1, 300, seed=2 * k + 1, spread=0.1), GATE,
            axis("firstTokenLatency"),
        )  # fmt: skip
        missed += not found.low <= 0 <= found.high
    assert missed <= 6


def test_a_value_that_is_not_positive_has_no_ratio() -> None:
    with pytest.raises(StatisticsError, match=r"item i1 is 0\.0; a ratio needs values above 0"):
        compare_measured([Item("i0", 1.0), Item("i1", 0.0)], seconds(1, 2), GATE, axis("sessionCost"))


def strata(good: float, bad: float, seed: int) -> list[Item]:
    """200 items of two strata with very different means."""
    random = np.random.Generator(np.random.PCG64(seed))
    return [
        Item(
            f"i{k}", float((good if k % 2 else bad) + 0.05 * random.standard_normal()), None, "odd" if k % 2 else "even"
        )
        for k in range(200)
    ]


def test_strata_make_the_error_that_of_the_formula() -> None:
    old, new = strata(0.5, 0.5, 1), strata(0.9, 0.4, 2)
    found = compare_measured(old, new, GATE, axis("reasoningGym", stratifyBy="x"))
    differences = np.array([b.value - a.value for a, b in zip(old, new, strict=True)])
    inside = [differences[[i.stratum == s for i in old]] for s in ("odd", "even")]
    expected = math.sqrt(sum(0.5**2 * part.var(ddof=1) / len(part) for part in inside))
    assert found.standard_error == pytest.approx(expected, rel=1e-5)
    assert found.standard_error < 0.5 * differences.std(ddof=1) / math.sqrt(200), "half of the plain error, or less"


def test_slices_tell_a_stratum_that_lost_inside_a_mean_that_won() -> None:
    found = slices_of(strata(0.5, 0.5, 1), strata(0.9, 0.4, 2), GATE, axis("reasoningGym", stratifyBy="x"))
    assert [(row["stratum"], row["n"]) for row in found] == [("even", 100), ("odd", 100)]
    assert [row["delta"] for row in found] == pytest.approx([-0.1, 0.4], abs=0.03)
    assert found[0]["pWorse"] < 0.01 < found[1]["pWorse"]


def test_an_axis_without_strata_has_no_slices() -> None:
    assert slices_of(seconds(1, 9), seconds(1, 9), GATE, axis("sessionCost")) == []
