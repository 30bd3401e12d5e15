"""A kubelet that plays: pods of the real controllers end at once with the report that a `Store` computes.

So a whole pipeline takes seconds on the real control plane, and a test of the operator's faults can afford many. It
watches pods and writes their status, as a kubelet does; API server, scheduler, Job controller and training-operator are
real. A script holds pods back or ends them otherwise.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bessemer_api.job import RunSpec
from bessemer_operator.cluster import Cluster, ClusterError, NotFound, Ref, ref_of
from bessemer_operator.cluster.clock import now_stamp
from bessemer_operator.cluster.follow import follow
from bessemer_operator.cluster.kube import KubeCluster
from bessemer_operator.core.naming import LABEL_ATTEMPT
from tests.support.world import Ending, Script, Store

Obj = dict[str, Any]
MANAGER = "played-kubelet"
LOOK_SECONDS = 0.2


@dataclass
class PlayedKubelet:
    """Runs in a thread of its own while the context is open. Each namespace has a store of its own.

    `script` may be changed at any time; a pod that it holds back ("hang") is asked for again and again.
    """

    kubeconfig: Path
    script: Script = lambda spec, name: None
    stores: dict[str, Store] = field(default_factory=lambda: defaultdict(Store))
    watched: Callable[[Obj], None] = lambda pod: None
    is_saving: Callable[[], bool] = lambda: False
    """Pods that are told to stop save first: while this is so, they do not end; then they exit with 143."""

    def __post_init__(self) -> None:
        self._pods: dict[str, Obj] = {}
        self._begun: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "PlayedKubelet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        cluster = await KubeCluster.connect(self.kubeconfig)
        tasks = [asyncio.create_task(self._watch(cluster)), asyncio.create_task(self._play(cluster))]
        await asyncio.wait([*tasks, stop := asyncio.create_task(self._stop.wait())], return_when="FIRST_COMPLETED")
        for task in (*tasks, stop):
            task.cancel()
        await asyncio.gather(*tasks, stop, return_exceptions=True)
        await cluster.close()
        await asyncio.sleep(LOOK_SECONDS)  # transports are closed in the next rounds of the loop

    async def _watch(self, cluster: Cluster) -> None:
        """Every pod, as often as the API server breaks the watch."""
        while True:
            try:
                async with aclosing(follow(cluster, ["Pod"])) as events:
                    async for event in events:
                        self._seen(event.type, event.obj)
            except ClusterError:
                await asyncio.sleep(LOOK_SECONDS)

    def _seen(self, kind: str, pod: Obj) -> None:
        if kind == "BOOKMARK":
            return
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            self._pods.pop(uid, None)
        else:
            self._pods[uid] = pod

    async def _play(self, cluster: Cluster) -> None:
        while True:
            for pod in list(self._pods.values()):
                try:
                    await self._advance(cluster, pod)
                except ClusterError:  # gone meanwhile, or the server is: the next look tells
                    continue
            await asyncio.sleep(LOOK_SECONDS / 4)

    async def _advance(self, cluster: Cluster, pod: Obj) -> None:
        metadata, phase = pod["metadata"], (pod.get("status") or {}).get("phase")
        if metadata.get("deletionTimestamp"):
            if metadata["uid"] in self._begun and self.is_saving():
                return
            await cluster.delete(ref_of(pod), uid=metadata["uid"], grace_seconds=0)
            self._pods.pop(metadata["uid"], None)
        elif not pod["spec"].get("nodeName") or phase in {"Succeeded", "Failed"}:
            return
        elif metadata["uid"] not in self._begun:
            self._begun[metadata["uid"]] = now_stamp()
            await self._write(cluster, pod, "Running", {"running": {"startedAt": now_stamp()}})
        else:
            await self._end(cluster, pod)

    async def _end(self, cluster: Cluster, pod: Obj) -> None:
        metadata = pod["metadata"]
        try:
            config = await cluster.get(Ref("ConfigMap", metadata["labels"][LABEL_ATTEMPT], metadata["namespace"]))
        except NotFound:
            return
        spec = RunSpec.model_validate_json(config["data"]["run.json"])
        ending = self.script(spec, config["metadata"]["name"])
        if ending == "hang":
            return
        if ending is None:
            report = self.stores[metadata["namespace"]].run(spec)
            ending = Ending(0, report.model_dump_json(by_alias=True, exclude_none=True))
        assert isinstance(ending, Ending)
        times = {"startedAt": self._begun[metadata["uid"]], "finishedAt": now_stamp()}
        end = {"exitCode": ending.code, "message": ending.message, **times}
        await self._write(cluster, pod, "Failed" if ending.code else "Succeeded", {"terminated": end})
        self._pods.pop(metadata["uid"], None)

    async def _write(self, cluster: Cluster, pod: Obj, phase: str, state: Obj) -> None:
        metadata = pod["metadata"]
        containers = [
            {"name": item["name"], "image": item["image"], "imageID": "", "ready": False, "restartCount": 0}
            for item in pod["spec"]["containers"]
        ]
        status = {
            "phase": phase,
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "startTime": self._begun[metadata["uid"]],
            "containerStatuses": [{**item, "state": state} for item in containers],
        }
        names = {key: metadata[key] for key in ("name", "namespace", "uid")}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": names, "status": status}
        await cluster.apply_status(document, MANAGER)
