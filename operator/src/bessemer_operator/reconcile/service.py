"""The operator of a cluster, put together: cache, queue, workers, lease, resync, progress, health and metrics.

Events come from outside (handlers.py). A task that ends by itself ends the process: it starts again from what is in
the cluster, which is all it ever needs.
"""

import asyncio
import logging
import os
from collections.abc import Coroutine
from importlib.metadata import version
from typing import Any

from aiohttp import web

from bessemer_operator.cluster.clock import utc_now
from bessemer_operator.cluster.kube import KubeCluster
from bessemer_operator.cluster.protocol import Ref
from bessemer_operator.reconcile.cache import Cache, Obj
from bessemer_operator.reconcile.controller import Controller
from bessemer_operator.reconcile.gauges import Objects
from bessemer_operator.reconcile.guarded import GuardedCluster
from bessemer_operator.reconcile.health import Health, serve
from bessemer_operator.reconcile.lease import Lease
from bessemer_operator.reconcile.metrics import Metrics
from bessemer_operator.reconcile.progress import poll_progress
from bessemer_operator.reconcile.resync import keep_resyncing, resync
from bessemer_operator.reconcile.runtime import Runtime
from bessemer_operator.settings import Settings

log = logging.getLogger("bessemer")


def end_process(why: str) -> None:
    """Leave at once, writing nothing more."""
    log.critical("%s; this process ends and starts again", why)
    os._exit(1)


class Service:
    """One operator process. `start` once, then feed `seen`, then `stop`."""

    def __init__(self, settings: Settings, cluster: KubeCluster, cache: Cache, metrics: Metrics) -> None:
        """Callers use `connect`."""
        self.settings, self.metrics, self._cluster = settings, metrics, cluster
        self.lease = Lease(cluster, Ref("Lease", settings.lease_name, settings.lease_namespace), settings.identity)
        guarded = GuardedCluster(cluster, self.lease.guard)
        controller = Controller(guarded, cache, settings.profiles, utc_now, on_plan=metrics.planned)
        self.runtime = Runtime(controller, measured=metrics.reconciled)
        metrics.watch_queue(lambda: float(len(self.runtime.queue)))
        metrics.watch_lease(lambda: self.lease.is_held)
        self.health = Health(self.runtime.queue.oldest, lambda: self.lease.is_held)
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: web.AppRunner | None = None

    @classmethod
    async def connect(cls, settings: Settings) -> "Service":
        """A service that can reach its API server. Raises Unavailable."""
        cache = Cache()
        metrics = Metrics(Objects(cache, settings.profiles, utc_now), version("bessemer-operator"))
        return cls(settings, await KubeCluster.connect(settings.kubeconfig, on_request=metrics.request), cache, metrics)

    async def start(self) -> None:
        """Answer health checks, list everything, then work as soon as the lease is held.

        Raises ClusterError when the first lists fail, and OSError when the port is taken.
        """
        settings, cluster = self.settings, self._cluster
        self._server, port = await serve(settings.port, self.health, self.metrics.render)
        log.info("health and metrics on port %d", port)
        await resync(self.runtime, cluster, settings.namespaces)
        self.health.is_synced = True
        self._run("workers", self._work())
        self._run("lag", self.health.measure_lag())
        self._run("resync", keep_resyncing(self.runtime, cluster, settings.namespaces, settings.resync_seconds))
        controller, enqueue = self.runtime.controller, self.runtime.queue.add
        self._run("progress", poll_progress(controller, enqueue, settings.progress_seconds))

    def seen(self, kind: str, event_type: str | None, obj: Obj) -> None:
        """One event of a watch; kopf's own first list has no type."""
        self.health.sign(kind)
        self.runtime.seen(event_type or "ADDED", obj)

    async def stop(self) -> None:
        """Finish what is under way, let go of the lease, and close everything."""
        self._stop.set()
        workers, others = self._tasks[:1], self._tasks[1:]
        await asyncio.gather(*workers, return_exceptions=True)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.lease.release()
        if self._server is not None:
            await self._server.cleanup()
        await self._cluster.close()

    async def _work(self) -> None:
        """Work while the lease is held."""
        acquiring = asyncio.create_task(self.lease.acquire())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([acquiring, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not acquiring.done():
            acquiring.cancel()
            return
        log.info("%s holds the lease; working", self.lease.identity)
        keeping = asyncio.create_task(self.lease.keep())
        keeping.add_done_callback(self._lease_ended)
        try:
            await self.runtime.run_workers(self._stop)
        finally:
            keeping.cancel()

    def _lease_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            end_process("the lease was lost")

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._stop.is_set():
            return
        error = task.exception()
        if error is not None:
            log.error("%s failed", task.get_name(), exc_info=error)
        end_process(f"the task {task.get_name()} ended")
