"""The controllers and the scheduler of a local run: Jobs and PyTorchJobs to pods, pods to nodes.

Only for `LocalCluster`: a real cluster has real controllers. Decisions are in jobs.py, pytorchjobs.py and
schedule.py; here they are carried out, level-triggered, one object at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from bessemer_operator.cluster import ClusterError, Conflict, Invalid, NotFound, Obj, Ref, WatchEvent, ref_of
from bessemer_operator.cluster.clock import now_stamp
from bessemer_operator.cluster.follow import follow
from bessemer_operator.cluster.local import LocalCluster
from bessemer_operator.cluster.objects import condition_of, controller_of

from .expansion import Expansion
from .jobs import TRACKING_FINALIZER, expand_job, is_tracked
from .pytorchjobs import expand_pytorchjob
from .schedule import schedule

KINDS = ("Job", "PyTorchJob", "Pod", "Node")
_MANAGER = "bessemer-local-controllers"
_EXPAND = {"Job": expand_job, "PyTorchJob": expand_pytorchjob}


async def run_expander(cluster: LocalCluster, stop: asyncio.Event) -> None:
    """Keep jobs, pods and nodes level until `stop` is set."""
    work = asyncio.create_task(_watch(cluster))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        for task in (work, stopped):
            task.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)


async def _watch(cluster: LocalCluster) -> None:
    async with aclosing(follow(cluster, KINDS)) as events:
        async for event in events:
            await handle(cluster, event)


async def handle(cluster: LocalCluster, event: WatchEvent) -> None:
    """Do what one change calls for. Conflicts are left to the event of the write that caused them."""
    try:
        ref = ref_of(event.obj)
        if ref.kind in _EXPAND:
            await _expand(cluster, ref)
        elif ref.kind == "Pod":
            await _settle(cluster, event)
        if ref.kind in ("Pod", "Node"):
            await _schedule(cluster)
    except (Conflict, NotFound):
        return


async def _settle(cluster: LocalCluster, event: WatchEvent) -> None:
    """Bring the pod's job level; let go of a pod whose Job is gone."""
    pod, owner = event.obj, controller_of(event.obj)
    if owner is None or owner["kind"] not in _EXPAND:
        return
    ref = Ref(owner["kind"], owner["name"], pod["metadata"]["namespace"])
    try:
        is_orphan = (await cluster.get(ref))["metadata"]["uid"] != owner["uid"]
    except NotFound:
        is_orphan = True
    if not is_orphan:
        await _expand(cluster, ref)
    elif event.type != "DELETED" and is_tracked(pod):
        await _release(cluster, pod)


async def _expand(cluster: LocalCluster, ref: Ref) -> None:
    try:
        job = await cluster.get(ref)
    except NotFound:
        return
    if "deletionTimestamp" in job["metadata"]:
        return
    pods = pods_of(job, (await cluster.list("Pod", ref.namespace)).items)
    try:
        decided = _EXPAND[ref.kind](job, pods, now_stamp())
    except (Invalid, KeyError, TypeError, ValueError) as error:  # an API server would not have taken it
        await cluster.record_event(job, "Warning", "FailedValidation", f"{type(error).__name__}: {error}")
        return
    await _carry_out(cluster, job, decided)


async def _carry_out(cluster: LocalCluster, job: Obj, decided: Expansion) -> None:
    await cluster.replace_status({**job, "status": decided.status}, _MANAGER)
    for pod in decided.release:
        await _release(cluster, pod)
    for pod in decided.delete:
        await _delete(cluster, pod)
    for pod in decided.create:
        try:
            await cluster.create(pod)
        except Invalid as error:
            await cluster.record_event(job, "Warning", "FailedCreate", f"Error creating: {error}")


async def _release(cluster: LocalCluster, pod: Obj) -> None:
    meta = pod["metadata"]
    kept = [name for name in meta["finalizers"] if name != TRACKING_FINALIZER]
    try:
        await cluster.update({**pod, "metadata": {**meta, "finalizers": kept}})
    except NotFound:
        return


async def _delete(cluster: LocalCluster, pod: Obj) -> None:
    try:
        await cluster.delete(ref_of(pod), uid=pod["metadata"]["uid"])
    except (NotFound, Conflict):
        return


async def _schedule(cluster: LocalCluster) -> None:
    pods = (await cluster.list("Pod")).items
    if all(pod["spec"].get("nodeName") for pod in pods):
        return
    nodes = (await cluster.list("Node")).items
    decided = schedule(pods, nodes)
    for pod, node in decided.bind:
        bound = await cluster.update({**pod, "spec": {**pod["spec"], "nodeName": node}})
        await _report(cluster, bound, {"status": "True"})
    for pod, why in decided.refuse:
        await _report(cluster, pod, {"status": "False", "reason": "Unschedulable", "message": why})


async def _report(cluster: LocalCluster, pod: Obj, found: dict[str, str]) -> None:
    old = condition_of(pod, "PodScheduled") or {}
    if all(old.get(key) == value for key, value in found.items()):
        return
    condition = {"type": "PodScheduled", "lastTransitionTime": now_stamp(), **found}
    try:
        await cluster.apply_status({**pod, "status": {"conditions": [condition]}}, "kube-scheduler")
    except ClusterError as error:
        if not isinstance(error, NotFound | Conflict):
            raise


def pods_of(job: Obj, pods: Sequence[Obj]) -> list[Obj]:
    """The pods that a job controls."""
    return [pod for pod in pods if (controller_of(pod) or {}).get("uid") == job["metadata"]["uid"]]
