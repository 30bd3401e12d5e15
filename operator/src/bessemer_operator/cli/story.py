"""A pipeline's status in words: how it ended, and what is new since it was last looked at. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from bessemer_api.v1alpha1.pipeline import (
    AdaptationPipeline,
    GateSummary,
    PipelineStatus,
    StageSummary,
)
from bessemer_operator.cli.problems import (
    EXIT_GATE,
    EXIT_INTERRUPTED,
    EXIT_INVALID,
    EXIT_OK,
    EXIT_STAGE,
    EXIT_WAITING,
    printable,
)
from bessemer_operator.core import conditions as c

REPORTED_PERCENT = 10
"""A running stage is told of again after this much progress."""

_CODES = {
    **dict.fromkeys(("InvalidSpec", "InvalidAnnotation"), EXIT_INVALID),
    **dict.fromkeys(("GateFailed", "GateInconclusive", "GateInvalid", "Held"), EXIT_GATE),
    **dict.fromkeys(("Rejected", "ApprovalTimedOut", "LeftBefore", "EvidenceMissing"), EXIT_GATE),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pipeline stands: exit code and one sentence."""

    code: int
    sentence: str


def outcome(pipeline: AdaptationPipeline) -> Outcome:
    """How the declared generation ended; EXIT_INTERRUPTED while it has not."""
    status = pipeline.status
    stalled = c.find(status.conditions, c.STALLED)
    if status.observed_generation != pipeline.metadata.generation:
        return Outcome(EXIT_INTERRUPTED, "Not looked at yet.")
    if stalled is not None and stalled.status == "True":
        return Outcome(_CODES.get(stalled.reason, EXIT_STAGE), f"{stalled.reason}: {printable(stalled.message)}")
    if _holds(status, c.SUSPENDED):
        return Outcome(EXIT_INTERRUPTED, "Suspended; `bessemer resume` goes on.")
    ready = c.find(status.conditions, c.READY)
    if ready is not None and ready.reason in {"WaitingForApproval", "Soaking", "WaitingForMerge"}:
        return Outcome(EXIT_WAITING, f"{ready.reason}: {printable(ready.message)}")
    if not _holds(status, c.READY):
        return Outcome(EXIT_INTERRUPTED, "Not finished; the same command goes on from here.")
    return Outcome(EXIT_OK, _success(pipeline))


def _holds(status: PipelineStatus, kind: str) -> bool:
    condition = c.find(status.conditions, kind)
    return condition is not None and condition.status == "True"


def _success(pipeline: AdaptationPipeline) -> str:
    promotion = pipeline.spec.promotion
    if promotion is None:
        return "Everything that was declared is done."
    names = [channel.name for channel in promotion.channels]
    found = [item for name in names for item in pipeline.status.channels if item.name == name and item.digest]
    if not found:
        return "Everything that was declared is done."
    promoted = c.find(pipeline.status.conditions, c.PROMOTED)
    how = ", by override" if promoted is not None and promoted.reason == "PromotedByOverride" else ""
    return " ".join(f"Channel {item.name} holds {item.digest} (record {item.record}{how})." for item in found)


def summary(pipeline: AdaptationPipeline) -> list[str]:
    """The last lines of a run: verdicts, how it ended, where the report is."""
    lines = [gate_line(gate) for gate in pipeline.status.gates]
    lines.append(outcome(pipeline).sentence)
    if pipeline.status.report:
        lines.append(printable(f"Report: {pipeline.status.report}"))
    return lines


def gate_line(gate: GateSummary) -> str:
    """One line about a gate."""
    look = f" at look {gate.look}" if gate.look else ""
    return f"Gate {gate.name}: {gate.verdict}{look}. {printable(gate.message)}".rstrip()


def news(before: PipelineStatus | None, after: PipelineStatus, losses: dict[str, float] | None = None) -> list[str]:
    """Lines about what changed, for output that is not a terminal. `losses`: newest loss by stage."""
    old = {row.name: row for row in before.stages} if before else {}
    lines = [_row_line(row, losses or {}) for row in after.stages if _is_news(old.get(row.name), row)]
    known = {(gate.name, gate.verdict, gate.look) for gate in before.gates} if before else set()
    lines += [
        gate_line(g)
        for g in after.gates
        if (g.name, g.verdict, g.look) not in known and (g.look or g.reason != "Waiting")
    ]
    return lines + _choice_news(before, after) + _channel_news(before, after)


def _is_news(old: StageSummary | None, new: StageSummary) -> bool:
    if old is None or old.phase != new.phase or old.attempt != new.attempt:
        return new.phase != "Pending" or bool(new.message)
    is_further = new.progress_percentage // REPORTED_PERCENT > old.progress_percentage // REPORTED_PERCENT
    return (is_further and new.phase == "Running") or (new.message != old.message and bool(new.message))


def _row_line(row: StageSummary, losses: dict[str, float]) -> str:
    return printable(f"{row.name}: {', '.join(row_words(row, losses.get(row.name)))}")


def row_words(row: StageSummary, loss: float | None = None) -> list[str]:
    """What there is to say about a stage beside its name and method."""
    words = ["reused" if row.reused else row.phase.lower()]
    if row.phase == "Running":
        words.append(f"{row.progress_percentage} %")
        if row.estimated_remaining_seconds is not None:
            words.append(f"{span(row.estimated_remaining_seconds)} left")
        if loss is not None:
            words.append(f"loss {loss:.3f}")
    if row.attempt > 1:
        words.append(f"attempt {row.attempt}")
    return [*words, *([printable(row.message)] if row.message else [])]


def _choice_news(before: PipelineStatus | None, after: PipelineStatus) -> list[str]:
    """Which of several candidates was chosen, and which can not be."""
    known = {row.name: row.state for row in before.candidates} if before else {}
    lines = [
        printable(f"Candidate {row.name}: out, {row.message}")
        for row in after.candidates
        if row.state == "Failed" and known.get(row.name) != "Failed"
    ]
    if after.nomination is not None and (before is None or before.nomination != after.nomination):
        lines.append(printable(f"Nominee: {after.nomination.message}"))
    return lines


def _channel_news(before: PipelineStatus | None, after: PipelineStatus) -> list[str]:
    old = {item.name: item.record for item in before.channels} if before else {}
    return [
        f"Channel {item.name}: record {item.record} is {item.digest}"
        for item in after.channels
        if item.digest is not None and item.record != old.get(item.name, 0)
    ]


def span(seconds: int) -> str:
    """A duration as people say it: 45s, 12m, 3h 5m, 2d 4h."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if seconds < 60:
        return f"{seconds}s"
    if minutes < 60:
        return f"{minutes}m {seconds % 60}s" if minutes < 5 else f"{minutes}m"
    return f"{hours}h {minutes % 60}m" if hours < 24 else f"{days}d {hours % 24}h"


def newest_losses(stages: Iterable[tuple[str, dict[str, float]]]) -> dict[str, float]:
    """Loss by stage, from the metrics of running attempts."""
    return {name: metrics["loss"] for name, metrics in stages if "loss" in metrics}
