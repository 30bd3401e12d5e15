"""The kubelet of hosts without containers: runs the pods of a cluster as local processes.

It watches pods bound to its nodes and writes their status, and nothing else: what should run, and where, is the
controllers' and the scheduler's to say (on a local run, expand.py and schedule.py). One process may stand for
several nodes. Processes never outlive this one (supervisor.py); pods it finds running when it starts were lost
with an earlier kubelet, and are marked Failed as after a reboot.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bessemer_operator.cluster import Cluster, ClusterError, Obj, WatchEvent, ref_of
from bessemer_operator.cluster.clock import now_stamp, utc_now
from bessemer_operator.cluster.follow import follow
from bessemer_operator.cluster.objects import is_finished

from .launch import PASSED_ON
from .podstatus import HOST_IP
from .ports import Ports
from .volumes import remove_volumes
from .worker import FIELD_MANAGER, Host, PodWorker, force_delete, gang_key, pod_folder, publish_lost

SHUTDOWN_GRACE_SECONDS = 30
LEASE_SECONDS = 40


@dataclass(frozen=True, slots=True)
class Node:
    """A node to stand for. `resources` are quantities, as in a manifest."""

    name: str
    resources: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


def host_node(name: str = "local") -> Node:
    """One node that is this host: all its processors and memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Node(name, {"cpu": str(os.cpu_count() or 1), "memory": f"{memory // 1024}Ki"})


@dataclass
class Kubelet:
    """The pods of some nodes, by uid."""

    host: Host
    nodes: frozenset[str]
    workers: dict[str, PodWorker] = field(default_factory=dict)

    async def take_over(self) -> None:
        """Account for what an earlier kubelet of these nodes left."""
        listing = await self.host.cluster.list("Pod")
        mine = [pod for pod in listing.items if pod["spec"].get("nodeName") in self.nodes]
        for pod in mine:
            was_started = bool((pod.get("status") or {}).get("startTime"))
            if was_started and not is_finished(pod):
                await publish_lost(self.host.cluster, pod, self.host.now())
        kept = {pod_folder(self.host.workdir, pod) for pod in mine}
        for folder in (self.host.workdir / "pods").glob("*"):
            if folder not in kept:
                remove_volumes(folder)

    async def handle(self, event: WatchEvent) -> None:
        """Bring one pod's processes level with its object."""
        if event.type == "BOOKMARK" or event.obj["spec"].get("nodeName") not in self.nodes:
            return
        pod, meta = event.obj, event.obj["metadata"]
        worker = self.workers.get(meta["uid"])
        if event.type == "DELETED":
            self._forget(pod, worker)
        elif "deletionTimestamp" in meta:
            await self._stop(pod, worker)
        elif worker is None and not is_finished(pod):
            self.workers[meta["uid"]] = PodWorker(self.host, pod)

    async def shut_down(self) -> None:
        """As a node that is shut down: SIGTERM, a grace period, SIGKILL; pods end as disrupted."""
        for worker in self.workers.values():
            if not worker.is_done:
                grace = _grace(worker.pod)
                worker.order_stop(min(grace, SHUTDOWN_GRACE_SECONDS), delete=False, disruption="TerminationByKubelet")
        await asyncio.gather(*(worker.task for worker in self.workers.values()), return_exceptions=True)

    def kill(self) -> None:
        """End all processes now."""
        for worker in self.workers.values():
            worker.kill()

    async def _stop(self, pod: Obj, worker: PodWorker | None) -> None:
        if worker is not None and not worker.is_done:
            worker.order_stop(_grace(pod), delete=True)
            return
        was_asked = pod["metadata"].get("deletionGracePeriodSeconds", 0) > 0
        if was_asked or not pod["metadata"].get("finalizers"):
            await force_delete(self.host.cluster, ref_of(pod), pod["metadata"]["uid"])

    def _forget(self, pod: Obj, worker: PodWorker | None) -> None:
        if worker is not None:
            worker.kill()
            del self.workers[pod["metadata"]["uid"]]
            if gang_key(pod) not in {gang_key(other.pod) for other in self.workers.values()}:
                self.host.ports.release(gang_key(pod))
        remove_volumes(pod_folder(self.host.workdir, pod))


async def run_node(
    cluster: Cluster,
    nodes: Sequence[Node],
    workdir: Path,
    stop: asyncio.Event,
    heartbeat_seconds: float | None = 10.0,
    passed_on: Collection[str] = PASSED_ON,
) -> None:
    """Stand for `nodes` until `stop` is set, then shut down as a node does.

    `workdir` holds pods/ (logs, kept) and claims/ (volumes of claims, kept). `heartbeat_seconds=None` where nobody
    watches node leases, as on a local run. `passed_on` names what pods see of this process's environment.
    """
    workdir = workdir.resolve()  # pods have working directories of their own
    host = Host(cluster, workdir, host_environment(os.environ, passed_on), Ports(), now_stamp)
    kubelet = Kubelet(host, frozenset(node.name for node in nodes))
    workdir.mkdir(parents=True, exist_ok=True)
    await _register(cluster, nodes)
    await kubelet.take_over()
    tasks = [asyncio.create_task(_watch(kubelet))]
    if heartbeat_seconds is not None:
        tasks.append(asyncio.create_task(_beat(cluster, nodes, heartbeat_seconds)))
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        await kubelet.shut_down()
        for task in done:
            task.result()
    finally:
        kubelet.kill()
        for task in (*tasks, stopped):
            task.cancel()
        await asyncio.gather(*tasks, stopped, return_exceptions=True)


def host_environment(environ: Mapping[str, str], passed_on: Collection[str] = PASSED_ON) -> dict[str, str]:
    """What a pod sees of this process's environment: an allow-list, and this Python's programs first on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
    return {**{name: environ[name] for name in passed_on if name in environ}, "PATH": path}


async def _watch(kubelet: Kubelet) -> None:
    async with aclosing(follow(kubelet.host.cluster, ["Pod"])) as events:
        async for event in events:
            await kubelet.handle(event)


async def _register(cluster: Cluster, nodes: Sequence[Node]) -> None:
    for node in nodes:
        labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", **node.labels}
        obj: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": labels}}
        await cluster.apply(obj, FIELD_MANAGER)
        await cluster.apply_status({**obj, "status": _node_status(node)}, FIELD_MANAGER)


async def _beat(cluster: Cluster, nodes: Sequence[Node], seconds: float) -> None:
    """Renew the nodes' leases, as the node controller expects."""
    while True:
        for node in nodes:
            try:
                await cluster.apply(_lease(node), FIELD_MANAGER)
            except ClusterError:
                continue  # the next beat tries again; a lease outlives three of them
        await asyncio.sleep(seconds)


def _lease(node: Node) -> Obj:
    renewed = utc_now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": node.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renewed}
    meta = {"name": node.name, "namespace": "kube-node-lease"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


def _node_status(node: Node) -> dict[str, Any]:
    resources = {"pods": "110", **node.resources}
    now = now_stamp()
    ready = {"reason": "KubeletReady", "message": "kubelet is posting ready status"}
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    return {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [{"type": "InternalIP", "address": HOST_IP}, {"type": "Hostname", "address": node.name}],
        "conditions": [{"type": "Ready", "status": "True", **ready, **times}],
    }


def _grace(pod: Obj) -> float:
    asked = pod["metadata"].get("deletionGracePeriodSeconds")
    return float(asked if asked is not None else pod["spec"].get("terminationGracePeriodSeconds", 30))
