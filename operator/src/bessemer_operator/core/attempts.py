"""Attempts: how a piece of work is tried until it is done, given up or suspended.

Stages, evaluations, merges and the pipeline's own Jobs all run as attempts, by this one function. An attempt is one
Job or PyTorchJob with its own name, created once. What happened is read from the Job's conditions (written by the
real controllers) and from the termination message of the one pod that reports.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from bessemer_api.job import EXIT_PERMANENT, EXIT_PREEMPTED, RunReport, RunSpec
from bessemer_api.v1alpha1.evaluation import Attempt, Phase
from bessemer_api.v1alpha1.train import Limits
from bessemer_operator.core.conditions import timestamp
from bessemer_operator.core.durations import parse_duration
from bessemer_operator.core.manifests.attempt import AttemptSpec, Owner, build_attempt
from bessemer_operator.core.naming import (
    ANNOTATION_REPORT,
    ANNOTATION_RETRY,
    LABEL_ATTEMPT,
    attempt_name,
    attempt_number,
)
from bessemer_operator.core.plan import Annotation, Manifest, Observed, Ref
from bessemer_operator.core.podreport import exit_codes, find_report, job_conditions, kept_report, pods_of, report_text
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.queueing import (
    POLL_QUEUE,
    count_preemption,
    explain_queue,
    is_held,
    once_more,
    preemptions_of,
    was_suspended,
)
from bessemer_operator.core.waiting import Wait, find_wait

BACKOFF = timedelta(seconds=10)
LONGEST_BACKOFF = timedelta(minutes=5)
POLL_PODS = timedelta(seconds=2)
LATE = "DeadlineExceeded"
"""Reason of an attempt that its deadline ended; its object is deleted, so somebody must remember it."""


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work. `run` is a template: attempt and runUid are filled in for each attempt."""

    owner: Owner
    base_name: str
    run: RunSpec
    profile: Profile
    limits: Limits
    nodes: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    retry: str = ""
    suspend: bool = False


@dataclass(frozen=True, slots=True)
class WorkState:
    """Where a piece of work is, and what shall be done about it."""

    phase: Phase
    reason: str
    message: str
    attempts: tuple[Attempt, ...]
    report: RunReport | None = None
    create: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()
    annotate: tuple[Annotation, ...] = ()
    requeue: timedelta | None = None
    is_overdue: bool = False
    """A pod waits for longer than its profile allows; the attempt goes on as soon as it can."""


def reconcile_attempts(work: Work, previous: Sequence[Attempt], seen: Observed, now: datetime) -> WorkState:
    """What is known about `work` after what was seen, and the next thing to do."""
    jobs = {job["metadata"]["name"]: job for job in seen.jobs if _is_attempt_of(job, work)}
    attempts = tuple(_judge(item, jobs.get(item.name), seen.pods, work, now) for item in _known(work, previous, jobs))
    state = _next(work, attempts, jobs, seen, now)
    return replace(state, delete=(*state.delete, *abandoned(state.attempts, jobs.values())))


def abandoned(attempts: Iterable[Attempt], jobs: Iterable[Manifest]) -> tuple[Ref, ...]:
    """Attempts that are counted as ended but still run: their deletion was lost, or is still to be asked for."""
    ended = {item.name for item in attempts if item.outcome in {"Failed", "Preempted"}}
    return tuple(
        _ref(job)
        for job in jobs
        if job["metadata"]["name"] in ended and job_outcome(job) == "Running" and not _is_ending(job)
    )


def _next(
    work: Work, attempts: tuple[Attempt, ...], jobs: Mapping[str, Manifest], seen: Observed, now: datetime
) -> WorkState:
    done = next((item for item in attempts if item.outcome == "Succeeded"), None)
    if done is not None:
        job = jobs.get(done.name)
        report = _report_of(work, done, job, seen.pods)
        if job is not None and report is not None:
            return WorkState("Succeeded", "Succeeded", "", attempts, report, annotate=_keep(job, report))
        attempts = tuple(_report_lost(item, timestamp(now)) if item is done else item for item in attempts)
    running = [item for item in attempts if item.outcome == "Running"]
    if running:
        return _while_running(work, attempts, running[-1], jobs[running[-1].name], seen, now)
    return _when_idle(work, attempts, seen, now)


