"""The loop: events feed the cache and the queue, workers take keys and reconcile; for local runs and the operator."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from bessemer_operator.cluster.follow import follow
from bessemer_operator.cluster.protocol import Cluster, ClusterError, Conflict, WatchEvent
from bessemer_operator.reconcile.cache import OWN_KINDS, WATCHED, Cache, Key, Obj, key_of
from bessemer_operator.reconcile.controller import Controller, ForeignObject
from bessemer_operator.reconcile.queue import WorkQueue

log = logging.getLogger("bessemer")
WORKERS = 8
Measured = Callable[[Key, float, str], None]
"""Called after each reconcile with the key, its seconds and its outcome (ok, conflict, refused, error)."""


@dataclass
class Runtime:
    """Cache, queue and workers around one controller."""

    controller: Controller
    queue: WorkQueue[Key] = field(default_factory=lambda: WorkQueue(time.monotonic))
    measured: Measured = lambda key, seconds, outcome: None

    @property
    def cache(self) -> Cache:
        """What was last seen."""
        return self.controller.cache

    def seen(self, event_type: str, obj: Obj) -> None:
        """Take one event in: remember the object, and make whoever it concerns due."""
        if event_type == "BOOKMARK":
            return
        owner = self.cache.owner(obj)
        if event_type == "DELETED":
            self.cache.remove(obj)
        elif not self.cache.put(obj):
            return
        if obj["kind"] in OWN_KINDS:
            self.queue.add(key_of(obj))
        for key in {owner, self.cache.owner(obj)} - {None}:
            assert key is not None  # noqa: S101 - for the type checker; None was taken out
            self.queue.add(key)

    async def run_workers(self, stop: asyncio.Event, workers: int = WORKERS) -> None:
        """Reconcile what is due until `stop` is set; what is under way then is finished."""
        tasks = [asyncio.create_task(self._work()) for _ in range(workers)]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            failed = await self._reconcile(key)
            self.queue.done(key, failed=failed)

    async def _reconcile(self, key: Key) -> bool:
        """One reconcile; whether it must be tried again."""
        begun = time.monotonic()
        outcome = await self._outcome(key)
        self.measured(key, time.monotonic() - begun, outcome)
        return outcome != "ok"

    async def _outcome(self, key: Key) -> str:
        try:
            requeue = await self.controller.reconcile(key)
        except Conflict:
            return "conflict"
        except (ClusterError, ForeignObject) as error:
            log.warning("%s %s/%s: %s: %s", key.kind, key.namespace, key.name, type(error).__name__, error)
            return "refused"
        except Exception:
            # A defect must not stop the other objects: it is logged whole, and this one is tried again later.
            log.exception("%s %s/%s: reconcile failed", key.kind, key.namespace, key.name)
            return "error"
        if requeue is not None:
            self.queue.add(key, max(requeue.total_seconds(), 0.05))
        if key not in self.cache.objects:
            self.queue.forget(key)
        return "ok"


async def run_local(runtime: Runtime, cluster: Cluster, stop: asyncio.Event) -> None:
    """Feed the runtime from a cluster's own watch and run its workers until `stop` is set."""
    feeding = asyncio.create_task(_feed(runtime, cluster))
    working = asyncio.create_task(runtime.run_workers(stop))
    try:
        done, _ = await asyncio.wait([feeding, working], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (feeding, working):
            task.cancel()
        await asyncio.gather(feeding, working, return_exceptions=True)


async def _feed(runtime: Runtime, cluster: Cluster) -> None:
    async with aclosing(follow(cluster, WATCHED)) as events:
        async for event in events:
            take(runtime, event)


def take(runtime: Runtime, event: WatchEvent) -> None:
    """One watch event into the runtime."""
    runtime.seen(event.type, event.obj)
