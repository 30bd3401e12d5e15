"""What a queue (Kueue) does with an attempt: it holds it back, takes its pods away and gives them back. Pure.

Kueue suspends a Job or PyTorchJob when it is made, resumes it when there is quota, and suspends it again to preempt it.
The same attempt then goes on from what it saved: that is counted, and costs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from bessemer_api.v1alpha1.evaluation import Attempt
from bessemer_operator.core.naming import LABEL_QUEUE
from bessemer_operator.core.plan import Manifest
from bessemer_operator.core.podreport import job_conditions
from bessemer_operator.core.profile import Profile

POLL_QUEUE = timedelta(seconds=15)
"""Workloads are not watched: they only explain why nothing happens."""
QUIET = timedelta(seconds=10)
"""Kueue makes the Workload of a job within a second."""


@dataclass(frozen=True, slots=True)
class Held:
    """Why an attempt is held back; `is_stuck`: somebody has to do something about it."""

    reason: str
    message: str
    is_stuck: bool = False


def is_held(job: Manifest) -> bool:
    """Whether a queue holds a Job or PyTorchJob back, by the condition that its controller wrote."""
    return bool(_suspended(job).get("status") == "True")


def was_suspended(job: Manifest, pods: Iterable[Manifest]) -> bool:
    """A queue suspends it now, or one of its pods is older than the last resume.

    Every job that a queue ever admitted carries the condition Suspended=False: that alone says nothing.
    """
    if is_held(job):
        return True
    resumed = _suspended(job).get("lastTransitionTime", "")
    return any(pod["metadata"].get("creationTimestamp", resumed) < resumed for pod in pods)


def count_preemption(item: Attempt, job: Manifest) -> Attempt:
    """The attempt with since when its queue lets it run, and one preemption more if that is no longer what it was.

    By the time of its start, which changes with every resume: also one that was over before anybody looked counts.
    """
    if not _suspended(job):
        return item
    since = "" if is_held(job) else (job.get("status") or {}).get("startTime", "")
    known = item.model_copy(update={"admitted_at": since})
    return once_more(known) if item.admitted_at and item.admitted_at != since else known


def once_more(item: Attempt) -> Attempt:
    """With one preemption more."""
    return item.model_copy(update={"preemptions": (item.preemptions or 0) + 1})


def preemptions_of(item: Attempt) -> int:
    """How often it was preempted, the one that ended it included."""
    return max(item.preemptions or 0, int(item.reason == "Preempted"))


def explain_queue(job: Manifest, workload: Manifest | None, profile: Profile, now: datetime) -> Held:
    """Why an attempt is held back, by the Workload that Kueue made of it; None: there is none."""
    if workload is None:
        return _without_workload(job, profile, now)
    found = {item["type"]: item for item in (workload.get("status") or {}).get("conditions") or []}
    reserved = found.get("QuotaReserved", {})
    said = reserved.get("message") or "it has not said why"
    if reserved.get("status") == "True":
        return Held("Queued", f"its quota is reserved: {found.get('Admitted', {}).get('message') or 'it starts soon'}")
    if reserved.get("reason") != "Inadmissible":
        return Held("Queued", f"waits in queue {_queue(job)}: {said}")
    advice = "Make that queue, or name another in the profile and delete this attempt's object: the next one gets it"
    return Held("QueueUnusable", f"Kueue can not admit it: {said}. {advice}", is_stuck=True)


def _without_workload(job: Manifest, profile: Profile, now: datetime) -> Held:
    created = job["metadata"].get("creationTimestamp", "")
    if created and now - datetime.fromisoformat(created) < QUIET:
        return Held("Queued", f"waits for queue {_queue(job)}")
    if profile.priority_class:
        cause = f"It makes none while PriorityClass {profile.priority_class} does not exist: make it, or correct the"
        cause += " profile and delete this attempt's object"
    else:
        cause = "See whether it runs, and its log"
    return Held("NotQueued", f"Kueue has made no Workload of it since {created}. {cause}", is_stuck=True)


def _queue(job: Manifest) -> str:
    return str((job["metadata"].get("labels") or {}).get(LABEL_QUEUE, ""))


def _suspended(job: Manifest) -> Manifest:
    return next((item for item in job_conditions(job) if item.get("type") == "Suspended"), {})