def attempt_spec(work: Work, number: int) -> AttemptSpec:
    """The attempt with this number."""
    name = attempt_name(work.base_name, number)
    run = work.run.model_copy(update={"attempt": number, "run_uid": _run_uid(work, name)})
    return AttemptSpec(name, work.owner, run, work.profile, work.nodes, work.labels, work.retry)


def _run_uid(work: Work, name: str) -> str:
    return f"{work.owner.uid}/{name}"


def _is_attempt_of(job: Manifest, work: Work) -> bool:
    owners = job["metadata"].get("ownerReferences") or []
    is_ours = any(owner.get("uid") == work.owner.uid and owner.get("controller") for owner in owners)
    name = job["metadata"]["name"]
    return bool(is_ours) and name == attempt_name(work.base_name, attempt_number(name))


def _known(work: Work, previous: Sequence[Attempt], jobs: dict[str, Manifest]) -> list[Attempt]:
    """Attempts of the status and those that exist although the status does not know them yet (a crash between)."""
    known = {item.name: item for item in previous}
    for name, job in jobs.items():
        if name not in known:
            known[name] = Attempt(
                name=name,
                number=attempt_number(name),
                outcome="Running",
                retry=(job["metadata"].get("annotations") or {}).get(ANNOTATION_RETRY, ""),
                started_at=job["metadata"].get("creationTimestamp", ""),
            )
    return sorted(known.values(), key=lambda item: item.number)


def job_outcome(job: Manifest) -> Literal["Running", "Succeeded", "Failed"]:
    """Outcome of a Job or a PyTorchJob by the conditions that its real controller wrote."""
    held = {item["type"] for item in job_conditions(job) if item.get("status") == "True"}
    if "Failed" in held:
        return "Failed"
    return "Succeeded" if held & {"Complete", "Succeeded"} else "Running"


def _judge(item: Attempt, job: Manifest | None, pods: Iterable[Manifest], work: Work, now: datetime) -> Attempt:
    if item.outcome != "Running":
        return item
    if job is None:
        gone = "the attempt's object is gone"
        return _ended(item, timestamp(now), outcome="Preempted", reason="Deleted", message=gone)
    item, outcome = count_preemption(item, job), job_outcome(job)
    if outcome == "Running":
        return item
    at = _finished_at(job, now)
    mine = pods_of(job, pods)
    codes = [code for pod in mine for code in exit_codes(pod)]
    report = _report_of(work, item, job, mine)
    if _was_preempted(job, mine, report, outcome):
        return _preempted(item, job, mine, at)
    if outcome == "Succeeded" and report is not None and report.error is None:
        return _ended(item, at, outcome="Succeeded", reason="Succeeded", exit_code=0)
    if not codes:
        return _pods_gone(item, job, outcome, at)
    return _failed(item, codes, report, at)


def _preempted(item: Attempt, job: Manifest, pods: list[Manifest], at: str) -> Attempt:
    """Where its queue took its pods before, this end is one more, unless it is that preemption which ended it."""
    counted = once_more(item) if item.preemptions and not was_suspended(job, pods) else item
    return _ended(counted, at, outcome="Preempted", reason="Preempted", exit_code=EXIT_PREEMPTED)


def _ended(item: Attempt, at: str, **changes: object) -> Attempt:
    return item.model_copy(update={"finished_at": at, **changes})


def _final_condition(job: Manifest) -> Manifest:
    """The condition by which the controller said that it ended, so that the answer is the same at every reconcile."""
    conditions = job_conditions(job)
    final = (item for item in conditions if item.get("type") in {"Failed", "Complete", "Succeeded"})
    return next((item for item in final if item.get("status") == "True"), {})


def _finished_at(job: Manifest, now: datetime) -> str:
    return str(_final_condition(job).get("lastTransitionTime") or timestamp(now))


def _pods_gone(item: Attempt, job: Manifest, outcome: str, at: str) -> Attempt:
    """It is over, but no pod is left that could say how: the pods were deleted, by whomever."""
    if outcome == "Succeeded":
        return _report_lost(item, at)
    final = _final_condition(job)
    said = f"{final.get('reason', '')}: {final.get('message', '')}"
    message = f"its pods are gone without an exit code; {said}"[:1024]
    return _ended(item, at, outcome="Preempted", reason="Preempted", message=message)


