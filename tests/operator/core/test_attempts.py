"""How an attempt that ended is judged: from its job's conditions, its pods, and the report that was kept of it."""

import copy
from datetime import datetime, timedelta
from typing import Any

import pytest

from bessemer_api.job import EXIT_PERMANENT, EXIT_PREEMPTED, RunError, RunReport
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core import stage
from bessemer_operator.core.naming import ANNOTATION_REPORT
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.podreport import kept_report, parse_report, report_text
from bessemer_operator.core.profile import Profile
from tests.operator.core.golden import FOLDER, load

Obj = dict[str, Any]
CREATED, RESUMED, BEFORE = "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2025-12-31T23:00:00Z"
SUSPENDED = {"type": "Suspended", "status": "True", "lastTransitionTime": BEFORE}
ADMITTED = {"type": "Suspended", "status": "False", "lastTransitionTime": RESUMED}
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
PREEMPTED = ("Preempted", "Preempted")
DIGEST = "sha256:" + "e" * 64


def scene(case: str = "training_stage_crashed") -> tuple[Obj, Obj, Obj]:
    """A stage whose first attempt has just ended: the stage, its job and its pod."""
    seen = copy.deepcopy(load(FOLDER / case / "in.yaml"))
    return seen["object"], seen["jobs"][0], seen["pods"][0]


def report(owner: Obj, job: Obj, **more: Any) -> RunReport:
    return RunReport(
        run_uid=f"{owner['metadata']['uid']}/{job['metadata']['name']}",
        verb="stage",
        input_digest=owner["spec"]["inputDigest"],
        **more,
    )


def plan(owner: Obj, jobs: list[Obj], pods: list[Obj], later: timedelta = timedelta(0)) -> Plan:
    now = datetime.fromisoformat("2026-01-01T00:00:00+00:00") + later
    profiles = {"default": Profile(image="trainer", cpu="1", memory="1Gi")}
    observed = Observed(profiles=profiles, jobs=tuple(jobs), pods=tuple(pods))
    return stage.reconcile(TrainingStage.model_validate(owner), observed, now)


def first(found: Plan) -> tuple[str, str]:
    attempt = found.status["attempts"][0]
    return attempt["outcome"], attempt["reason"]


@pytest.mark.parametrize(
    ("code", "error", "condition", "created", "pod_condition", "expected"),
    [
        pytest.param(1, "", None, CREATED, None, ("Failed", "Crashed"), id="a crash without a queue"),
        pytest.param(1, "", ADMITTED, CREATED, None, ("Failed", "Crashed"), id="a crash of a job that a queue let in"),
        pytest.param(1, "OutOfMemory", ADMITTED, CREATED, None, ("Failed", "OutOfMemory"), id="an error under a queue"),
        pytest.param(75, "StoreDown", SUSPENDED, CREATED, None, ("Failed", "StoreDown"), id="an error as it suspends"),
        pytest.param(137, "", SUSPENDED, CREATED, None, PREEMPTED, id="killed by a queue that suspends"),
        pytest.param(137, "", ADMITTED, BEFORE, None, PREEMPTED, id="a pod from before the queue let it in again"),
        pytest.param(EXIT_PREEMPTED, "", ADMITTED, CREATED, None, PREEMPTED, id="it saved and stopped"),
        pytest.param(137, "", None, CREATED, DISRUPTED, PREEMPTED, id="evicted"),
        pytest.param(1, "Crashed", None, CREATED, DISRUPTED, PREEMPTED, id="an echo of an eviction"),
        pytest.param(
            EXIT_PERMANENT, "BadData", SUSPENDED, CREATED, DISRUPTED, ("Failed", "BadData"), id="bad data stays bad"
        ),
    ],
)
def test_whose_fault_an_end_was(
    code: int, error: str, condition: Obj | None, created: str, pod_condition: Obj | None, expected: tuple[str, str]
) -> None:
    owner, job, pod = scene()
    said = report_text(report(owner, job, error=RunError(reason=error, message="m"))) if error else ""
    job["status"]["conditions"] += [condition] if condition else []
    pod["metadata"]["creationTimestamp"] = created
    pod["status"]["containerStatuses"][0]["state"]["terminated"] = {"exitCode": code, "message": said}
    pod["status"]["conditions"] = [pod_condition] if pod_condition else []
    assert first(plan(owner, [job], [pod])) == expected


