"""How a promotion stands: what stops it, what it waits for, which channels hold what. Words alone; decides nothing."""

from datetime import datetime

from bessemer_api.base import Condition
from bessemer_api.job import ChannelHead
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, ChannelSummary, GateSummary
from bessemer_api.v1alpha1.promotion import CandidateSummary, NominationSummary, RollbackSummary
from bessemer_operator.core import conditions as c
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.conditions import timestamp
from bessemer_operator.core.merging import merge_words
from bessemer_operator.core.naming import ANNOTATION_REFRESH
from bessemer_operator.core.rollback import rollback_summary, rollback_words
from bessemer_operator.core.view import MAX_MOVES, Scene, Step, View

GATE_WORDS = {
    "Failed": "GateFailed",
    "Inconclusive": "GateInconclusive",
    "Invalid": "GateInvalid",
    "Error": "GateError",
}


def promotion_problem(view: View) -> tuple[str, str] | None:
    """Reason and message of what keeps the candidate out of a channel, or a rollback from being done, for good."""
    if view.rollback is not None and view.rollback.phase == "Failed":
        return "RollbackFailed", f"{view.rollback.reason}: {view.rollback.message}"
    release = view.release
    if release is None:
        return None
    if release.refused is not None:
        return release.refused
    state = release.last.state if release.last else None
    if state is not None and state.phase == "Failed":
        return "PromotionFailed", _failure(state)
    if view.baseline_moved:
        message = f"each of {MAX_MOVES} times that the gate had passed, the channel had moved on meanwhile; "
        return "BaselineMoved", f"{message}annotate {ANNOTATION_REFRESH} with a new word to try again"
    return None


def _failure(state: WorkState) -> str:
    return f"{state.reason}: {state.message}"


def is_decided_otherwise(view: View, summary: GateSummary) -> bool:
    """Whether a person decides, or has decided, about an inconclusive verdict: then the verdict stops nothing."""
    release = view.release
    if release is None or summary.verdict != "Inconclusive" or summary.candidate != release.candidate:
        return False
    return release.is_override or release.waits is not None or release.refused is not None


def is_promoted(view: View) -> bool:
    """Whether every channel holds the candidate of this generation."""
    return view.release is not None and view.release.is_done


def wait_of(view: View) -> tuple[str, str] | None:
    """Reason and message of a wait for a person or a time."""
    if view.undoing is not None and view.undoing.wait is not None:
        return merge_words(view.undoing.wait)
    return view.release.waits if view.release else None


def is_going_back(view: View) -> bool:
    """Whether a rollback is under way."""
    return view.rollback is not None and view.rollback.phase in {"Pending", "Running"}


def promoted_words(view: View, summary: GateSummary) -> tuple[str, str]:
    """Reason and message of the condition Promoted."""
    release = view.release
    last = release.last if release else None
    if release is not None and release.is_done and last is not None:
        if release.is_override:
            return "PromotedByOverride", f"record {last.record}, by {last.by or 'a person'}"
        return ("Promoted", f"record {last.record}") if last.state else ("AlreadyPromoted", "the channel holds it")
    problem = promotion_problem(view)
    if problem is not None and problem[0] not in {"PromotionFailed", "BaselineMoved"}:
        return problem
    if release is not None and release.waits is not None:
        return release.waits
    if last is not None and last.report is not None:
        return last.report.outcome, "the promotion was refused"
    if last is not None and last.state is not None:
        is_over = last.state.phase == "Failed"
        return ("PromotionFailed", _failure(last.state)) if is_over else ("Promoting", last.state.message)
    return GATE_WORDS.get(summary.verdict, "Waiting"), "" if summary.verdict == "Pending" else summary.message


def channel_summaries(
    pipeline: AdaptationPipeline, view: View, rollback: RollbackSummary | None
) -> list[ChannelSummary]:
    """What the channels hold, as far as it is known; while the world is read again, what was known stays in sight."""
    steps = {step.channel: step for step in view.release.steps} if view.release else {}
    before = {item.name: item for item in pipeline.status.channels}
    if not view.is_read and before:
        found = list(before.values())
    else:
        found = [_channel(name, head, steps.get(name)) for name, head in sorted(view.heads.items())]
    return [_after_rollback(item, rollback) for item in found]


def _channel(name: str, head: ChannelHead, step: Step | None) -> ChannelSummary:
    due = timestamp(step.due) if step is not None and step.due is not None else None
    report = step.report if step is not None and step.is_there else None
    if step is not None and report is not None and report.record >= head.record:
        previous = head.digest if head.digest != report.digest else head.previous
        return ChannelSummary(
            name=name,
            digest=report.digest,
            record=report.record,
            at=report.at,
            kind=step.kind,
            by=step.by,
            previous=previous,
            held=head.held or None,
            commit=report.commit,
            release=report.release,
        )
    return ChannelSummary(
        name=name,
        digest=head.digest,
        record=head.record,
        at=head.at,
        kind=head.kind,
        by=head.by,
        previous=head.previous,
        held=head.held or None,
        soaks_until=due,
        merge=step.merge if step is not None else None,
        commit=head.commit,
        release=head.release,
    )


def _after_rollback(item: ChannelSummary, rollback: RollbackSummary | None) -> ChannelSummary:
    """What a rollback of this pipeline made of it, until the channel has been read again."""
    if rollback is None or rollback.channel != item.name or rollback.record <= item.record:
        return item
    return ChannelSummary(
        name=item.name,
        digest=rollback.digest,
        record=rollback.record,
        at=rollback.at,
        kind="rollback",
        by=rollback.by,
        previous=rollback.left,
        held=[*(item.held or []), *([rollback.left] if rollback.left else [])][-8:] or None,
        commit=rollback.commit,
        release=rollback.release,
    )


def find_rollback(scene: Scene, view: View) -> RollbackSummary | None:
    """The last rollback."""
    return rollback_summary(scene.rollback, view.undoing, scene.pipeline.status.rollback)


def rollback_condition(view: View, summary: RollbackSummary | None, at: tuple[datetime, int]) -> list[Condition]:
    """The condition RolledBack; none while no rollback was ever asked for."""
    if summary is None:
        return []
    return [c.condition(c.ROLLED_BACK, *rollback_words(view.rollback, summary), at)]


def find_candidates(pipeline: AdaptationPipeline, view: View) -> list[CandidateSummary]:
    """The candidates with their dev figures; while the world is read again, those that were known."""
    if view.release is None or not view.release.choice.rows:
        return []
    return list(view.release.choice.rows) if view.is_read else list(pipeline.status.candidates)


def find_nomination(pipeline: AdaptationPipeline, view: View) -> NominationSummary | None:
    """The choice that was made; it is remembered until another is made."""
    if view.release is None or not view.release.choice.rows:
        return None
    return view.release.choice.nomination or pipeline.status.nomination
