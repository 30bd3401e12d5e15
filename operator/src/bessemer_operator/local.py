"""A local run: the same reconcile, the same manifests and the same trainer commands as on a cluster, in one process.

A directory stands in for the API server, our expander for the controllers, our kubelet for the nodes. Nothing here
decides anything about a pipeline.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer_api.job import GIT_CREDENTIALS_ENV, SIGNING_ENV
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_operator.cluster.clock import utc_now
from bessemer_operator.cluster.local import LocalCluster
from bessemer_operator.cluster.protocol import NotFound, Ref
from bessemer_operator.core.naming import ANNOTATION_REFRESH
from bessemer_operator.core.profile import Profile
from bessemer_operator.executor import Node, run_expander, run_node
from bessemer_operator.executor.launch import PASSED_ON
from bessemer_operator.reconcile.cache import Cache
from bessemer_operator.reconcile.controller import Controller
from bessemer_operator.reconcile.runtime import Runtime, run_local

NODE = "local"
NAMESPACE = "default"
APPLIER = "bessemer-cli"
LOCAL_PROFILE = Profile(image="local", cpu="1", memory="256Mi", processes_per_node=2, grace_period_seconds=30)
"""Every profile that a pipeline names means this one here: two processes a training pod, as many pods as cores."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LocalRun:
    """Where a local run keeps its objects, and what runs in it."""

    state: Path

    @property
    def cluster(self) -> LocalCluster:
        """The directory that stands in for the API server."""
        return LocalCluster(self.state / "cluster", logs=self.logs)

    @property
    def logs(self) -> Path:
        """Where the kubelet keeps the logs of pods."""
        return self.state / "node" / "pods"


def local_profiles(spec: PipelineSpec) -> Mapping[str, Profile]:
    """The local profile under every name that the pipeline uses."""
    own = [*(stage.profile for stage in spec.stages), *(merge.profile for merge in spec.merges)]
    names = {"default", *spec.profiles.model_dump().values(), *own}
    return {name: LOCAL_PROFILE for name in names if name is not None}


def passed_on() -> list[str]:
    """What pods see of the user's environment: the usual allow-list, and the user's own credentials for S3 and git and
    keys for signing, because there is no Secret here that a profile could name.
    """
    own = (GIT_CREDENTIALS_ENV, "SSH_AUTH_SOCK", SIGNING_ENV)
    return [*PASSED_ON, *own, *(name for name in os.environ if name.startswith("AWS_"))]


def is_settled(pipeline: Json) -> bool:
    """Whether nothing more will happen by itself for the generation that is declared."""
    status, metadata = pipeline.get("status") or {}, pipeline["metadata"]
    refresh = (metadata.get("annotations") or {}).get(ANNOTATION_REFRESH, "")
    held = {item["type"]: item["status"] for item in status.get("conditions") or []}
    return (
        status.get("observedGeneration") == metadata.get("generation")
        and status.get("observedRefresh", "") == refresh
        and held.get("Reconciling") == "False"
    )


async def run_pipeline(
    run: LocalRun, manifest: Json, token: str, stop: asyncio.Event, on_change: Callable[[Json], None]
) -> Json:
    """Apply `manifest` and run until the pipeline has settled or `stop` is set; the pipeline as it was last seen.

    `token` is new for every run, so that sources and channels are read again. `on_change` sees every new version of
    the pipeline. Raises Unavailable when another process runs this directory, or it can not be
    written to.
    """
    cluster = run.cluster
    cluster.claim()
    try:
        applied = await apply(cluster, manifest, token)
        profiles = local_profiles(PipelineSpec.model_validate(manifest["spec"]))
        runtime = Runtime(Controller(cluster, Cache(), profiles, utc_now))
        return await _until_settled(run, cluster, runtime, applied, stop, on_change)
    finally:
        await cluster.close()


async def apply(cluster: LocalCluster, manifest: Json, token: str) -> Json:
    """Server-side apply of the pipeline, and the annotation that makes it read the world again."""
    metadata = {"namespace": NAMESPACE, **manifest["metadata"]}
    applied = await cluster.apply({**manifest, "metadata": metadata}, APPLIER)
    ref = Ref("AdaptationPipeline", metadata["name"], metadata["namespace"])
    return await cluster.patch_annotations(ref, {ANNOTATION_REFRESH: token}) if token else applied


async def _until_settled(
    run: LocalRun,
    cluster: LocalCluster,
    runtime: Runtime,
    applied: Json,
    stop: asyncio.Event,
    on_change: Callable[[Json], None],
) -> Json:
    quit_all = asyncio.Event()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    node = Node(NODE, {"cpu": str(os.cpu_count() or 1), "memory": str(memory)})
    parts = [
        asyncio.create_task(run_local(runtime, cluster, quit_all)),
        asyncio.create_task(run_expander(cluster, quit_all)),
        asyncio.create_task(run_node(cluster, [node], run.state / "node", quit_all, None, passed_on())),
    ]
    watching = asyncio.create_task(_watch(cluster, applied, on_change))
    stopped = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([*parts, watching, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        quit_all.set()
        watching.cancel()
        stopped.cancel()
        await asyncio.gather(*parts, watching, stopped, return_exceptions=True)
    return await cluster.get(_ref(applied))


def _ref(obj: Json) -> Ref:
    return Ref(obj["kind"], obj["metadata"]["name"], obj["metadata"]["namespace"])


async def _watch(cluster: LocalCluster, applied: Json, on_change: Callable[[Json], None]) -> None:
    """Tell about every version of the pipeline; ends when it has settled after the refresh that was asked for.

    Raises Unavailable when the directory can not be written to: nobody is told of a run that tries that for ever.
    """
    version = ""
    while True:
        if cluster.failure is not None:
            raise cluster.failure
        try:
            obj = await cluster.get(_ref(applied))
        except NotFound:
            return
        if obj["metadata"]["resourceVersion"] != version:
            version = obj["metadata"]["resourceVersion"]
            on_change(obj)
            if is_settled(obj):
                return
        await asyncio.sleep(0.2)
