"""The paired statistics: against published values, against slow implementations by the book, and by simulation."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from bessemer_api.v1alpha1.gate import GateAxis
from bessemer_trainer.statistics import (
    Item,
    Pairs,
    StatisticsError,
    axis_evidence,
    cluster_mean_error,
    compare_axis,
    mean_error,
    normal_tail,
    tango_statistic,
    tango_variance,
)

DOCS = Path(__file__).parents[2] / "docs" / "gate.md"
AXIS = GateAxis(name="knowledge", win_by=0.0, not_worse_than=0.05)


def arm(values, clusters=None, strata=None):
    return [
        Item(f"item{i:05d}", float(v), clusters and str(clusters[i]), strata and str(strata[i]))
        for i, v in enumerate(values)
    ]


def flips(wins, losses, n):
    """Arms of n items, the candidate alone right on `wins`, the baseline alone on `losses`, both on half the rest."""
    both = (n - wins - losses) // 2
    rest = n - wins - losses - both
    baseline = [0] * wins + [1] * losses + [1] * both + [0] * rest
    candidate = [1] * wins + [0] * losses + [1] * both + [0] * rest
    return arm(baseline), arm(candidate)


def array_pairs(difference, clusters=None, baseline=None):
    """Pairs from a vector of differences; every item its own cluster unless told."""
    base = np.zeros(len(difference)) if baseline is None else baseline
    clusters = np.arange(len(difference)) if clusters is None else clusters
    return Pairs(base, base + difference, clusters, np.zeros(len(difference), dtype=int))


# --- Tango --------------------------------------------------------------------------------------------------------


def test_tango_interval_is_the_published_one():
    """Airway hyper-responsiveness, 1 1 / 7 12 of 21 items (Fagerland, Lydersen and Laake 2014, Stat Med 33:2850)."""
    evidence = compare_axis(*flips(1, 7, 21), AXIS)
    assert (round(evidence.low, 3), round(evidence.high, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize("null", [-0.3, -0.05, 0.0, 0.02, 0.4])
@pytest.mark.parametrize(("wins", "losses", "n"), [(1, 7, 21), (0, 9, 100), (12, 0, 100), (61, 60, 600), (0, 0, 50)])
def test_tango_variance_is_that_of_the_likelihood_maximised_numerically(wins, losses, n, null):
    if (wins, losses, null) == (0, 0, 0.0):
        assert tango_variance(0, 0, n, 0.0) == 0.0
        return

    def minus_log_likelihood(q):
        shares = (q + null, q, 1 - 2 * q - null)
        counts = (wins, losses, n - wins - losses)
        return -sum(c * math.log(s) for c, s in zip(counts, shares, strict=True) if c)

    bounds = (max(0.0, -null) + 1e-12, (1 - null) / 2 - 1e-12)
    q = minimize_scalar(minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    assert tango_variance(wins, losses, n, null) == pytest.approx((2 * q + null - null**2) / n, rel=1e-5, abs=1e-9)


def test_at_no_difference_tango_is_mcnemar():
    assert tango_statistic(30, 12, 400, 0.0) == pytest.approx((30 - 12) / math.sqrt(30 + 12))


@pytest.mark.parametrize(("wins", "losses", "n"), [(1, 7, 21), (0, 9, 100), (12, 0, 100), (40, 20, 160), (0, 0, 300)])
def test_the_interval_is_what_the_one_sided_tests_do_not_refuse(wins, losses, n):
    evidence = compare_axis(*flips(wins, losses, n), AXIS)
    if wins == losses == 0:  # the bound is where even no flip at all would be a surprise
        assert evidence.low == pytest.approx(-evidence.high)
    assert normal_tail(tango_statistic(wins, losses, n, evidence.low)) == pytest.approx(0.025, rel=1e-3)
    assert normal_tail(-tango_statistic(wins, losses, n, evidence.high)) == pytest.approx(0.025, rel=1e-3)


def test_tail_of_the_normal_keeps_its_digits_far_out():
    assert [normal_tail(z) for z in (-3.0, 0.0, 2.0, 12.0)] == pytest.approx(norm.sf([-3.0, 0.0, 2.0, 12.0]), rel=1e-12)


# --- means, clusters, strata --------------------------------------------------------------------------------------


def by_the_book(values, clusters):
    """CR2 and Bell-McCaffrey by their matrices, for the model with an intercept only."""
    n = len(values)
    x = np.ones((n, 1))
    bread = np.linalg.inv(x.T @ x)
    residual_maker = np.eye(n) - x @ bread @ x.T
    residuals = residual_maker @ values
    meat, columns = 0.0, []
    for g in np.unique(clusters):
        inside = clusters == g
        adjust = np.linalg.inv(np.real(sqrtm(residual_maker[np.ix_(inside, inside)])))
        half = bread @ x[inside].T @ adjust
        meat += float((half @ residuals[inside])[0]) ** 2
        columns.append((half @ residual_maker[inside])[0])
    inner = np.array(columns) @ np.array(columns).T
    return math.sqrt(meat), np.trace(inner) ** 2 / np.trace(inner @ inner)


@pytest.mark.parametrize(
    "sizes", [[1] * 12, [4] * 6, [1, 2, 3, 9, 5], [20, 1, 1, 1], [2, 2]], ids=lambda sizes: f"clusters of {sizes}"
)
def test_cluster_errors_are_those_of_the_matrices(sizes):
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    values = np.random.default_rng(4).normal(size=len(clusters)) + clusters * 0.3
    found = cluster_mean_error(values, clusters)
    assert (found.standard_error, found.degrees_of_freedom) == pytest.approx(by_the_book(values, clusters))


def test_items_alone_give_the_usual_standard_error():
    values = np.array([0.3, -0.2, 0.7, 0.1, 0.05])
    found = cluster_mean_error(values, np.arange(5))
    assert found.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(5))
    assert found.degrees_of_freedom == pytest.approx(4)


def test_strata_use_the_spread_within_them():
    values = np.array([1.0, 1.2, 0.9, 3.0, 3.3, 2.9, 3.1])
    strata = np.array([0, 0, 0, 1, 1, 1, 1])
    expected = math.sqrt((3 / 7) ** 2 * values[:3].var(ddof=1) / 3 + (4 / 7) ** 2 * values[3:].var(ddof=1) / 4)
    found = mean_error(values, np.arange(7), strata)
    assert found.standard_error == pytest.approx(expected)
    assert found.standard_error < 0.2 * cluster_mean_error(values, np.arange(7)).standard_error
    assert 2 < found.degrees_of_freedom < 5


@pytest.mark.parametrize(
    ("clusters", "strata"),
    [([0, 1, 2, 3, 4], [0, 0, 0, 0, 1]), ([0, 0, 1, 1, 2], [0, 1, 0, 1, 0])],
    ids=["a stratum with one cluster", "a cluster in two strata"],
)
def test_strata_that_can_not_be_used_leave_the_larger_error(clusters, strata):
    values = np.array([1.0, 1.5, 0.5, 3.0, 2.0])
    found = mean_error(values, np.array(clusters), np.array(strata))
    assert found == cluster_mean_error(values, np.array(clusters))


def test_continuous_ps_and_interval_are_those_of_the_t_test():
    difference = np.random.default_rng(8).normal(0.03, 0.4, size=60)
    evidence = axis_evidence(array_pairs(difference), AXIS)
    error = difference.std(ddof=1) / math.sqrt(60)
    assert evidence.p_win == pytest.approx(student.sf(difference.mean() / error, 59), rel=1e-5)
    assert evidence.p_hold == pytest.approx(student.sf((difference.mean() + 0.05) / error, 59), rel=1e-5)
    assert evidence.p_worse == pytest.approx(student.cdf((difference.mean() + 0.05) / error, 59), rel=1e-5)
    expected = difference.mean() + np.array([-1, 1]) * student.ppf(0.975, 59) * error
    assert (evidence.low, evidence.high) == pytest.approx(expected, rel=1e-5)
    assert not evidence.binary


def test_lower_bound_of_the_baseline_is_wilsons_for_0_1_items():
    evidence = compare_axis(*flips(10, 20, 300), AXIS)
    expected = binomtest(round(evidence.baseline_mean * 300), 300).proportion_ci(0.90, method="wilson").low
    assert evidence.baseline_low == pytest.approx(expected, rel=1e-4)


def test_lower_bound_of_the_baseline_counts_clusters_of_equal_items_once():
    right = np.repeat([1, 0], 150)
    clusters = (np.arange(300) // 10).tolist()
    evidence = compare_axis(arm(right, clusters), arm(right, clusters), AXIS)
    fifteen_of_thirty = binomtest(15, 30).proportion_ci(0.90, method="wilson").low
    assert evidence.baseline_low == pytest.approx(fifteen_of_thirty, abs=0.005)


def test_lower_bound_of_a_continuous_baseline_is_that_of_the_t_distribution():
    values = np.random.default_rng(5).normal(4.5, 0.3, size=40)
    evidence = compare_axis(arm(values), arm(values + np.linspace(0, 1, 40)), AXIS)
    expected = values.mean() - student.ppf(0.95, 39) * values.std(ddof=1) / math.sqrt(40)
    assert evidence.baseline_low == pytest.approx(expected, rel=1e-5)


# --- what must be so, whatever the numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
def test_swapping_the_arms_flips_every_sign(binary):
    random = np.random.default_rng(2)
    old, new = random.random((2, 400)) < 0.6 if binary else random.normal(size=(2, 400))
    forth, back = compare_axis(arm(old), arm(new), AXIS), compare_axis(arm(new), arm(old), AXIS)
    assert forth.delta != 0
    assert (back.delta, back.standard_error) == (-forth.delta, forth.standard_error)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), rel=1e-5)
    assert (back.p_win, back.p_no_win) == (forth.p_no_win, forth.p_win)
    assert (back.baseline_mean, back.candidate_mean) == (forth.candidate_mean, forth.baseline_mean)


def test_shuffled_gold_answers_give_chance():
    random = np.random.default_rng(6)
    gold = random.integers(0, 4, 2000)
    knows = np.where(random.random(2000) < 0.9, gold, random.integers(0, 4, 2000))
    guesses = np.where(random.random(2000) < 0.4, gold, random.integers(0, 4, 2000))
    honest = compare_axis(arm(guesses == gold), arm(knows == gold), AXIS, chance=0.25)
    assert honest.p_win < 1e-10
    assert honest.baseline_low > 0.30
    random.shuffle(gold)
    shuffled = compare_axis(arm(guesses == gold), arm(knows == gold), AXIS, chance=0.25)
    assert shuffled.candidate_mean == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 2000))
    assert shuffled.p_win > 0.01
    assert shuffled.baseline_low < shuffled.chance + 0.05


def test_a_metric_to_be_decreased_is_turned_round():
    random = np.random.default_rng(1)
    loss = random.normal(4.6, 0.3, size=200)
    better = loss - 0.05 + random.normal(0, 0.05, size=200)
    evidence = compare_axis(arm(loss), arm(better), AXIS, larger_is_better=False)
    assert evidence.delta == pytest.approx(np.mean(loss - better), rel=1e-5)
    assert evidence.baseline_mean == pytest.approx(-loss.mean(), rel=1e-5)
    assert evidence.p_win < 1e-6


def test_order_of_items_does_not_matter_and_one_edited_item_does():
    old, new = flips(30, 20, 300)
    evidence = compare_axis(old, new, AXIS)
    assert compare_axis(old[::-1], new, AXIS) == evidence
    edited = [replace(new[0], value=1 - new[0].value), *new[1:]]
    assert compare_axis(old, edited, AXIS).p_win != evidence.p_win


def test_an_axis_that_can_only_hold_shows_no_win():
    evidence = compare_axis(*flips(90, 0, 300), GateAxis(name="loss", not_worse_than=0.05))
    assert (evidence.p_win, evidence.p_no_win) == (1.0, 1.0)
    assert evidence.p_hold < 1e-10


values_of_an_arm = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(0, 6)), min_size=1, max_size=30
)


@settings(max_examples=200, deadline=None)
@given(values_of_an_arm)
def test_any_finite_items_give_finite_evidence(rows):
    clusters = [row[2] for row in rows]
    evidence = compare_axis(arm([r[0] for r in rows], clusters), arm([r[1] for r in rows], clusters), AXIS)
    assert evidence.low <= evidence.high
    assert evidence.p_hold <= evidence.p_win
    assert evidence.p_no_win <= 1
    assert evidence.clusters == len(set(clusters))


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 400), st.data())
def test_one_more_right_answer_never_weakens_the_evidence(n, data):
    wins = data.draw(st.integers(0, n - 1))
    losses = data.draw(st.integers(0, n - 1 - wins))
    before, after = compare_axis(*flips(wins, losses, n), AXIS), compare_axis(*flips(wins + 1, losses, n), AXIS)
    assert after.p_hold <= before.p_hold
    assert after.p_win <= before.p_win
    assert after.p_worse >= before.p_worse


# --- degenerate -----------------------------------------------------------------------------------------------------


def test_no_flip_at_all_shows_no_win_but_holds_as_far_as_the_items_reach():
    few, many = compare_axis(*flips(0, 0, 30), AXIS), compare_axis(*flips(0, 0, 600), AXIS)
    assert (many.delta, many.standard_error, many.p_win, many.p_no_win) == (0.0, 0.0, 1.0, 1.0)
    assert few.p_hold == pytest.approx(normal_tail(math.sqrt(30 * 0.05 / 0.95)), rel=1e-5)
    assert few.p_hold > 0.05
    assert many.p_hold < 1e-7
    assert many.p_hold > 0.95**600  # the exact probability that not one of 600 items is lost at a rate of 0.05


def test_flips_that_all_go_one_way_are_not_certain():
    evidence = compare_axis(*flips(0, 6, 300), AXIS)
    assert evidence.low < -0.02 - 0.015
    exact = sum(math.comb(300, k) * 0.05**k * 0.95 ** (300 - k) for k in range(7))
    assert exact / 2 < evidence.p_hold < 2 * exact  # Wald's is a sixtieth of it
    wald = normal_tail((0.05 - 0.02) / math.sqrt(0.02 * 0.98 / 300))
    assert wald < exact / 10


@pytest.mark.parametrize(
    "pairs",
    [
        array_pairs(np.zeros(300), baseline=np.full(300, 4.5)),
        array_pairs(np.full(300, 0.1), baseline=np.linspace(1, 2, 300)),
        array_pairs(np.random.default_rng(1).normal(size=300), clusters=np.zeros(300, dtype=int)),
        array_pairs(np.ones(300), clusters=np.zeros(300, dtype=int)),
    ],
    ids=["equal continuous arms", "a constant shift", "one cluster", "one cluster of 0/1 items, all won"],
)
def test_where_no_error_can_be_estimated_nothing_is_shown(pairs):
    evidence = axis_evidence(pairs, AXIS)
    assert (evidence.p_win, evidence.p_hold, evidence.p_worse, evidence.p_no_win) == (1.0, 1.0, 1.0, 1.0)


GOOD = arm([1, 0, 1])
BAD_ARMS = {
    "no items": ([], GOOD, "the baseline has no items"),
    "an id twice": (GOOD, [*GOOD, GOOD[1]], "item item00001 is twice in the candidate"),
    "an item in one arm only": (GOOD, GOOD[:2], r"item item00002 \(of 1\) is not in the candidate"),
    "an item too many": (GOOD[1:], GOOD, r"item item00000 \(of 1\) is not in the baseline"),
    "not a number": (
        GOOD,
        [GOOD[0], replace(GOOD[1], value=math.nan), GOOD[2]],
        "item item00001 of the candidate is nan",
    ),
    "infinite": ([replace(GOOD[0], value=-math.inf), *GOOD[1:]], GOOD, "item item00000 of the baseline is -inf"),
    "as large as infinite": ([replace(GOOD[0], value=1e308), *GOOD[1:]], GOOD, "expected a finite number"),
    "clusters that differ": (arm([1, 0], ["a", "b"]), arm([1, 0], ["a", "c"]), "item item00001: the two arms name"),
    "a cluster missing": ([*arm([1], ["a"]), *GOOD[1:]], [*arm([1], ["a"]), *GOOD[1:]], "item00001 has no cluster"),
}


@pytest.mark.parametrize(("baseline", "candidate", "message"), BAD_ARMS.values(), ids=BAD_ARMS)
def test_arms_that_can_not_be_compared_are_refused_by_item(baseline, candidate, message):
    with pytest.raises(StatisticsError, match=f"axis knowledge: .*{message}"):
        compare_axis(baseline, candidate, AXIS)


def test_a_margin_of_a_whole_0_1_scale_is_refused():
    with pytest.raises(StatisticsError, match=r"notWorseThan is 1\.5, but its items are 0 or 1"):
        compare_axis(*flips(3, 2, 50), GateAxis(name="knowledge", not_worse_than=1.5))


# --- by simulation --------------------------------------------------------------------------------------------------


def clustered_flips(random, sizes, icc, shares):
    """Differences -1, 0, 1 in clusters; a share `icc` of clusters has one outcome for all its items."""
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    together = (random.random(len(sizes)) < icc)[clusters]
    u = np.where(together, random.random(len(sizes))[clusters], random.random(len(clusters)))
    return (u < shares[0]).astype(float) - ((u >= shares[0]) & (u < sum(shares))), clusters


SIMULATIONS = {
    "independent items at no difference": ([1] * 300, 0.0, (0.1, 0.1), 0.0),
    "independent items at the margin, all flips losses": ([1] * 300, 0.0, (0.0, 0.05), -0.05),
    "clusters of three at the margin, all flips losses": ([3] * 200, 1.0, (0.0, 0.05), -0.05),
    "clusters of ten at no difference": ([10] * 60, 1.0, (0.1, 0.1), 0.0),
    "uneven clusters at the margin": ([1, 5, 9, 13, 17, 21] * 7, 1.0, (0.075, 0.125), -0.05),
    "20 clusters at the margin, few of which flip": ([15] * 20, 0.3, (0.0, 0.05), -0.05),
    "40 clusters at the margin, few of which flip": ([8] * 40, 0.3, (0.0, 0.05), -0.05),
    "200 clusters at the margin, few of which flip": ([3] * 200, 0.3, (0.0, 0.05), -0.05),
    "40 clusters at the margin, many of which flip": ([8] * 40, 0.3, (0.075, 0.125), -0.05),
    "200 clusters at the margin, many of which flip": ([3] * 200, 0.3, (0.075, 0.125), -0.05),
}


@pytest.mark.parametrize(("sizes", "icc", "shares", "truth"), SIMULATIONS.values(), ids=SIMULATIONS)
def test_false_refusals_and_coverage_by_simulation(sizes, icc, shares, truth):
    """A thousand axes each: the false null is refused in 5 % and the interval misses in 5 %, within 3.1 deviations."""
    random, refused, covered, runs = np.random.default_rng(21), 0, 0, 1000
    for _ in range(runs):
        difference, clusters = clustered_flips(random, sizes, icc, shares)
        evidence = axis_evidence(array_pairs(difference, clusters, np.where(difference < 0, 1.0, 0.0)), AXIS)
        refused += (evidence.p_hold if truth < 0 else evidence.p_win) <= 0.05
        covered += evidence.low <= truth <= evidence.high
    assert refused / runs <= 0.05 + 3.1 * math.sqrt(0.05 * 0.95 / runs)
    assert covered / runs >= 0.95 - 3.1 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("mean", [0.05, 0.95], ids=["few right answers", "few wrong answers"])
def test_the_lower_bound_of_a_baseline_in_clusters_is_one_by_simulation(mean):
    """It lies above the true mean in 5 % of samples at most, within 3.1 deviations."""
    random, above, runs = np.random.default_rng(22), 0, 1000
    for _ in range(runs):
        right, clusters = clustered_flips(random, [15] * 20, 0.3, (mean, 0.0))
        above += axis_evidence(array_pairs(np.zeros(300), clusters, right), AXIS).baseline_low > mean
    assert above / runs <= 0.05 + 3.1 * math.sqrt(0.05 * 0.95 / runs)


def test_wald_errors_would_refuse_too_often_where_tango_does_not():
    """Independent items, 5 % lost and none won: H0 d <= -0.05 is true, and tested at 5 %."""
    n, random = 100, np.random.default_rng(3)
    losses = random.binomial(n, 0.05, size=20_000)
    rates = np.maximum(losses, 0.5) / n
    wald = norm.sf((0.05 - losses / n) / np.sqrt(rates * (1 - rates) / n))
    tango = np.array([normal_tail(tango_statistic(0, int(k), n, -0.05)) for k in range(n)])[losses]
    documented = [
        float(re.search(rf"<!-- {name} -->([0-9.]+) %", DOCS.read_text())[1]) / 100 for name in ("wald", "tango")
    ]
    assert [np.mean(wald <= 0.05), np.mean(tango <= 0.05)] == pytest.approx(documented, abs=0.004)
    assert np.mean(wald <= 0.05) > 0.09
    assert np.mean(tango <= 0.05) <= 0.05
