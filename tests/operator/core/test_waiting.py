"""A pod that waits: for how long it is a word, when it becomes a condition, and in whose words."""

from datetime import timedelta
from typing import Any

import pytest

from bessemer_operator.core.naming import LABEL_ATTEMPT
from bessemer_operator.core.waiting import find_wait
from tests.operator.core.test_attempts import CREATED, Obj, plan, running

NO_ROOM = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
    "lastTransitionTime": CREATED,
}
PLACED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": CREATED}
NO_CONFIG = "CreateContainerConfigError"
SOON, LATER = timedelta(minutes=9), timedelta(minutes=11)


def waiting(condition: Obj, *waits: tuple[str, str]) -> Obj:
    """The status of a pending pod whose containers wait for these reasons."""
    status: Obj = {"phase": "Pending", "conditions": [condition]}
    for kind, reason in waits:
        item = {"name": "c", "state": {"waiting": {"reason": reason, "message": "words of the kubelet"}}}
        status.setdefault(kind, []).append(item)
    return status


def conditions(owner: Obj, job: Obj, pod: Obj, later: timedelta) -> dict[str, tuple[str, str, str]]:
    found = plan(owner, [job], [pod], later).status["conditions"]
    return {item["type"]: (item["status"], item["reason"], item["message"]) for item in found}


def test_before_the_deadline_it_is_a_word() -> None:
    owner, job, pod = running()
    pod["status"] = waiting(NO_ROOM)
    found = conditions(owner, job, pod, SOON)
    assert found["Reconciling"][:2] == ("True", "Waiting")
    assert found["Stalled"][0] == "False"
    assert found["Ready"][2] == f"Unschedulable: {NO_ROOM['message']}"
    assert plan(owner, [job], [pod], SOON).requeue == timedelta(minutes=1)


CASES: list[tuple[str, Obj, str, str]] = [
    ("no_room", waiting(NO_ROOM), "Unschedulable", "2 Insufficient nvidia.com/gpu"),
    ("no_image", waiting(PLACED, ("containerStatuses", "ImagePullBackOff")), "ImagePullBackOff", "words of"),
    ("no_image_of_an_init", waiting(PLACED, ("initContainerStatuses", "ErrImagePull")), "ErrImagePull", "words of"),
    ("no_secret", waiting(PLACED, ("containerStatuses", NO_CONFIG)), NO_CONFIG, "words of"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "reason", "message"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_past_the_deadline_it_is_a_condition_with_their_reason(status: Obj, reason: str, message: str) -> None:
    owner, job, pod = running()
    pod["status"] = status
    found = conditions(owner, job, pod, LATER)
    assert found["Stalled"][:2] == ("True", reason)
    assert found["Reconciling"][0] == "False"
    assert message in found["Stalled"][2]
    assert "the pendingDeadline of its profile (10m)" in found["Stalled"][2]


def test_the_attempt_waits_on_and_works_when_there_is_room() -> None:
    owner, job, pod = running()
    pod["status"] = waiting(NO_ROOM)
    late = plan(owner, [job], [pod], LATER)
    assert (late.status["phase"], late.delete, late.create) == ("Running", (), ())
    pod["status"] = {"phase": "Running", "conditions": [PLACED]}
    found = conditions(owner, job, pod, LATER)
    assert (found["Stalled"][0], found["Reconciling"][:2]) == ("False", ("True", "Running"))


@pytest.mark.parametrize(
    "status",
    [{}, {"conditions": [PLACED]}, waiting(PLACED, ("containerStatuses", "ContainerCreating"))],
    ids=["nothing_known", "placed", "being_made"],
)
def test_what_comes_by_itself_is_no_wait(status: dict[str, Any]) -> None:
    assert find_wait([{"metadata": {"labels": {LABEL_ATTEMPT: "a"}}, "status": status}]) is None