def _report_lost(item: Attempt, at: str) -> Attempt:
    return _ended(item, at, outcome="Preempted", reason="ReportLost", message="its pod is gone; it is run again")


def _failed(item: Attempt, codes: list[int], report: RunReport | None, at: str) -> Attempt:
    code = EXIT_PERMANENT if EXIT_PERMANENT in codes else next((code for code in codes if code), 0)
    if report is not None and report.error is not None:
        reason, message = report.error.reason, report.error.message
    elif code == 0:
        reason, message = "ReportMissing", "the pod ended without a report"
    else:
        reason, message = "Crashed", f"a container exited with code {code} and left no report; see its log"
    return _ended(item, at, outcome="Failed", reason=reason, message=message, exit_code=code)


def _was_preempted(job: Manifest, pods: list[Manifest], report: RunReport | None, outcome: str) -> bool:
    """Told to stop, or evicted, or suspended by a queue: not the work's own fault.

    Exit code 143 says so whatever else is known: under Kueue a re-admitted job can meet pods that still end, and then
    says Failed, or (pods that saved and exited 0) Succeeded. An evicted member of a gang breaks the others, who report
    that as an error of theirs; a queue takes all of them, so there an error that a pod reports is its own.
    """
    codes = [code for pod in pods for code in exit_codes(pod)]
    if EXIT_PERMANENT in codes or EXIT_PREEMPTED in codes:
        return EXIT_PERMANENT not in codes
    if outcome != "Failed":
        return False
    has_said_why = report is not None and report.error is not None
    is_disrupted = any(_has_condition(pod, "DisruptionTarget") for pod in pods)
    return is_disrupted or (not has_said_why and was_suspended(job, pods))


def _has_condition(pod: Manifest, kind: str) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(item.get("type") == kind and item.get("status") == "True" for item in conditions)


def _report_of(work: Work, item: Attempt, job: Manifest | None, pods: Iterable[Manifest]) -> RunReport | None:
    return find_report((_run_uid(work, item.name), work.run.input_digest), job, pods) if job is not None else None


def _keep(job: Manifest, report: RunReport) -> tuple[Annotation, ...]:
    """The report goes with its pod, so it is written down where only the operator writes, once."""
    if kept_report(job):
        return ()
    return ((_ref(job), {ANNOTATION_REPORT: report_text(report)}),)


def _ref(job: Manifest) -> Ref:
    metadata = job["metadata"]
    return Ref(job["kind"], metadata["namespace"], metadata["name"], metadata.get("uid", ""))


def _is_ending(job: Manifest) -> bool:
    return bool(job["metadata"].get("deletionTimestamp"))


def _while_running(
    work: Work, attempts: tuple[Attempt, ...], item: Attempt, job: Manifest, seen: Observed, now: datetime
) -> WorkState:
    if work.suspend:
        delete = () if _is_ending(job) else (_ref(job),)
        return WorkState("Suspended", "Suspending", "the running attempt saves and ends", attempts, delete=delete)
    left = _time_left(job, work.limits, now)
    if left <= timedelta(0):
        late = _ended(item, timestamp(now), outcome="Failed", reason=LATE, message="ran longer than its deadline")
        after = tuple(late if known is item else known for known in attempts)
        return WorkState("Running", LATE, late.message, after, requeue=POLL_PODS)
    if is_held(job):
        return _while_held(work, attempts, job, seen, now)
    wait = find_wait(pods_of(job, seen.pods))
    if wait is not None:
        return _while_waiting(work, attempts, wait, left, now)
    return WorkState("Running", "Running", "", attempts, requeue=left)


def _while_held(work: Work, attempts: tuple[Attempt, ...], job: Manifest, seen: Observed, now: datetime) -> WorkState:
    """Its queue decides when it runs, and may say why not yet."""
    name = job["metadata"]["name"]
    if name not in seen.workloads:
        return WorkState("Running", "Queued", "its queue holds it back", attempts, requeue=POLL_QUEUE)
    held = explain_queue(job, seen.workloads[name], work.profile, now)
    return WorkState("Running", held.reason, held.message, attempts, requeue=POLL_QUEUE, is_overdue=held.is_stuck)


