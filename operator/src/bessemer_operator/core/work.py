"""The status of anything that runs as attempts, and the Plan that goes with it: of stages, merges and evaluations."""

from dataclasses import replace
from datetime import datetime, timedelta

from bessemer_api.base import Condition, Metadata
from bessemer_api.digest import input_digest
from bessemer_api.job import RunReport
from bessemer_api.v1alpha1.evaluation import EvaluationSpec, WorkStatus
from bessemer_api.v1alpha1.merge import MergeSpec
from bessemer_api.v1alpha1.stage import StageSpec
from bessemer_operator.core.attempts import Work, WorkState, abandoned, reconcile_attempts
from bessemer_operator.core.conditions import READY, RECONCILING, STALLED, condition, set_conditions
from bessemer_operator.core.plan import Event, Observed, Plan
from bessemer_operator.core.queueing import preemptions_of

MAX_ATTEMPTS_KEPT = 200
POLL_RIVALS = timedelta(seconds=30)


def reconcile_work(work: Work, metadata: Metadata, status: WorkStatus, seen: Observed, now: datetime) -> Plan:
    """The Plan of a stage, a merge or an evaluation; its result is immutable once written."""
    if status.phase == "Succeeded" and status.output_digest is not None:
        return Plan(status=status.wire(), delete=abandoned(status.attempts, seen.jobs))
    state = _after_rivals(reconcile_attempts(work, status.attempts, seen, now), seen)
    after = _status(state, metadata, status, seen, now)
    return Plan(
        status=after.wire(),
        create=state.create,
        annotate=state.annotate,
        delete=state.delete,
        events=_events(status, after),
        requeue=state.requeue,
    )


def _after_rivals(state: WorkState, seen: Observed) -> WorkState:
    """No attempt starts while another object does the same work: both would write to one run folder, and one of them
    in vain. When the other is done, its result is found by its digest.
    """
    if not state.create or not seen.rivals:
        return state
    more = f" and {len(seen.rivals) - 1} more" if len(seen.rivals) > 1 else ""
    message = f"waits for {seen.rivals[0]}{more}, with the same store and inputs; its result will be used"
    return replace(
        state,
        phase="Pending",
        reason="SameWorkRunning",
        message=message,
        attempts=state.attempts[:-1],
        create=(),
        requeue=POLL_RIVALS,
    )


def find_refusal(spec: StageSpec | MergeSpec | EvaluationSpec, seen: Observed) -> tuple[str, str] | None:
    """Reason and message why nothing can be done about a spec; None when it can."""
    actual = input_digest(spec.inputs)
    if actual != spec.input_digest:
        message = f"spec.inputDigest is {spec.input_digest}, but spec.inputs have the digest {actual}"
        return "DigestMismatch", message
    if spec.profile not in seen.profiles:
        known = ", ".join(sorted(seen.profiles)) or "none"
        return "UnknownProfile", f"spec.profile: there is no profile {spec.profile!r}; known profiles: {known}"
    return None


def stalled(metadata: Metadata, status: WorkStatus, reason: str, message: str, now: datetime) -> Plan:
    """A spec that can not be worked on: says so and does nothing else."""
    at = (now, metadata.generation)
    wanted = [
        condition(READY, False, reason, message, at),
        condition(RECONCILING, False, reason, "", at),
        condition(STALLED, True, reason, message, at),
    ]
    after = status.model_copy(
        update={
            "observed_generation": metadata.generation,
            "phase": "Failed",
            "conditions": set_conditions(status.conditions, wanted),
        }
    )
    return Plan(status=after.wire(), events=_events(status, after))


def _status(state: WorkState, metadata: Metadata, before: WorkStatus, seen: Observed, now: datetime) -> WorkStatus:
    newest = state.attempts[-1] if state.attempts else None
    progress = seen.progress.get(newest.name) if newest is not None and state.phase == "Running" else None
    return WorkStatus(
        observed_generation=metadata.generation,
        phase=state.phase,
        conditions=set_conditions(before.conditions, _conditions(state, (now, metadata.generation))),
        attempts=list(state.attempts[-MAX_ATTEMPTS_KEPT:]),
        preemptions=sum(preemptions_of(item) for item in state.attempts),
        output_digest=state.report.output_digest if state.report else None,
        metrics=_metrics(state.report) if state.report else {},
        reused=state.report.reused if state.report else False,
        progress=progress or (before.progress if state.phase == "Running" else None),
    )


def _metrics(report: RunReport) -> dict[str, float]:
    """What the pod reported, with its steps and trained tokens, where it counted them."""
    counted = {"steps": report.step, "tokens": report.tokens}
    return {name: float(value) for name, value in counted.items() if value is not None} | dict(report.metrics)


def _conditions(state: WorkState, at: tuple[datetime, int]) -> list[Condition]:
    is_done, is_stuck = state.phase == "Succeeded", state.phase == "Failed" or state.is_overdue
    is_busy = state.phase in {"Running", "Pending"} and not state.is_overdue
    return [
        condition(READY, is_done, state.reason, state.message, at),
        condition(RECONCILING, is_busy, state.reason, state.message, at),
        condition(STALLED, is_stuck, state.reason, state.message, at),
    ]


def _events(before: WorkStatus, after: WorkStatus) -> tuple[Event, ...]:
    """What changed, as a story: attempts that began or ended, and the end."""
    known = {item.number: item.outcome for item in before.attempts}
    taken = {item.number: preemptions_of(item) for item in before.attempts}
    told = [
        Event("Normal", "AttemptPreempted", f"attempt {item.number} ({item.name}): its queue took its pods; it waits")
        for item in after.attempts
        if item.outcome == "Running" and preemptions_of(item) > taken.get(item.number, 0)
    ]
    told += [
        Event(
            "Warning" if item.outcome == "Failed" else "Normal",
            f"Attempt{'Started' if item.outcome == 'Running' else item.outcome}",
            f"attempt {item.number} ({item.name}): {item.reason or 'started'} {item.message}".strip(),
        )
        for item in after.attempts
        if known.get(item.number) != item.outcome
    ]
    if after.phase != before.phase and after.phase == "Failed":
        told.append(Event("Warning", "Failed", after.conditions[0].message or after.conditions[0].reason))
    return tuple(told)
