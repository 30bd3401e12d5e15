"""An attempt under a queue: held back, let run, preempted, let run again; what is counted and what is said."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bessemer_api.job import EXIT_PREEMPTED
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core import stage
from bessemer_operator.core.naming import LABEL_QUEUE
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.profile import Profile
from tests.operator.core.test_attempts import scene

Obj = dict[str, Any]
START = datetime(2026, 1, 1, tzinfo=UTC)
PROFILE = Profile(image="trainer", cpu="1", memory="1Gi", queue="training")
WITH_PRIORITY = PROFILE.model_copy(update={"priority_class": "research"})


def at(seconds: int) -> str:
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Queued:
    """A stage with one attempt under a queue; the status of each look is what the next one begins with."""

    def __init__(self, profile: Profile = PROFILE) -> None:
        self.owner, self.job, self.pod = scene()
        self.profile = profile
        self.events: list[tuple[str, str]] = []
        self.job["metadata"] |= {"creationTimestamp": at(0)}
        self.job["metadata"]["labels"][LABEL_QUEUE] = "training"
        self.job["status"] = {"conditions": [{"type": "Created", "status": "True"}]}
        self.pods: list[Obj] = []

    def suspend(self, seconds: int) -> None:
        """As training-operator does it: the start of the last run stays there."""
        self._set("True", seconds)
        self.pods = []

    def resume(self, seconds: int) -> None:
        self._set("False", seconds)
        self.job["status"]["startTime"] = at(seconds)
        self.pod["metadata"]["creationTimestamp"] = at(seconds)
        self.pod["status"] = {"phase": "Running"}
        self.pods = [self.pod]

    def _set(self, status: str, seconds: int) -> None:
        conditions = [item for item in self.job["status"]["conditions"] if item["type"] != "Suspended"]
        conditions.append({"type": "Suspended", "status": status, "lastTransitionTime": at(seconds)})
        self.job["status"]["conditions"] = conditions

    def fail(self, seconds: int, code: int | None) -> None:
        conditions = self.job["status"]["conditions"]
        conditions.append({"type": "Failed", "status": "True", "lastTransitionTime": at(seconds)})
        ended = [{"state": {"terminated": {"exitCode": code}}}] if code is not None else []
        self.pod["status"] = {"phase": "Running" if code is None else "Failed", "containerStatuses": ended}

    def look(self, seconds: int, **workload: Obj | None) -> Plan:
        name = self.job["metadata"]["name"]
        seen = Observed(
            profiles={"default": self.profile},
            jobs=(self.job,),
            pods=tuple(self.pods),
            workloads={name: workload["workload"]} if workload else {},
        )
        found = stage.reconcile(TrainingStage.model_validate(self.owner), seen, START + timedelta(seconds=seconds))
        self.owner["status"] = found.status
        self.events += [(event.reason, event.message) for event in found.events]
        return found

    def said(self, kind: str = "Reconciling") -> tuple[str, str]:
        [found] = [item for item in self.owner["status"]["conditions"] if item["type"] == kind]
        return found["status"], found["reason"]

    @property
    def counts(self) -> tuple[int, list[tuple[str, int]]]:
        status = self.owner["status"]
        return status["preemptions"], [(item["outcome"], item.get("preemptions", 0)) for item in status["attempts"]]


def test_a_preemption_is_counted_when_its_queue_takes_the_pods_and_the_attempt_goes_on() -> None:
    queued = Queued()
    queued.suspend(0)
    queued.look(1)
    assert (queued.said(), queued.counts) == (("True", "Queued"), (0, [("Running", 0)]))
    queued.resume(5)
    queued.look(6)
    assert (queued.said(), queued.counts) == (("True", "Running"), (0, [("Running", 0)]))
    queued.suspend(60)
    queued.look(61)
    queued.look(62)
    assert (queued.said(), queued.counts) == (("True", "Queued"), (1, [("Running", 1)]))
    queued.resume(90)
    queued.look(91)
    queued.look(92)
    assert (queued.said(), queued.counts) == (("True", "Running"), (1, [("Running", 1)]))
    told = [message for reason, message in queued.events if reason == "AttemptPreempted"]
    assert len(told) == 1 and "its queue took its pods" in told[0]


def test_a_preemption_that_was_over_before_anybody_looked_is_counted() -> None:
    queued = Queued()
    queued.resume(5)
    queued.look(6)
    queued.suspend(60)
    queued.resume(61)
    queued.look(62)
    assert queued.counts == (1, [("Running", 1)])


@pytest.mark.parametrize("is_seen", [True, False], ids=["the suspension was seen", "it was not"])
@pytest.mark.parametrize("code", [None, EXIT_PREEMPTED, 137])
def test_a_job_that_failed_because_it_was_let_in_too_early_counts_one_preemption(
    *, is_seen: bool, code: int | None
) -> None:
    """training-operator takes a pod that still saves for a failed one, and says Failed at once."""
    queued = Queued()
    queued.resume(5)
    queued.look(6)
    queued.suspend(60)
    if is_seen:
        queued.look(60)
    queued.resume(61)
    queued.pod["metadata"]["creationTimestamp"] = at(5)
    queued.fail(61, code)
    found = queued.look(62)
    assert found.status["attempts"][0]["reason"] == "Preempted"
    assert found.status["preemptions"] == 1


def test_an_eviction_after_a_preemption_is_a_second_one() -> None:
    queued = Queued()
    queued.resume(5)
    queued.look(6)
    queued.suspend(60)
    queued.look(61)
    queued.resume(70)
    queued.look(71)
    queued.fail(80, EXIT_PREEMPTED)
    queued.look(81)
    assert queued.counts[0] == 2


def test_more_preemptions_than_allowed_end_the_work_and_each_counts() -> None:
    queued = Queued()
    queued.owner["spec"]["limits"]["maxPreemptions"] = 1
    for round_ in (0, 100):
        queued.resume(round_ + 5)
        queued.look(round_ + 6)
        queued.suspend(round_ + 60)
        queued.look(round_ + 61)
    queued.fail(200, 137)
    found = queued.look(201)
    assert (found.status["phase"], queued.said("Stalled")) == ("Failed", ("True", "TooManyPreemptions"))


def test_time_in_a_queue_does_not_count_towards_the_deadline_also_after_a_preemption() -> None:
    queued = Queued()
    queued.resume(5)
    queued.look(6)
    queued.suspend(60)
    found = queued.look(1_000_000)
    assert (found.status["attempts"][0]["outcome"], found.delete) == ("Running", ())


def workload(*conditions: Obj) -> Obj:
    return {"kind": "Workload", "status": {"conditions": list(conditions)}}


def reserved(status: str, reason: str, message: str) -> Obj:
    return {"type": "QuotaReserved", "status": status, "reason": reason, "message": message}


NO_ROOM = reserved("False", "Pending", "couldn't assign flavors to pod set master: insufficient unused quota")
NO_QUEUE = reserved("False", "Inadmissible", "LocalQueue training doesn't exist")
CHECKS = {"type": "Admitted", "status": "False", "message": "The workload has not all checks ready"}


@pytest.mark.parametrize(
    ("said", "profile", "later", "stuck", "reason", "words"),
    [
        (workload(NO_ROOM), PROFILE, 3600, "False", "Queued", "waits in queue training: couldn't assign flavors"),
        (workload(), PROFILE, 1, "False", "Queued", "it has not said why"),
        (workload(reserved("True", "QuotaReserved", ""), CHECKS), PROFILE, 1, "False", "Queued", "not all checks"),
        (workload(NO_QUEUE), PROFILE, 1, "True", "QueueUnusable", "LocalQueue training doesn't exist. Make that queue"),
        (None, WITH_PRIORITY, 1, "False", "Queued", "waits for queue training"),
        (None, WITH_PRIORITY, 60, "True", "NotQueued", "while PriorityClass research does not exist: make it"),
        (None, PROFILE, 60, "True", "NotQueued", "See whether it runs"),
    ],
)
def test_why_an_attempt_is_held_back_is_said(
    said: Obj | None, profile: Profile, later: int, stuck: str, reason: str, words: str
) -> None:
    queued = Queued(profile)
    queued.suspend(0)
    found = queued.look(later, workload=said)
    assert (queued.said("Stalled"), queued.owner["status"]["phase"]) == ((stuck, reason), "Running")
    assert words in queued.owner["status"]["conditions"][0]["message"]
    assert found.requeue is not None and found.requeue <= timedelta(seconds=30)