def succeeded(owner: Obj, job: Obj, pod: Obj) -> str:
    job["status"]["conditions"] = [{"type": "Succeeded", "status": "True", "lastTransitionTime": CREATED}]
    said = report_text(report(owner, job, output_digest=DIGEST, metrics={"loss": 2.5}))
    pod["status"]["containerStatuses"][0]["state"]["terminated"] = {"exitCode": 0, "message": said}
    return said


def test_the_report_of_a_success_is_kept_before_the_status_says_so() -> None:
    owner, job, pod = scene()
    said = succeeded(owner, job, pod)
    found = plan(owner, [job], [pod])
    [(ref, annotations)] = found.annotate
    assert (ref.kind, ref.name, ref.uid) == ("PyTorchJob", job["metadata"]["name"], job["metadata"]["uid"])
    assert annotations == {ANNOTATION_REPORT: said}
    assert parse_report(said) == report(owner, job, output_digest=DIGEST, metrics={"loss": 2.5})


def test_a_report_that_was_kept_counts_without_a_pod_and_is_not_kept_again() -> None:
    owner, job, pod = scene()
    job["metadata"]["annotations"][ANNOTATION_REPORT] = succeeded(owner, job, pod)
    found = plan(owner, [job], [])
    assert (found.status["phase"], found.status["outputDigest"], found.annotate) == ("Succeeded", DIGEST, ())


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param({"run_uid": "another/run"}, id="of another run"),
        pytest.param({"input_digest": "sha256:" + "0" * 64}, id="of other work"),
        pytest.param(None, id="that is no report"),
    ],
)
def test_an_annotation_is_not_believed_when_it_is_a_report(forged: dict[str, str] | None) -> None:
    owner, job, pod = scene()
    succeeded(owner, job, pod)
    wrong = report(owner, job, output_digest=DIGEST).model_copy(update=forged or {})
    job["metadata"]["annotations"][ANNOTATION_REPORT] = report_text(wrong) if forged else "{"
    assert kept_report(job)
    assert first(plan(owner, [job], [])) == ("Preempted", "ReportLost")


LATE = timedelta(hours=49)


def running() -> tuple[Obj, Obj, Obj]:
    owner, job, pod = scene()
    job["status"] = {"startTime": CREATED}
    pod["status"] = {"phase": "Running"}
    return owner, job, pod


@pytest.mark.parametrize(
    ("outcome", "phase"),
    [("Failed", "Running"), ("Failed", "Failed"), ("Preempted", "Pending"), ("Failed", "Suspended")],
)
def test_an_attempt_that_is_counted_as_ended_and_runs_on_is_deleted_in_every_state(outcome: str, phase: str) -> None:
    owner, job, pod = running()
    owner["status"]["phase"] = phase
    owner["spec"]["suspend"] = phase == "Suspended"
    owner["spec"]["limits"]["maxAttempts"] = 1 if phase == "Failed" else 3
    owner["status"]["attempts"][0] |= {"outcome": outcome, "reason": "DeadlineExceeded", "finishedAt": CREATED}
    found = plan(owner, [job], [pod])
    assert [(ref.name, ref.uid) for ref in found.delete] == [(job["metadata"]["name"], job["metadata"]["uid"])]
    assert found.create == ()


def test_also_after_the_work_was_done_by_another_attempt() -> None:
    owner, job, pod = running()
    owner["status"] |= {"phase": "Succeeded", "outputDigest": DIGEST}
    owner["status"]["attempts"][0] |= {"outcome": "Failed", "reason": "DeadlineExceeded"}
    assert [ref.name for ref in plan(owner, [job], [pod]).delete] == [job["metadata"]["name"]]


def test_an_attempt_that_is_being_deleted_is_not_deleted_again() -> None:
    owner, job, pod = running()
    job["metadata"]["deletionTimestamp"] = CREATED
    assert plan(owner, [job], [pod], LATE).delete == ()


def test_a_deadline_is_written_and_the_attempt_is_deleted_once() -> None:
    owner, job, pod = running()
    found = plan(owner, [job], [pod], LATE)
    assert first(found) == ("Failed", "DeadlineExceeded")
    assert [ref.name for ref in found.delete] == [job["metadata"]["name"]]
