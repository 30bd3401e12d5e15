"""Alpha over looks and tries, and the p of the whole gate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from bessemer_operator.core.stats import (
    critical,
    gate_p,
    look_alphas,
    partial_conjunction,
    spent,
    try_alpha,
    upper_tail,
)

P = st.floats(0, 1)


def test_tail_and_critical_value_are_those_of_the_normal_distribution():
    assert [upper_tail(z) for z in (-2.0, 0.0, 1.96, 9.0)] == pytest.approx(norm.sf([-2.0, 0.0, 1.96, 9.0]), rel=1e-12)
    assert [critical(a) for a in (0.4, 0.05, 1e-4, 1e-12)] == pytest.approx(norm.isf([0.4, 0.05, 1e-4, 1e-12]))


def test_spending_is_lan_and_demets_approximation_of_obrien_and_fleming():
    """By hand, with z(0.975) = 1.95996: 2 - 2 Phi(z) at 3.920, 2.772, 2.263 and 1.960."""
    found = [spent(0.05, t) for t in (0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([0.00009, 0.00557, 0.02363, 0.05], abs=1e-4)


@pytest.mark.parametrize("looks", [[600], [300, 600, 1200], [10, 20, 30, 40, 50, 60, 70, 80]])
def test_looks_together_spend_alpha_exactly(looks):
    shares = look_alphas(0.05, looks)
    assert len(shares) == len(looks)
    assert all(share > 0 for share in shares)
    assert sum(shares) == pytest.approx(0.05)


def test_tries_together_never_spend_more_than_alpha():
    assert try_alpha(0.05, 1) == pytest.approx(0.0304, abs=1e-4)
    total = math.fsum(try_alpha(0.05, j) for j in range(1, 100_000))
    assert 0.0499 < total < 0.05


PARTIAL = {
    "two of three": ([0.3, 0.01, 0.02], 2, 0.04),
    "all of three": ([0.3, 0.01, 0.02], 3, 0.3),
    "any of three is Bonferroni": ([0.3, 0.01, 0.02], 1, 0.03),
    "none asked": ([0.3, 0.9], 0, 0.0),
    "never over one": ([0.9, 0.8, 0.7], 1, 1.0),
}


@pytest.mark.parametrize(("ps", "at_least", "expected"), PARTIAL.values(), ids=PARTIAL)
def test_partial_conjunction(ps, at_least, expected):
    assert partial_conjunction(ps, at_least) == pytest.approx(expected)


def test_the_gate_has_the_larger_p_of_its_two_questions():
    assert gate_p([0.001, 0.002], [0.04, 0.01], 2) == 0.04
    assert gate_p([0.2, 0.002], [0.04, 0.01], 2) == 0.2
    assert gate_p([], [0.03], 0) == 0.03


def test_nothing_to_hold_is_no_evidence():
    assert gate_p([0.001], [], 1) == 1.0


@given(st.lists(P, min_size=1, max_size=6), st.lists(P, min_size=1, max_size=6), st.data())
def test_a_larger_p_never_helps(wins, holds, data):
    at_least = data.draw(st.integers(0, len(wins)))
    i, j = data.draw(st.integers(0, len(wins) - 1)), data.draw(st.integers(0, len(holds) - 1))
    worse_wins = [*wins[:i], data.draw(st.floats(wins[i], 1)), *wins[i + 1 :]]
    worse_holds = [*holds[:j], data.draw(st.floats(holds[j], 1)), *holds[j + 1 :]]
    assert gate_p(worse_wins, worse_holds, at_least) >= gate_p(wins, holds, at_least)
