"""batch/v1 Job to pods and status, as the Job controller of Kubernetes 1.36 does it. Pure.

Covers completions, parallelism, Indexed, backoffLimit, suspend, and exact counting by the tracking finalizer.
Left out: the delay between retries, activeDeadlineSeconds, ttlSecondsAfterFinished, per-index limits, failure and
success policies (no manifest of ours uses them; `expand_job` raises Invalid rather than ignore them).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer_operator.cluster import Invalid, Obj
from bessemer_operator.cluster.objects import is_finished

from .expansion import Expansion, build_pod, has_status

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX_KEY = "batch.kubernetes.io/job-completion-index"
_UNSUPPORTED = (
    *("activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimitPerIndex", "maxFailedIndexes"),
    *("podFailurePolicy", "successPolicy", "podReplacementPolicy", "managedBy"),
)
_MAX_GENERATED = 58
_ENDS = {"SuccessCriteriaMet": "Complete", "FailureTarget": "Failed"}


@dataclass(frozen=True, slots=True)
class _Count:
    """A Job's pods, sorted by what they mean for it."""

    status: Obj
    active: tuple[Obj, ...]
    terminating: int
    succeeded: int
    failed: int
    done: frozenset[int]


def expand_job(job: Obj, pods: Sequence[Obj], now: str) -> Expansion:
    """What to do next for a Job, given all pods it controls. Raises Invalid for what is not supported here."""
    _check(job)
    status = job.get("status") or {}
    held = [pod for pod in pods if is_tracked(pod)]
    if has_status(status, "Complete") or has_status(status, "Failed"):
        return Expansion(status, release=tuple(held))
    count = _count(job, pods)
    release = tuple(pod for pod in held if _is_recorded(pod, count))
    verdict = _verdict(job, count, now)
    if verdict is not None:
        return Expansion(_ended(count, verdict, now), delete=count.active, release=release)
    create, delete = _differences(job, count)
    active = len(count.active) + len(create) - len(delete)
    return Expansion(_shown(job, count, active, len(delete), now), tuple(create), tuple(delete), release)


def is_tracked(pod: Obj) -> bool:
    """Whether the pod still waits to be counted."""
    return TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())


def _check(job: Obj) -> None:
    found = [key for key in _UNSUPPORTED if key in job["spec"]]
    if found:
        raise Invalid(f"Job {job['metadata']['name']}: spec.{found[0]} is not supported on a local run")


def _is_indexed(job: Obj) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def _count(job: Obj, pods: Sequence[Obj]) -> _Count:
    """Count every finished pod once: by index, or by uid in `uncountedTerminatedPods` while its finalizer holds."""
    status: Obj = job.get("status") or {}
    before = status.get("uncountedTerminatedPods") or {}
    held = {pod["metadata"]["uid"]: pod for pod in pods if is_tracked(pod)}
    uncounted: dict[str, list[str]] = {}
    settled: dict[str, int] = {}
    for outcome, has_ended in (("succeeded", _has_succeeded), ("failed", _has_failed)):
        known: list[str] = before.get(outcome) or []
        settled[outcome] = status.get(outcome, 0) + sum(uid not in held for uid in known)
        new = [uid for uid, pod in held.items() if has_ended(pod) and uid not in known]
        uncounted[outcome] = [uid for uid in known if uid in held] + new
    done = frozenset(_indexes(status.get("completedIndexes", "")))
    if _is_indexed(job):
        done |= {_index(pod) for pod in held.values() if _has_succeeded(pod)}
        uncounted["succeeded"] = []
        settled["succeeded"] = len(done)
    kept = {outcome: uids for outcome, uids in uncounted.items() if uids}
    alive = [pod for pod in pods if not is_finished(pod)]
    active = tuple(pod for pod in alive if "deletionTimestamp" not in pod["metadata"])
    total = {outcome: settled[outcome] + len(uncounted[outcome]) for outcome in settled}
    shown = {**status, "uncountedTerminatedPods": kept, **{key: value for key, value in settled.items() if value}}
    if _is_indexed(job) and done:
        shown["completedIndexes"] = _intervals(done)
    return _Count(shown, active, len(alive) - len(active), total["succeeded"], total["failed"], done)


def _verdict(job: Obj, count: _Count, now: str) -> Obj | None:
    """The interim condition that ends the Job, new or as it stands."""
    for found in count.status.get("conditions") or ():
        if found["type"] in _ENDS and found["status"] == "True":
            interim: Obj = found
            return interim
    if count.failed > job["spec"].get("backoffLimit", 6):
        message = "Job has reached the specified backoff limit"
        return _condition("FailureTarget", "BackoffLimitExceeded", message, now)
    if count.succeeded >= job["spec"].get("completions", 1) and not count.active:
        message = "Reached expected number of succeeded pods"
        return _condition("SuccessCriteriaMet", "CompletionsReached", message, now)
    return None


def _ended(count: _Count, verdict: Obj, now: str) -> Obj:
    """The status of a Job that ends: the final condition comes when every pod has ended and is counted."""
    others = [item for item in count.status.get("conditions") or () if item["type"] != verdict["type"]]
    status = {**count.status, "conditions": [*others, verdict]}
    if not count.active and not count.terminating and not count.status["uncountedTerminatedPods"]:
        final = _condition(_ENDS[verdict["type"]], verdict["reason"], verdict["message"], now)
        status = {**status, "conditions": [*status["conditions"], final]}
        if final["type"] == "Complete":
            status["completionTime"] = now
    return _with_numbers(status, 0, 0, count.terminating + len(count.active))


