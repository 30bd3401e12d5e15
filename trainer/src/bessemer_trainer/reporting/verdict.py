"""The verdict with its reasons, and every gate: what it asked, what it saw look by look, every try, what is missing."""

from collections.abc import Mapping
from typing import Any

from bessemer_api.job import CompareTask, HoldEvidence
from bessemer_api.v1alpha1.gate import Gate, GateAxis
from bessemer_api.v1alpha1.pipeline import GateSummary
from bessemer_trainer.reporting import plots, retrieval, shortfall
from bessemer_trainer.reporting.facts import Comparison, Facts
from bessemer_trainer.reporting.words import (
    STATE_TONES,
    STATES,
    TONES,
    VERDICTS,
    interval,
    named,
    rule_in_words,
    signed,
)


def release_gate(facts: Facts) -> GateSummary | None:
    """The gate that decides about promotion; else the last that was judged."""
    wanted = facts.spec.promotion.gate if facts.spec.promotion else None
    return next((gate for gate in facts.gates if gate.name == wanted), facts.gates[-1] if facts.gates else None)


def banner(facts: Facts, names: Mapping[str, str]) -> dict[str, Any]:
    """What a reader with no time needs: verdict, what follows from it, and why."""
    gate = release_gate(facts)
    if gate is None:
        text = "This pipeline has given no verdict."
        return {"tone": "open", "title": "No gate was judged", "text": text, "reasons": [], "advice": ""}
    promoted = next((item for item in facts.conditions if item["type"] == "Promoted"), None)
    text = f"Gate {gate.name} compared {named(gate.candidate, names)} with {named(gate.baseline, names)}."
    told = (promoted or {}).get("message", "")
    return {
        "tone": TONES[gate.verdict],
        "title": _title(gate, promoted),
        "text": f"{text} {told}".strip(),
        "reasons": [*_axis_reasons(gate, facts), *_other_reasons(gate, facts)],
        "advice": VERDICTS[gate.verdict],
    }


def _title(gate: GateSummary, promoted: Mapping[str, Any] | None) -> str:
    if promoted is None:
        return gate.verdict
    if promoted["status"] == "True":
        by_override = " by override" if promoted.get("reason") == "PromotedByOverride" else ""
        return f"{gate.verdict}, promoted{by_override}"
    return f"{gate.verdict}, not promoted"


def _axis_reasons(gate: GateSummary, facts: Facts) -> list[dict[str, str]]:
    declared = _declared(gate, facts)
    asked = {axis.name: axis for axis in declared.axes} if declared else {}
    reasons = []
    for axis in gate.axes:
        margin = f"; margin {asked[axis.name].not_worse_than:g}" if axis.name in asked else ""
        difference = f"Difference {signed(axis.delta)}, 95 % interval {interval(*axis.interval)}"
        reasons.append({
            "tone": STATE_TONES.get(axis.state, "open"),
            "text": f"{axis.name}: {STATES.get(axis.state, axis.state)}. {difference}, {axis.n:,} items{margin}.",
        })  # fmt: skip
    return reasons


def _declared(gate: GateSummary, facts: Facts) -> Gate | None:
    return next((item for item in facts.spec.gates if item.name == gate.name), None)


def _other_reasons(gate: GateSummary, facts: Facts) -> list[dict[str, str]]:
    last = _last_look(gate, facts)
    reasons = []
    if last is not None and last.report.vetoes:
        words = f"Vetoed by {', '.join(last.report.vetoes)}: {last.report.veto_detail}"
        reasons.append({"tone": "bad", "text": words})
    alarms = [item for item in facts.diagnostics if item.state == "Alarm"]
    if alarms:
        words = ", ".join(f"{item.name} of {item.subject}" for item in alarms)
        raised = "1 diagnostic" if len(alarms) == 1 else f"{len(alarms)} diagnostics"
        reasons.append({"tone": "bad", "text": f"{raised} raised an alarm: {words}."})
    if last is not None and last.report.tries > 1:
        words = f"This was try {last.report.tries} on these items: it was judged at a stricter level than the first."
        reasons.append({"tone": "open", "text": words})
    return reasons


def looks_of(gate: GateSummary, facts: Facts) -> list[Comparison]:
    """The comparisons behind a verdict, first look first."""
    found = (c for c in facts.comparisons if c.task.gate == gate.name and c.task.candidate.checkpoint == gate.candidate)
    return sorted(found, key=lambda c: c.task.look)


def _last_look(gate: GateSummary, facts: Facts) -> Comparison | None:
    return next(reversed(looks_of(gate, facts)), None)


def gate_view(summary: GateSummary, facts: Facts, names: Mapping[str, str]) -> dict[str, Any]:
    """A gate: what it asked, what it saw look by look, its verdict, and what it could not show."""
    gate, looks = _declared(summary, facts), looks_of(summary, facts)
    last = looks[-1] if looks else None
    states = {axis.name: axis.state for axis in summary.axes}
    axes = [axis_view(e, last.task, states) for e in last.report.axes] if last else []
    return {
        "summary": summary,
        "tone": TONES[summary.verdict],
        "rule": rule_in_words(gate) if gate else "",
        "candidate": named(summary.candidate, names),
        "baseline": named(summary.baseline, names),
        "axes": axes,
        "retrieval": retrieval.tables(facts.spec, {view["evidence"].name: view for view in axes}),
        "anchors": [axis_view(e, last.task, {}) for e in last.report.anchors] if last else [],
        "also": [
            (name, [axis_view(e, last.task, {}) for e in found]) for name, found in (last.report.also or {}).items()
        ]
        if last
        else [],
        "looks": [_look_view(comparison) for comparison in looks],
        "report": last.report if last else None,
        "task": last.task if last else None,
        "evidence": last.digest if last else None,
        "tries": [
            {**item, "name": named(item.get("candidate"), names)}
            for item in (facts.tries.get(last.digest, ()) if last else ())
        ],
        "shortfalls": shortfall.shortfalls(gate, last.report, states) if gate and last else [],
    }


def axis_view(evidence: HoldEvidence, task: CompareTask, states: Mapping[str, str]) -> dict[str, Any]:
    """One axis: numbers, words, figure. `candidate` and `baseline` are means as they were measured."""
    axis: GateAxis = next(axis for axis in task.axes if axis.name == evidence.name)
    measure = next(measure for measure in task.measures if measure.name == evidence.name)
    state, smaller = states.get(evidence.name, ""), not measure.measure.larger_is_better
    tone, sign = STATE_TONES.get(state, "open"), -1 if smaller else 1
    return {
        "evidence": evidence,
        "axis": axis,
        "unit": measure.measure.unit,
        "smaller_is_better": smaller,
        "candidate": sign * evidence.candidate_mean,
        "baseline": sign * evidence.baseline_mean,
        "state": STATES.get(state, ""),
        "tone": tone,
        "plot": plots.interval_plot(evidence, axis, tone, measure.measure.unit),
    }


def _look_view(comparison: Comparison) -> dict[str, Any]:
    winnable = {axis.name for axis in comparison.task.axes if axis.win_by is not None}
    return {
        "look": comparison.task.look,
        "items": comparison.task.looks[comparison.task.look - 1],
        "tries": comparison.report.tries,
        "digest": comparison.digest,
        "axes": [{"e": e, "winnable": e.name in winnable} for e in comparison.report.axes],
    }
