"""Which other stages or merges do the same work at the same time: two attempts must not share one run folder.

Reads the cache alone; what is done about rivals is decided in core/work.py.
"""

from bessemer_operator.core.attempts import job_outcome
from bessemer_operator.reconcile.cache import ATTEMPT_KINDS, Cache, Obj

_AT_REST = {"Succeeded", "Failed", "Suspended"}


def find_rivals(obj: Obj, cache: Cache) -> tuple[str, ...]:
    """`namespace/name` of each object of this kind, store and input digest that runs, or is to start before this one.

    Who was created first starts first; the uid decides between two of the same second, so that never both wait.
    """
    if obj["kind"] not in {"TrainingStage", "MergeJob"}:
        return ()
    same = [other for other in cache.of_kind(obj["kind"]) if _work(other) == _work(obj) and _age(other) != _age(obj)]
    before = [other for other in same if _runs(other, cache) or (_will_start(other) and _age(other) < _age(obj))]
    return tuple(sorted(f"{other['metadata']['namespace']}/{other['metadata']['name']}" for other in before))


def _work(stage: Obj) -> tuple[object, object]:
    return stage["spec"].get("store"), stage["spec"].get("inputDigest")


def _age(stage: Obj) -> tuple[str, str]:
    return stage["metadata"].get("creationTimestamp", ""), stage["metadata"]["uid"]


def _runs(stage: Obj, cache: Cache) -> bool:
    """By its attempts and their pods: one that is suspended still saves for a while."""
    uid = stage["metadata"]["uid"]
    attempts = (stage.get("status") or {}).get("attempts") or []
    return (
        any(item.get("outcome") == "Running" for item in attempts)
        or any(job_outcome(job) == "Running" for job in cache.children(uid, *ATTEMPT_KINDS))
        or any((pod.get("status") or {}).get("phase") == "Running" for pod in cache.children(uid, "Pod"))
    )


def _will_start(stage: Obj) -> bool:
    status = stage.get("status") or {}
    is_stalled = any(
        item.get("type") == "Stalled" and item.get("status") == "True" for item in status.get("conditions") or []
    )
    is_stopped = stage["spec"].get("suspend") or stage["metadata"].get("deletionTimestamp")
    return not is_stopped and not is_stalled and status.get("phase", "Pending") not in _AT_REST