def _differences(job: Obj, count: _Count) -> tuple[list[Obj], list[Obj]]:
    """Pods to create and pods to delete."""
    spec = job["spec"]
    missing = spec.get("completions", 1) - count.succeeded
    wanted = 0 if spec.get("suspend") else min(spec.get("parallelism", 1), missing)
    if len(count.active) >= wanted:
        return [], list(count.active[wanted:])
    new = wanted - len(count.active)
    if not _is_indexed(job):
        return [_pod(job, None) for _ in range(new)], []
    taken = count.done | {_index(pod) for pod in count.active}
    pending = [index for index in range(spec["completions"]) if index not in taken]
    return [_pod(job, index) for index in pending[:new]], []


def _pod(job: Obj, index: int | None) -> Obj:
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    template: Obj = job["spec"]["template"]
    labels = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    given = template.get("metadata") or {}
    meta: dict[str, Any] = {"finalizers": [*(given.get("finalizers") or ()), TRACKING_FINALIZER], "labels": labels}
    if index is None:
        return build_pod(job, template, template["spec"], {**meta, "generateName": f"{name}-"})
    suffix = f"-{index}-"
    meta["generateName"] = name[: _MAX_GENERATED - len(suffix)] + suffix
    meta["labels"] = {**labels, INDEX_KEY: str(index)}
    meta["annotations"] = {**(given.get("annotations") or {}), INDEX_KEY: str(index)}
    spec = {**template["spec"], "hostname": f"{name}-{index}"}
    for key in ("initContainers", "containers"):
        if spec.get(key):
            spec[key] = [_with_index(container) for container in spec[key]]
    return build_pod(job, template, spec, meta)


def _with_index(container: Obj) -> Obj:
    env = container.get("env") or []
    if any(entry["name"] == "JOB_COMPLETION_INDEX" for entry in env):
        return container
    source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX_KEY}']"}}
    return {**container, "env": [*env, {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]}


def _shown(job: Obj, count: _Count, active: int, deleted: int, now: str) -> Obj:
    is_suspended = bool(job["spec"].get("suspend"))
    status = _suspension(count.status, is_suspended, now)
    if not is_suspended:
        status = {"startTime": now, **status}
    ready = sum(_is_ready(pod) for pod in count.active)
    return _with_numbers(status, active, min(ready, active), count.terminating + deleted)


def _suspension(status: Obj, is_suspended: bool, now: str) -> Obj:
    """The condition Suspended, which appears with the first suspension."""
    others = [item for item in status.get("conditions") or () if item["type"] != "Suspended"]
    was_suspended = has_status(status, "Suspended")
    if was_suspended == is_suspended:
        return status
    condition = _condition("Suspended", "JobSuspended", "Job suspended", now)
    if is_suspended:
        return {
            **{key: value for key, value in status.items() if key != "startTime"},
            "conditions": [*others, condition],
        }
    resumed = {**_condition("Suspended", "JobResumed", "Job resumed", now), "status": "False"}
    return {**status, "startTime": now, "conditions": [*others, resumed]}


def _with_numbers(status: Obj, active: int, ready: int, terminating: int) -> Obj:
    rest = {key: value for key, value in status.items() if key != "active"}
    return {**rest, "ready": ready, "terminating": terminating, **({"active": active} if active else {})}


def _condition(kind: str, reason: str, message: str, now: str) -> Obj:
    times = {"lastProbeTime": now, "lastTransitionTime": now}
    return {"type": kind, "status": "True", "reason": reason, "message": message, **times}


def _is_recorded(pod: Obj, count: _Count) -> bool:
    """Whether the Job's status accounts for this pod, so that its finalizer may go once that status is written."""
    counted = {uid for uids in count.status["uncountedTerminatedPods"].values() for uid in uids}
    return pod["metadata"]["uid"] in counted or (_has_succeeded(pod) and _index(pod) in count.done)


def _has_succeeded(pod: Obj) -> bool:
    return bool(pod["status"]["phase"] == "Succeeded")


def _has_failed(pod: Obj) -> bool:
    """A deleted pod counts as failed at once: it might never reach a final phase."""
    is_going = "deletionTimestamp" in pod["metadata"] and not _has_succeeded(pod)
    return bool(pod["status"]["phase"] == "Failed") or is_going


def _is_ready(pod: Obj) -> bool:
    return has_status(pod["status"], "Ready")


def _index(pod: Obj) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(INDEX_KEY, -1))


def _indexes(text: str) -> set[int]:
    """`0-2,5` to its numbers."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _intervals(indexes: Iterable[int]) -> str:
    """Numbers to `0-2,5`; two neighbours stay apart, as in the Job controller."""
    parts: list[list[int]] = []
    for index in sorted(indexes):
        if parts and index == parts[-1][-1] + 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    texts = [f"{part[0]}-{part[-1]}" if len(part) > 2 else ",".join(map(str, part)) for part in parts]
    return ",".join(texts)
