"""A pod's status as a kubelet writes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bessemer_operator.cluster import Obj

MAX_MESSAGE_BYTES = 4096
"""Of a termination message; as the kubelet, the last ones are kept."""
MAX_LOG_MESSAGE_BYTES = 2048
MAX_LOG_MESSAGE_LINES = 80

State = Mapping[str, Any]
"""`{"waiting": ...}`, `{"running": ...}` or `{"terminated": ...}`."""

HOST_IP = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class PodState:
    """What the kubelet knows of a pod that it runs."""

    phase: str
    start_time: str
    containers: Mapping[str, State]
    reason: str = ""
    message: str = ""
    disruption: str = ""
    """Why this was not the pod's doing; sets the condition DisruptionTarget."""
    since: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Condition type -> (status, lastTransitionTime) as last published."""


def waiting(reason: str, message: str = "") -> State:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def running(now: str) -> State:
    return {"running": {"startedAt": now}}


def terminated(code: int, started: str, now: str, reason: str = "", message: str = "") -> State:
    """A finished container; the reason follows from the code unless given."""
    found = {
        "exitCode": code,
        "reason": reason or ("Completed" if code == 0 else "Error"),
        "startedAt": started,
        "finishedAt": now,
    }
    return {"terminated": {**found, "message": message} if message else found}


def phase_of(pod: Obj, containers: Mapping[str, State]) -> str:
    """The phase that the containers' states add up to, for restartPolicy Never."""
    inits = [containers[item["name"]] for item in pod["spec"].get("initContainers") or ()]
    mains = [containers[item["name"]] for item in pod["spec"]["containers"]]
    if any(_code(state) for state in inits):
        return "Failed"
    if all("terminated" in state for state in mains):
        return "Failed" if any(_code(state) for state in mains) else "Succeeded"
    if any("running" in state or "terminated" in state for state in mains):
        return "Running"
    return "Pending"


def with_transitions(state: PodState, now: str) -> PodState:
    """The state with the time at which each condition last changed."""
    since = {}
    for kind, status in _conditions(state).items():
        before = state.since.get(kind)
        since[kind] = before if before and before[0] == status else (status, now)
    return replace(state, since=since)


def build_status(pod: Obj, state: PodState) -> Obj:
    """The whole status of the pod, less what belongs to the scheduler."""
    conditions = [
        {"type": kind, "status": status, "lastTransitionTime": when, **_why(kind, state)}
        for kind, (status, when) in state.since.items()
    ]
    status: Obj = {
        "phase": state.phase,
        "startTime": state.start_time,
        "hostIP": HOST_IP,
        "podIP": HOST_IP,
        "podIPs": [{"ip": HOST_IP}],
        "conditions": conditions,
        "containerStatuses": [_container(item, state) for item in pod["spec"]["containers"]],
    }
    if pod["spec"].get("initContainers"):
        status["initContainerStatuses"] = [_container(item, state) for item in pod["spec"]["initContainers"]]
    optional = {"reason": state.reason, "message": state.message}
    return {**status, **{key: value for key, value in optional.items() if value}}


def lost_state(pod: Obj, now: str) -> PodState:
    """A pod whose processes died with an earlier kubelet, as after a reboot of its node."""
    found = pod.get("status") or {}
    known = [*(found.get("initContainerStatuses") or ()), *(found.get("containerStatuses") or ())]
    states = {item["name"]: item.get("state") or {} for item in known}
    message = "The container could not be located when the pod was terminated"
    containers = {}
    for item in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
        state = states.get(item["name"]) or {}
        started = (state.get("running") or {}).get("startedAt", found["startTime"])
        lost = terminated(137, started, now, "ContainerStatusUnknown", message)
        containers[item["name"]] = state if "terminated" in state else lost
    return with_transitions(
        PodState(
            phase="Failed",
            start_time=found["startTime"],
            containers=containers,
            reason="NodeLost",
            message="The kubelet on this node ended while the pod was running.",
            disruption="TerminationByKubelet",
        ),
        now,
    )


def last_bytes(data: bytes, limit: int) -> str:
    """The end of a message, at most `limit` bytes, as text."""
    return data[-limit:].decode("utf-8", errors="ignore").replace("\0", "")


def last_lines(data: bytes) -> str:
    """The end of a log, as terminationMessagePolicy FallbackToLogsOnError keeps it."""
    lines = data[-MAX_LOG_MESSAGE_BYTES:].splitlines(keepends=True)
    return last_bytes(b"".join(lines[-MAX_LOG_MESSAGE_LINES:]), MAX_LOG_MESSAGE_BYTES)


def _code(state: State) -> int:
    return int((state.get("terminated") or {}).get("exitCode", 0))


def _conditions(state: PodState) -> dict[str, str]:
    is_running = "True" if state.phase == "Running" else "False"
    is_initialized = "True" if state.phase in ("Running", "Succeeded") or state.phase == "Failed" else "False"
    found = {
        "PodReadyToStartContainers": is_running,
        "Initialized": is_initialized,
        "Ready": is_running,
        "ContainersReady": is_running,
    }
    return {**found, "DisruptionTarget": "True"} if state.disruption else found


def _why(kind: str, state: PodState) -> dict[str, str]:
    if kind == "DisruptionTarget":
        return {"reason": state.disruption, "message": state.message}
    if kind in ("Ready", "ContainersReady") and state.phase == "Succeeded":
        return {"reason": "PodCompleted"}
    return {}


def _container(container: Obj, pod: PodState) -> Obj:
    state = pod.containers[container["name"]]
    is_running = "running" in state
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": is_running,
        "started": is_running,
        "restartCount": 0,
        "state": dict(state),
    }
