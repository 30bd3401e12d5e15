"""Events of a pipeline: what changed between two statuses, as a story. Pure; it decides nothing."""

from typing import Literal

from bessemer_api.v1alpha1.pipeline import PipelineStatus
from bessemer_operator.core import conditions as c
from bessemer_operator.core.plan import Event

_WAITS = {"WaitingForApproval", "Soaking", "WaitingForMerge"}
_TURNS = {*_WAITS, "Rejected", "ApprovalTimedOut", "Held", "LeftBefore"}
"""Reasons of the condition Promoted that are news although its status stays False."""


def find_events(before: PipelineStatus, after: PipelineStatus) -> tuple[Event, ...]:
    """What changed since the last status, as a story."""
    old_rows = {row.name: row for row in before.stages}
    told = []
    for row in after.stages:
        known = old_rows.get(row.name)
        if row.phase in {"Succeeded", "Failed"} and (known is None or known.phase != row.phase):
            kind = _level(row.phase == "Succeeded")
            text = f"{row.name}: {'reused' if row.reused else row.phase.lower()} {row.message}"
            told.append(Event(kind, f"Stage{row.phase}", text.strip()))
    verdicts = {gate.name: (gate.verdict, gate.look) for gate in before.gates}
    for gate in after.gates:
        if gate.verdict != "Pending" and verdicts.get(gate.name) != (gate.verdict, gate.look):
            kind = _level(gate.verdict == "Passed")
            told.append(Event(kind, f"Gate{gate.verdict}", f"{gate.name}: {gate.message}"))
    return (
        *told,
        *_alarms(before, after),
        *_choice_events(before, after),
        *_channel_events(before, after),
        *_condition_events(before, after),
    )


def _alarms(before: PipelineStatus, after: PipelineStatus) -> list[Event]:
    """One for each alarm of a diagnostic; the same alarm about the same checkpoint is not told again."""
    known = {(item.name, item.subject, item.evidence_digest) for item in before.diagnostics if item.state == "Alarm"}
    return [
        Event("Warning", "DiagnosticAlarm", f"{item.subject}: {item.name}: {item.message}".removesuffix(": "))
        for item in after.diagnostics
        if item.state == "Alarm" and (item.name, item.subject, item.evidence_digest) not in known
    ]


def _level(is_good: bool) -> Literal["Normal", "Warning"]:
    return "Normal" if is_good else "Warning"


def _condition_events(before: PipelineStatus, after: PipelineStatus) -> list[Event]:
    told = []
    for name in (c.PROMOTED, c.STALLED):
        old, new = c.find(before.conditions, name), c.find(after.conditions, name)
        if new is not None and new.status == "True" and (old is None or old.status != "True"):
            told.append(Event(_level(name == c.PROMOTED), new.reason, new.message or new.reason))
    return told + _turns(before, after)


def _choice_events(before: PipelineStatus, after: PipelineStatus) -> list[Event]:
    """A candidate that is out, and the choice between the others."""
    known = {row.name: row.state for row in before.candidates}
    told = [
        Event("Warning", "CandidateFailed", f"{row.name}: {row.message}")
        for row in after.candidates
        if row.state == "Failed" and known.get(row.name) != "Failed"
    ]
    if after.nomination is not None and after.nomination != before.nomination:
        told.append(Event("Normal", "Nominated", after.nomination.message))
    return told


def _channel_events(before: PipelineStatus, after: PipelineStatus) -> list[Event]:
    """Every record of a channel that came into sight after the first look at it."""
    known = {item.name: item.record for item in before.channels}
    return [
        Event("Normal", "ChannelMoved", f"{item.name}: record {item.record} is {item.digest}{_by(item.kind, item.by)}")
        for item in after.channels
        if item.digest is not None and item.record > known.get(item.name, item.record)
    ]


def _by(kind: str | None, who: str | None) -> str:
    return f" ({kind}{f' by {who}' if who else ''})" if kind else ""


def _turns(before: PipelineStatus, after: PipelineStatus) -> list[Event]:
    """Turns of the promotion that no condition's status shows, and the end of a rollback."""
    told = []
    old, new = c.find(before.conditions, c.PROMOTED), c.find(after.conditions, c.PROMOTED)
    if new is not None and new.reason in _TURNS and (old is None or old.reason != new.reason):
        told.append(Event(_level(new.reason in _WAITS), new.reason, new.message))
    old, new = c.find(before.conditions, c.ROLLED_BACK), c.find(after.conditions, c.ROLLED_BACK)
    if new is not None and (old is None or (old.reason, old.message) != (new.reason, new.message)):
        told.append(Event(_level(new.status != "False"), new.reason, new.message))
    return told
