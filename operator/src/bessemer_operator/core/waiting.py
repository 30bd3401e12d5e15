"""Why pods do not run yet, in the words of the scheduler or of the kubelet, and since when. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bessemer_operator.core.plan import Manifest

_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "ImageInspectError",
        "InvalidImageName",
        "RegistryUnavailable",
        "CreateContainerConfigError",
        "CreateContainerError",
    }
)
"""Of containers that wait for something which does not come by itself."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a pod waits; `since` is empty where nobody has said."""

    reason: str
    message: str
    since: str


def find_wait(pods: Iterable[Manifest]) -> Wait | None:
    """Why the first pod that waits does so; None when none does."""
    return next((wait for pod in pods if (wait := _wait_of(pod)) is not None), None)


def _wait_of(pod: Manifest) -> Wait | None:
    status = pod.get("status", {})
    found: Iterator[Manifest] = (item for item in status.get("conditions") or [] if item.get("type") == "PodScheduled")
    scheduled = next(found, Manifest())
    since = scheduled.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp") or ""
    if scheduled.get("status") == "False":
        return Wait(scheduled.get("reason") or "Unschedulable", scheduled.get("message", ""), since)
    for item in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (item.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _REASONS:
            return Wait(waiting["reason"], waiting.get("message", ""), since)
    return None
