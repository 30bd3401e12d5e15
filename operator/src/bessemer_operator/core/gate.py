"""The gate: a pure function from the report of a comparison to Passed, Failed, Inconclusive or Invalid.

It fails closed: whatever is missing, not a number, out of range or not what was asked for is Invalid, and a verdict
is Passed only where every condition was shown. It must not compute statistics from items (the trainer does) and must
not know where evidence is stored. docs/gate.md explains the rules with numbers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bessemer_api.job import AxisEvidence, CompareReport, HoldEvidence, RunReport
from bessemer_api.v1alpha1.gate import Gate, GateAxis
from bessemer_api.v1alpha1.pipeline import AxisSummary
from bessemer_operator.core import stats
from bessemer_operator.core.gate_report import find_missing, listed
from bessemer_operator.core.verdict import Asked, Decision, Reason, State, Verdict, invalid

MIN_CLUSTERS = 20
"""Below this the standard errors of clusters are not to be trusted."""
MAX_CLUSTER_SHARE = 0.10
"""A larger share makes the mean depend on one cluster."""
ASSUMED_DISCORDANCE = 0.2
"""Share of 0/1 items on which two arms are assumed to differ, when a margin is judged before there is data."""


Pair = tuple[GateAxis, AxisEvidence]


@dataclass(frozen=True, slots=True)
class Hold:
    """One comparison that must hold: against whom, what is asked of the axis, and what was found."""

    against: str
    axis: GateAxis
    evidence: HoldEvidence


@dataclass(frozen=True, slots=True)
class Case:
    """A complete report beside what the gate asks of each axis.

    `alpha` is the level of every test for passing: the share of this look in the alpha of this try.
    """

    gate: Gate
    report: CompareReport
    axes: tuple[Pair, ...]
    others: tuple[Hold, ...]
    alpha: float

    @property
    def is_last(self) -> bool:
        return self.report.look == len(self.gate.looks)

    @property
    def holds(self) -> tuple[Hold, ...]:
        """Every comparison: with the baseline, with anchors, and with what the gate asks for besides."""
        return (*(Hold("the baseline", axis, evidence) for axis, evidence in self.axes), *self.others)

    @property
    def winnable(self) -> tuple[AxisEvidence, ...]:
        return tuple(evidence for axis, evidence in self.axes if axis.win_by is not None)

    @property
    def win_alpha(self) -> float:
        """Level at which one axis counts as won: then the gate passes only with at least `atLeast` axes Won."""
        return self.alpha / (len(self.winnable) - max(self.gate.compose.at_least, 1) + 1)

    @property
    def stop_alpha(self) -> float:
        """Level of the tests for failing early: alpha shared equally by all comparisons and looks, whatever the try.

        So a candidate that deserves to go on is stopped by them with probability alpha at most. They can only
        refuse, and so can not add a false promotion.
        """
        return self.gate.alpha / (len(self.holds) * len(self.gate.looks))


def decide(gate: Gate, run: RunReport, asked: Asked) -> Decision:
    """The verdict on one look from the report of its compare run. Never raises for anything a report can hold.

    A run that ended in an error gives the verdict Error, neither a pass nor a failed gate.
    """
    if run.error is not None:
        return Decision("Error", run.error.reason, run.error.message)
    if run.verb != "compare" or run.input_digest != asked.input_digest:
        return invalid(Reason.MISMATCH, f"The report answers {run.verb} {run.input_digest}, not {asked.input_digest}.")
    if run.compare is None:
        return invalid(Reason.MISSING, "The compare run reported no evidence.")
    return judge(gate, run.compare, asked)


def judge(gate: Gate, report: CompareReport, asked: Asked) -> Decision:
    """The verdict on a report that is known to answer the compare run that was asked for."""
    if report.vetoes:
        detail = f": {report.veto_detail}" if report.veto_detail else ""
        message = f"Vetoed by {', '.join(report.vetoes)}{detail}."
        return Decision("Failed", Reason.VETO, message[:1024], report.look, report.tries)
    missing = find_missing(gate, report, asked)
    if missing is not None:
        return missing
    case = _case(gate, report)
    decision = _first(_checks(), case) or _go_on(case)
    return replace(
        decision,
        message=f"{decision.message} {_where(case)}"[:1024],
        look=report.look,
        tries=report.tries,
        alpha=case.alpha,
        alpha_spent=sum(_look_alphas(gate, report.tries)[: report.look]),
        axes=tuple(_summary(case, axis, evidence) for axis, evidence in case.axes),
    )


def _case(gate: Gate, report: CompareReport) -> Case:
    found, asked = {e.name: e for e in report.axes}, {axis.name: axis for axis in gate.axes}
    return Case(
        gate=gate,
        report=report,
        axes=tuple((axis, found[axis.name]) for axis in gate.axes),
        others=(
            *(Hold("its anchor", asked[e.name], e) for e in report.anchors),
            *(Hold(name, asked[e.name], e) for name, found in sorted((report.also or {}).items()) for e in found),
        ),
        alpha=_look_alphas(gate, report.tries)[report.look - 1],
    )


def _look_alphas(gate: Gate, tries: int) -> tuple[float, ...]:
    return stats.look_alphas(stats.try_alpha(gate.alpha, tries), gate.looks)


def _checks() -> tuple[Callable[[Case], Decision | None], ...]:
    """In order. A candidate shown to be bad fails before the question whether the gate could have passed a good one."""
    return (_settings, _spread, _clusters, _worse, _impossible, _floor, _power, _passed)


def _first(checks: Sequence[Callable[[Case], Decision | None]], case: Case) -> Decision | None:
    return next((found for check in checks if (found := check(case)) is not None), None)


# --- is it evidence? --------------------------------------------------------------------------------------------


def _settings(case: Case) -> Decision | None:
    if case.report.settings_agree:
        return None
    return invalid(Reason.SETTINGS, "The arms were measured with different evaluators or settings; evaluate again.")


def _spread(case: Case) -> Decision | None:
    for e in (hold.evidence for hold in case.holds):
        if e.standard_error == 0 and not e.binary:
            message = f"Axis {e.name}: no spread in its {e.n} differences, so no error can be estimated."
            return invalid(Reason.NO_SPREAD, f"{message} Are the arms the same checkpoint?")
    return None


def _clusters(case: Case) -> Decision | None:
    """Without enough clusters nothing is shown, neither good nor bad; a later look may have enough."""
    for e in (hold.evidence for hold in case.holds):
        if e.clusters < MIN_CLUSTERS or e.largest_cluster_share > MAX_CLUSTER_SHARE:
            found = f"{e.clusters} clusters, the largest with {e.largest_cluster_share:.0%} of the items"
            needed = f"at least {MIN_CLUSTERS}, none with over {MAX_CLUSTER_SHARE:.0%}"
            message = f"Axis {e.name}: {found}; expected {needed}."
            return invalid(Reason.CLUSTERS, message) if case.is_last else _next_look(case, message)
    return None


def _at_floor(case: Case) -> tuple[Pair, ...]:
    """Axes on which not being worse is free, because the baseline hardly beats guessing, and that were not won."""
    return tuple(
        (axis, e)
        for axis, e in case.axes
        if e.chance is not None and e.baseline_low < e.chance + axis.not_worse_than and not _is_won(case, axis, e)
    )


def _floor(case: Case) -> Decision | None:
    """A win from the floor is a win; only holding there is free. With more items the bound may leave the floor."""
    for axis, e in _at_floor(case) if case.is_last else ():
        if axis.win_by is None or _gate_p(case) <= case.alpha:
            low = f"the baseline may score as little as {e.baseline_low:.3f}"
            floor = f"under chance {e.chance:.3f} plus the margin {axis.not_worse_than:g}"
            return invalid(Reason.FLOOR, f"Axis {e.name}: {low}, {floor}: not being worse would be free.")
    return None


def needed_margin(alpha: float, standard_error: float) -> float:
    """The smallest margin that a difference of 0 shows at this alpha."""
    return stats.critical(alpha) * standard_error


def designed_margin(gate: Gate) -> float:
    """The smallest margin that 0/1 items of this gate show at its last look, on the first try, when nothing changed.

    Assumes that the arms differ on a fifth of the items. A gate with a smaller margin is underpowered by design.
    """
    last = _look_alphas(gate, 1)[-1]
    return needed_margin(last, math.sqrt(ASSUMED_DISCORDANCE / gate.looks[-1]))


def _power(case: Case) -> Decision | None:
    looks = case.gate.looks
    last = _look_alphas(case.gate, 1)[-1]
    for axis, e in case.axes:
        error = e.standard_error * math.sqrt(e.n / looks[-1])
        needed = designed_margin(case.gate) if e.binary else needed_margin(last, error)
        if axis.not_worse_than < needed:
            found = f"{looks[-1]} items can show a margin of {needed:.4f}, not {axis.not_worse_than:g}"
            return invalid(Reason.UNDERPOWERED, f"Axis {e.name}: {found}; use more items or a larger margin.")
    return None


# --- fail, pass, or go on ---------------------------------------------------------------------------------------


def _worse(case: Case) -> Decision | None:
    for hold in case.holds:
        axis, e = hold.axis, hold.evidence
        if e.p_worse <= case.stop_alpha:
            message = f"Axis {e.name} is worse than {hold.against} by more than {axis.not_worse_than:g}: {_numbers(e)}"
            return Decision("Failed", Reason.WORSE, f"{message}, p {e.p_worse:.2g} at level {case.stop_alpha:.2g}.")
    return None


def _impossible(case: Case) -> Decision | None:
    lost = [e.name for e in case.winnable if e.p_no_win <= case.stop_alpha]
    spare = len(case.winnable) - case.gate.compose.at_least
    if len(lost) <= spare:
        return None
    message = f"{case.gate.compose.at_least} wins are needed, but no win is possible on {listed(lost)}"
    return Decision("Failed", Reason.IMPOSSIBLE, f"{message} (level {case.stop_alpha:.2g}).")


def _passed(case: Case) -> Decision | None:
    if _gate_p(case) > case.alpha or _at_floor(case):
        return None
    limit = case.gate.max_plausible_gain
    for _, e in case.axes:
        if limit is not None and e.delta > limit:
            message = f"Axis {e.name} gains {e.delta:.3f}, more than is plausible ({limit:g}): a person must look."
            return Decision("Inconclusive", Reason.IMPLAUSIBLE, message)
    return Decision("Passed", Reason.PASSED, _score(case))


def _go_on(case: Case) -> Decision:
    if case.is_last:
        asks = case.gate.on_inconclusive.then == "requireApproval"
        verdict: Verdict = "Inconclusive" if asks else "Failed"
        return Decision(verdict, Reason.NOT_SHOWN, f"Not shown at the last look: {_score(case)}")
    return _next_look(case, f"Not yet shown: {_score(case)}")


def _next_look(case: Case, message: str) -> Decision:
    return Decision("Inconclusive", Reason.NEXT_LOOK, message, next_look=case.report.look + 1)


def _gate_p(case: Case) -> float:
    wins = [e.p_win for e in case.winnable]
    holds = [hold.evidence.p_hold for hold in case.holds]
    return stats.gate_p(wins, holds, case.gate.compose.at_least)


def _is_won(case: Case, axis: GateAxis, evidence: AxisEvidence) -> bool:
    return axis.win_by is not None and evidence.p_win <= case.win_alpha


# --- words ------------------------------------------------------------------------------------------------------


def _state(case: Case, axis: GateAxis, evidence: AxisEvidence) -> State:
    if evidence.p_worse <= case.stop_alpha:
        return "Worse"
    if _is_won(case, axis, evidence):
        return "Won"
    return "Holds" if evidence.p_hold <= case.alpha else "NotShown"


def _summary(case: Case, axis: GateAxis, evidence: AxisEvidence) -> AxisSummary:
    return AxisSummary(
        name=evidence.name,
        n=evidence.n,
        delta=evidence.delta,
        standard_error=evidence.standard_error,
        interval=[evidence.low, evidence.high],
        state=_state(case, axis, evidence),
    )


def _score(case: Case) -> str:
    """How far the gate is: wins and holds with the p that decides each."""
    at_least = case.gate.compose.at_least
    won = sum(_is_won(case, axis, e) for axis, e in case.axes)
    holds = [hold.evidence.p_hold for hold in case.holds]
    held = sum(p <= case.alpha for p in holds)
    text = f"{held} of {len(holds)} comparisons hold (largest p {max(holds):.2g})"
    if at_least:
        p = stats.partial_conjunction([e.p_win for e in case.winnable], at_least)
        text = f"{won} of {len(case.winnable)} axes won, {at_least} needed (p {p:.2g}); {text}"
    floor = [e.name for _, e in _at_floor(case)]
    return f"{text}; at the floor, where holding is free: {listed(floor)}." if floor else f"{text}."


def _where(case: Case) -> str:
    report = case.report
    return f"Look {report.look} of {len(case.gate.looks)}, try {report.tries}, alpha {case.alpha:.2g}."


def _numbers(evidence: HoldEvidence) -> str:
    return f"difference {evidence.delta:+.4f}, 95 % interval {evidence.low:+.4f} to {evidence.high:+.4f}"