def _time_left(job: Manifest, limits: Limits, now: datetime) -> timedelta:
    """Counted from when its controller started it: waiting in a queue costs nothing, also after a preemption."""
    begun = None if is_held(job) else job.get("status", {}).get("startTime")
    started = datetime.fromisoformat(begun) if begun else now
    return started + parse_duration(limits.deadline) - now


def _while_waiting(work: Work, attempts: tuple[Attempt, ...], wait: Wait, left: timedelta, now: datetime) -> WorkState:
    """A pod waits: worth a word at first, and a problem once it is longer than the profile's administrator expects."""
    patience = work.profile.pending_deadline
    due = datetime.fromisoformat(wait.since) + parse_duration(patience) if wait.since else now + left
    if now < due:
        told = f"{wait.reason}: {wait.message}"
        return WorkState("Running", "Waiting", told, attempts, requeue=min(left, due - now))
    told = f"{wait.message}; it waits since {wait.since}, longer than the pendingDeadline of its profile ({patience})"
    return WorkState("Running", wait.reason, told, attempts, requeue=left, is_overdue=True)


def _when_idle(work: Work, attempts: tuple[Attempt, ...], seen: Observed, now: datetime) -> WorkState:
    counted = [item for item in attempts if item.retry == work.retry]
    failed = [item for item in counted if item.outcome == "Failed"]
    preempted = [item for item in counted if preemptions_of(item)]
    preemptions = sum(preemptions_of(item) for item in preempted)
    if failed and failed[-1].exit_code == EXIT_PERMANENT:
        return WorkState("Failed", failed[-1].reason, failed[-1].message, attempts)
    if len(failed) >= work.limits.max_attempts:
        message = f"{len(failed)} attempts failed; the last: {failed[-1].message}"
        return WorkState("Failed", failed[-1].reason, message, attempts)
    if preemptions > work.limits.max_preemptions:
        message = f"preempted {preemptions} times; the last: {preempted[-1].message or preempted[-1].reason}"
        return WorkState("Failed", "TooManyPreemptions", message, attempts)
    if work.suspend:
        return WorkState("Suspended", "Suspended", "suspended", attempts)
    wait = _wait(work, [item for item in counted if _is_trouble(item)], seen, now)
    if wait is not None:
        return WorkState("Pending", "BackingOff", "waits before the next attempt", attempts, requeue=wait)
    number = max((item.number for item in attempts), default=0) + 1
    return _start(work, attempts, number, now)


def _is_trouble(item: Attempt) -> bool:
    """It failed, or ended as if by accident; a preemption that says so, or our own suspension, is none."""
    is_accident = item.outcome == "Preempted" and item.exit_code is None and item.reason != "Deleted"
    return item.outcome == "Failed" or is_accident


def _wait(work: Work, troubled: list[Attempt], seen: Observed, now: datetime) -> timedelta | None:
    """Until pods of an ended attempt are gone; after the second trouble also a growing pause."""
    if any(_is_alive(pod) for pod in seen.pods if _belongs(pod, work)):
        return POLL_PODS
    if len(troubled) < 2 or not troubled[-1].finished_at:
        return None
    pause = min(BACKOFF * 2 ** min(len(troubled) - 2, 10), LONGEST_BACKOFF)
    left = datetime.fromisoformat(troubled[-1].finished_at) + pause - now
    return left if left > timedelta(0) else None


def _belongs(pod: Manifest, work: Work) -> bool:
    name: str = pod["metadata"].get("labels", {}).get(LABEL_ATTEMPT, "")
    return name == attempt_name(work.base_name, attempt_number(name))


def _is_alive(pod: Manifest) -> bool:
    phase: str = pod.get("status", {}).get("phase", "Pending")
    return phase in {"Pending", "Running"}


def _start(work: Work, attempts: tuple[Attempt, ...], number: int, now: datetime) -> WorkState:
    spec = attempt_spec(work, number)
    begun = Attempt(name=spec.name, number=number, outcome="Running", retry=work.retry, started_at=timestamp(now))
    state = WorkState("Running", "Running", "", (*attempts, begun))
    return replace(state, create=build_attempt(spec), requeue=parse_duration(work.limits.deadline))
