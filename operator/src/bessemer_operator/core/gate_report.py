"""Whether the report of a comparison is a complete answer, all of numbers. What is missing is Invalid, never a pass."""

import math
from collections.abc import Iterable, Sequence

from bessemer_api.job import CompareReport, HoldEvidence
from bessemer_api.v1alpha1.gate import Gate
from bessemer_operator.core.verdict import Asked, Decision, Reason, invalid


def listed(names: Iterable[str]) -> str:
    """Names in order, for people."""
    return ", ".join(sorted(names)) or "none"


def find_missing(gate: Gate, report: CompareReport, asked: Asked) -> Decision | None:
    """Invalid, when the report is not a complete answer to what was asked; else None."""
    if not 1 <= asked.look <= len(gate.looks) or report.look != asked.look:
        message = f"The report is of look {report.look}; asked was look {asked.look} of {len(gate.looks)}."
        return invalid(Reason.MISMATCH, message)
    if report.tries < 1:
        return invalid(Reason.MISSING, "The try was not registered before the items were read.")
    for kind, found, wanted in _asked_for(gate, report, asked):
        names = [evidence.name for evidence in found]
        if sorted(names) != sorted(wanted):
            return invalid(Reason.MISSING, f"The report has {kind} {listed(names)}; asked were {listed(wanted)}.")
    others = [evidence for found in (report.also or {}).values() for evidence in found]
    return _bad_evidence([*report.axes, *report.anchors, *others], gate.looks[asked.look - 1])


def _asked_for(
    gate: Gate, report: CompareReport, asked: Asked
) -> list[tuple[str, Sequence[HoldEvidence], frozenset[str]]]:
    """What each comparison must have, and has: in words, the evidence, the names of its axes."""
    names, also = frozenset(axis.name for axis in gate.axes), report.also or {}
    return [
        ("axes", report.axes, names),
        ("anchors", report.anchors, asked.anchors & names),
        *(
            (f"axes against {other}", also.get(other, ()), asked.also.get(other, frozenset()))
            for other in sorted(also.keys() | asked.also.keys())
        ),
    ]


def _bad_evidence(found: Sequence[HoldEvidence], items: int) -> Decision | None:
    for evidence in found:
        field = _bad_number(evidence)
        if field is not None:
            value = getattr(evidence, field)
            return invalid(Reason.NOT_A_NUMBER, f"Axis {evidence.name}: {field} is {value}; no number it can be.")
        if evidence.n != items:
            message = f"Axis {evidence.name} has {evidence.n} items; this look needs {items}."
            return invalid(Reason.MISSING, message)
    return None


def _bad_number(evidence: HoldEvidence) -> str | None:
    """The first field that is not finite or out of its range."""
    shares = ("p_win", "p_hold", "p_worse", "p_no_win", "largest_cluster_share")
    others = ("delta", "low", "high", "baseline_mean", "candidate_mean", "baseline_low")
    for field in (*shares, *others, "standard_error", "chance"):
        value = getattr(evidence, field, 0.0)  # what only holds has fewer fields
        if value is None and field == "chance":
            continue
        if not isinstance(value, int | float) or not math.isfinite(value):
            return field
        if (field in shares and not 0 <= value <= 1) or (field == "standard_error" and value < 0):
            return field
    return None
