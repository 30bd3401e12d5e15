"""How often the gate promotes falsely: ten thousand gates and more, on real 0/1 items, through the trainer's own
statistics and the operator's own decision, at the boundaries where it is hardest to be right.

Items are drawn one by one and counted by numpy. The evidence of an axis of independent 0/1 items depends on the
numbers of wins, losses and items only, so it is computed once for each such triple.
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from bessemer_api.job import AxisEvidence, CompareReport
from bessemer_api.v1alpha1.gate import Baseline, Compose, Gate, GateAxis
from bessemer_operator.core.gate import judge
from bessemer_operator.core.power import gate_power
from bessemer_operator.core.stats import look_alphas, try_alpha
from bessemer_operator.core.verdict import Asked
from bessemer_trainer.statistics import Pairs, axis_evidence, normal_tail, tango_statistic

DOCS = Path(__file__).parents[3] / "docs" / "gate.md"
LOOKS = [300, 600, 1200]
DISCORDANCE = 0.2
MARGIN = 0.05
Z999 = 3.0902  # one-sided 99.9 %


def release_gate(looks=LOOKS, at_least=3, axes=4):
    return Gate(
        name="release",
        baseline=Baseline(base=True),
        looks=looks,
        compose=Compose(at_least=at_least),
        axes=[GateAxis(name=f"axis{i}", win_by=0.0, not_worse_than=MARGIN) for i in range(axes)],
    )


def items_of(wins, losses, n):
    """Two arms of n independent 0/1 items with these flips, both right on half of the rest."""
    baseline, candidate = np.zeros(n), np.zeros(n)
    candidate[:wins] = 1
    baseline[wins : wins + losses] = 1
    both = slice(wins + losses, wins + losses + (n - wins - losses) // 2)
    baseline[both] = candidate[both] = 1
    return Pairs(baseline, candidate, np.arange(n), np.zeros(n, dtype=int))


@cache
def score_ps(wins, losses, n):
    """The four p of an axis: winBy 0, margin 0.05."""
    win, hold = tango_statistic(wins, losses, n, 0.0), tango_statistic(wins, losses, n, -MARGIN)
    return {
        "p_win": normal_tail(win),
        "p_no_win": normal_tail(-win),
        "p_hold": normal_tail(hold),
        "p_worse": normal_tail(-hold),
    }


@cache
def counted(name, wins, losses, n):
    """The evidence of `items_of`, without drawing up the items (a test below says that it is the same)."""
    return AxisEvidence.model_construct(
        name=name,
        n=n,
        clusters=n,
        largest_cluster_share=1 / n,
        delta=(wins - losses) / n,
        standard_error=0.01,
        low=0.0,
        high=0.0,
        baseline_mean=0.5,
        candidate_mean=0.5,
        baseline_low=0.4,
        chance=None,
        binary=True,
        **score_ps(wins, losses, n),
    )


def draw_items(effects, looks, gates, seed):
    """Wins and losses of each gate, axis and look, cumulative over one set of items drawn one by one."""
    random = np.random.default_rng(seed)
    wins, losses = np.empty((2, gates, len(effects), len(looks)), dtype=int)
    starts = [0, *looks[:-1]]
    for axis, effect in enumerate(effects):
        items = random.random((gates, looks[-1]), dtype=np.float32)
        won = items < (DISCORDANCE + effect) / 2
        flipped = items < DISCORDANCE
        wins[:, axis] = np.add.reduceat(won, starts, axis=1, dtype=int).cumsum(axis=1)
        losses[:, axis] = np.add.reduceat(flipped & ~won, starts, axis=1, dtype=int).cumsum(axis=1)
    return wins, losses


def draw_totals(effects, looks, gates, seed):
    """The same law as draw_items, but drawn as binomial totals: for many more gates."""
    random = np.random.default_rng(seed)
    new = np.diff([0, *looks])
    shares = (DISCORDANCE + np.array(effects)) / (2 * DISCORDANCE)
    flips = random.binomial(new, DISCORDANCE, size=(gates, len(effects), len(looks)))
    won = random.binomial(flips, shares[None, :, None])
    return won.cumsum(axis=2), (flips - won).cumsum(axis=2)


def first_pass(gate, wins, losses, tries=1):
    """The look at which one gate passes, else None. Follows the verdicts look by look, as the operator does."""
    look = 1
    while look is not None:
        n = gate.looks[look - 1]
        counts = zip(gate.axes, wins[:, look - 1].tolist(), losses[:, look - 1].tolist(), strict=True)
        report = CompareReport.model_construct(
            look=look,
            tries=tries,
            axes=[counted(axis.name, w, x, n) for axis, w, x in counts],
            anchors=[],
            vetoes=[],
            veto_detail="",
            settings_agree=True,
        )
        decision = judge(gate, report, Asked("sha256:" + "0" * 64, look))
        assert decision.verdict in ("Passed", "Failed", "Inconclusive"), decision.message
        if decision.verdict == "Passed":
            return look
        look = decision.next_look
    return None


def may_pass(gate, wins, losses, tries=1):
    """Gates whose p is at most alpha at some look, counted by numpy. No other gate can pass; these are then judged."""
    alphas = look_alphas(try_alpha(gate.alpha, tries), gate.looks)
    found = np.zeros(len(wins), dtype=bool)
    for look, n in enumerate(gate.looks):
        pairs = np.stack([wins[:, :, look].ravel(), losses[:, :, look].ravel()])
        distinct, where = np.unique(pairs, axis=1, return_inverse=True)
        ps = [score_ps(w, x, n) for w, x in distinct.T.tolist()]
        win, hold = (np.array([p[k] for p in ps])[where].reshape(wins.shape[:2]) for k in ("p_win", "p_hold"))
        k = gate.compose.at_least
        wins_p = (win.shape[1] - k + 1) * np.sort(win, axis=1)[:, k - 1] if k else np.zeros(len(win))
        found |= np.maximum(wins_p, hold.max(axis=1)) <= alphas[look]
    return found


def passed(gate, wins, losses, tries=1):
    """Which gates pass: an array of booleans."""
    found = may_pass(gate, wins, losses, tries)
    found[found] = [first_pass(gate, w, x, tries) is not None for w, x in zip(wins[found], losses[found], strict=True)]
    return found


def upper_bound(count, total):
    """Upper 99.9 % bound (Wilson) of a share."""
    share, z2 = count / total, Z999**2
    centre = share + z2 / (2 * total)
    return (centre + Z999 * np.sqrt(share * (1 - share) / total + z2 / (4 * total**2))) / (1 + z2 / total)


@pytest.mark.parametrize(
    ("wins", "losses", "n"), [(0, 0, 300), (7, 0, 300), (0, 9, 600), (61, 60, 600), (130, 95, 1200)]
)
def test_evidence_from_counts_is_that_of_the_items(wins, losses, n):
    axis = release_gate().axes[0]
    true, short = axis_evidence(items_of(wins, losses, n), axis), counted(axis.name, wins, losses, n)
    for field in ("n", "clusters", "delta", "p_win", "p_hold", "p_worse", "p_no_win", "binary"):
        # p of no flip at all is 1 instead of 0/0; evidence keeps six digits
        expected = 1.0 if np.isnan(getattr(short, field)) else getattr(short, field)
        assert getattr(true, field) == pytest.approx(expected, rel=1e-5, abs=1e-300), field


def test_no_gate_passes_that_the_counting_leaves_out():
    gate = release_gate()
    wins, losses = draw_totals((0.12, 0.1, 0.05, 0.0), LOOKS, 1500, seed=5)
    judged = np.array([first_pass(gate, w, x) is not None for w, x in zip(wins, losses, strict=True)])
    assert 100 < judged.sum() < 1400
    assert np.array_equal(judged, passed(gate, wins, losses))


def documented(name):
    """The percentages of the row of docs/gate.md with this name, or the one after `<!-- name -->`."""
    text = DOCS.read_text()
    row = re.search(rf"^\| {re.escape(name)} \|(.*)$|<!-- {re.escape(name)} -->([^%]*%)", text, re.MULTILINE)
    assert row, f"docs/gate.md has no row {name!r}"
    return [float(share) / 100 for share in re.findall(r"([0-9.]+) %", row[1] or row[2])]


class Boundary(NamedTuple):
    name: str
    effects: tuple[float, ...]
    at_least: int = 3


BOUNDARIES = [
    Boundary("no axis differs", (0.0, 0.0, 0.0, 0.0)),
    Boundary("one win too few and the rest exactly at the null", (0.15, 0.15, 0.0, 0.0)),
    Boundary("three axes huge and one exactly at its margin", (0.15, 0.15, 0.15, -0.05)),
    Boundary("one axis that must only hold, exactly at its margin", (-0.05,), 0),
    Boundary("one axis that must win, exactly at the null", (0.0,), 1),
]


@pytest.mark.parametrize("case", BOUNDARIES, ids=lambda case: case.name)
def test_false_promotions_over_three_looks_stay_under_alpha(case):
    gate = release_gate(at_least=case.at_least, axes=len(case.effects))
    count = passed(gate, *draw_items(case.effects, LOOKS, 10_000, seed=11)).sum()
    assert upper_bound(count, 10_000) <= gate.alpha
    assert count / 10_000 == pytest.approx(documented(case.name)[0], abs=0.005)


@pytest.mark.parametrize("case", BOUNDARIES, ids=lambda case: case.name)
def test_false_promotions_over_three_looks_and_ten_tries_stay_under_alpha(case):
    gate = release_gate(at_least=case.at_least, axes=len(case.effects))
    # one axis spends nearly all of alpha (4.7 % over ten tries): more sequences, so that the bound can tell
    sequences = 60_000 if len(case.effects) == 1 else 10_000
    draws = (draw_totals(case.effects, LOOKS, sequences, seed=100 + j) for j in range(1, 11))
    ever = np.any([passed(gate, *draw, tries=j) for j, draw in enumerate(draws, start=1)], axis=0).sum()
    assert upper_bound(ever, sequences) <= gate.alpha
    assert ever / sequences == pytest.approx(documented(case.name)[1], abs=0.006)


class Power(NamedTuple):
    name: str
    looks: list[int]
    effect: float
    expected: float


POWERS = [
    Power("wins of 0.10 at 600 items", [600], 0.10, 0.79),
    Power("wins of 0.10 at 1200 items", [1200], 0.10, 0.98),
    Power("wins of 0.10 over three looks", LOOKS, 0.10, 0.97),
    Power("wins of 0.05 at 600 items", [600], 0.05, 0.31),
    Power("wins of 0.05 at 1200 items", [1200], 0.05, 0.85),
    Power("wins of 0.05 over three looks", LOOKS, 0.05, 0.84),
]


@pytest.mark.parametrize("case", POWERS, ids=lambda case: case.name)
def test_power_of_three_true_wins_and_a_fourth_axis_unchanged(case):
    gate = release_gate(looks=case.looks)
    effects = (case.effect,) * 3 + (0.0,)
    share = passed(gate, *draw_totals(effects, case.looks, 4000, seed=3)).mean()
    planned = gate_power(gate, {f"axis{i}": case.effect for i in range(3)})[-1]
    assert share == pytest.approx(case.expected, abs=0.03)
    assert planned == pytest.approx(share, abs=0.03)
    assert documented(case.name) == [pytest.approx(share, abs=0.02)]


def test_point_estimates_would_promote_candidates_that_changed_nothing():
    wins, losses = draw_totals((0.0,) * 4, [600], 20_000, seed=1)
    deltas = (wins - losses)[:, :, 0] / 600
    naive = np.mean(((deltas > 0).sum(axis=1) >= 3) & (deltas.min(axis=1) > -MARGIN))
    assert documented("naive") == [pytest.approx(naive, abs=0.01)]
    assert 1 - (1 - naive) ** 10 > 0.95


def test_a_true_loss_of_three_points_often_passes_without_an_anchor():
    count = passed(release_gate(), *draw_totals((0.15, 0.15, 0.15, -0.03), LOOKS, 5_000, seed=2)).mean()
    assert documented("slide") == [pytest.approx(count, abs=0.02)]
