"""The few numbers of sequential and multiple testing that the gate needs. It must not look at evidence or verdicts.

Sources: Lan and DeMets 1983, Biometrika 70:659-663 (alpha spending); Benjamini and Heller 2008, Biometrics
64:1215-1222 (partial conjunction); Berger 1982, Technometrics 24:295-300 (intersection-union).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist


def upper_tail(z: float) -> float:
    """P(Z > z) of the standard normal distribution, accurate far into the tail."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def critical(alpha: float) -> float:
    """The z with upper tail alpha (0 < alpha < 1)."""
    return -NormalDist().inv_cdf(alpha)


def try_alpha(alpha: float, tries: int) -> float:
    """Alpha of the j-th try: 6 alpha / (pi^2 j^2). Summed over all tries it is alpha, however many there are."""
    return 6 * alpha / (math.pi**2 * tries**2)


def spent(alpha: float, fraction: float) -> float:
    """Alpha spent when `fraction` (0 < fraction <= 1) of the items has been seen, O'Brien-Fleming like."""
    return 2 * upper_tail(critical(alpha / 2) / math.sqrt(fraction))


def look_alphas(alpha: float, looks: Sequence[int]) -> tuple[float, ...]:
    """What each look may spend: the increments of `spent`. `looks` are items, increasing; the sum is alpha."""
    total = [spent(alpha, items / looks[-1]) for items in looks]
    return tuple(now - before for now, before in zip(total, [0.0, *total], strict=False))


def partial_conjunction(ps: Sequence[float], at_least: int) -> float:
    """The p of H0: fewer than `at_least` of these effects are true: (n-k+1) times the k-th smallest p."""
    if at_least == 0:
        return 0.0
    return min(1.0, (len(ps) - at_least + 1) * sorted(ps)[at_least - 1])


def gate_p(wins: Sequence[float], holds: Sequence[float], at_least: int) -> float:
    """The p of H0: too few true wins, or any true loss beyond its margin. The gate passes when it is at most alpha.

    Intersection-union: both parts must be refused, so the larger p is the p of the whole, with no correction.
    """
    return max(partial_conjunction(wins, at_least), max(holds, default=1.0))
