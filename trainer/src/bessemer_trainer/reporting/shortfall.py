"""What a gate could not show, and how many items it would take: arithmetic on the stored evidence, in words.

The reckoning takes the measured difference and its error for the truth, and asks for a power of 80 % at the level of
this try. It is advice about the next bank, never a verdict.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from bessemer_api.job import AxisEvidence, CompareReport
from bessemer_api.v1alpha1.gate import Gate, GateAxis
from bessemer_trainer.reporting.words import signed

POWER = 0.8


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that a gate asks of an axis: that its difference is above `bound`, tested at `alpha`."""

    axis: str
    wanted: str
    bound: float
    alpha: float


def claims(gate: Gate, tries: int) -> list[Claim]:
    """Everything that the gate has to see, at the level of its j-th try (6 alpha / (pi^2 j^2), see docs/gate.md)."""
    alpha = 6 * gate.alpha / (math.pi**2 * max(tries, 1) ** 2)
    return [claim for axis in gate.axes for claim in _of_axis(axis, alpha, _win_alpha(gate, alpha))]


def _win_alpha(gate: Gate, alpha: float) -> float:
    winnable = sum(axis.win_by is not None for axis in gate.axes)
    return alpha / (winnable - max(gate.compose.at_least, 1) + 1) if winnable else alpha


def _of_axis(axis: GateAxis, alpha: float, win_alpha: float) -> Iterator[Claim]:
    if axis.win_by is not None:
        yield Claim(axis.name, f"better by more than {axis.win_by:g}", axis.win_by, win_alpha)
    yield Claim(axis.name, f"not worse by {axis.not_worse_than:g}", -axis.not_worse_than, alpha)


def items_needed(evidence: AxisEvidence, claim: Claim) -> int | None:
    """Items at which the claim would be shown with probability POWER; None where no number would do.

    The standard error is taken to fall with the square root of the items; rounded up to two digits.
    """
    gap = evidence.delta - claim.bound
    if gap <= 0 or evidence.standard_error <= 0:
        return None
    exact = evidence.n * (_factor(claim.alpha) * evidence.standard_error / gap) ** 2
    step = int(10 ** max(0, math.floor(math.log10(max(exact, 1))) - 1))
    return max(math.ceil(exact / step) * step, 1)


def smallest_shown(evidence: AxisEvidence, claim: Claim) -> float:
    """The true distance from the bound that these items show with probability POWER."""
    return _factor(claim.alpha) * evidence.standard_error


def _factor(alpha: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha) + normal.inv_cdf(POWER)


def shortfalls(gate: Gate, report: CompareReport, states: dict[str, str]) -> list[dict[str, object]]:
    """A line for every claim that was not shown. An axis that is shown to be worse is no shortfall: it is an answer."""
    found = {evidence.name: evidence for evidence in report.axes}
    return [
        _line(found[claim.axis], claim)
        for claim in claims(gate, report.tries)
        if claim.axis in found and _is_open(states.get(claim.axis, ""), claim)
    ]


def _is_open(state: str, claim: Claim) -> bool:
    is_win = claim.bound >= 0
    return state not in ({"Won", "Worse"} if is_win else {"Won", "Holds", "Worse"})


def _line(evidence: AxisEvidence, claim: Claim) -> dict[str, object]:
    needed = items_needed(evidence, claim)
    return {
        "axis": claim.axis,
        "claim": claim.wanted,
        "items": evidence.n,
        "needed": needed,
        "smallest": smallest_shown(evidence, claim) if evidence.standard_error > 0 else None,
        "words": _words(evidence, claim, needed),
    }


def _words(evidence: AxisEvidence, claim: Claim, needed: int | None) -> str:
    if needed is not None and needed > evidence.n:
        return (
            f"if {signed(evidence.delta)} is the truth, about {needed:,} items show it in "
            f"{POWER:.0%} of gates; these were {evidence.n:,}"
        )
    if needed is not None:
        return (
            f"{evidence.n:,} items are enough for this in {POWER:.0%} of gates: it needs a later look or a luckier one"
        )
    if evidence.standard_error <= 0:
        return "no item differs between the two: there is no error to reckon with"
    return f"the estimate itself ({signed(evidence.delta)}) is on the wrong side: more items would not show it"


def worst_case(lines: Sequence[dict[str, object]]) -> int | None:
    """The largest number of items that any line asks for."""
    return max((line["needed"] for line in lines if isinstance(line["needed"], int)), default=None)
