"""The loop: events feed the cache and the queue, workers take keys and reconcile; for local runs and the operator."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from bessemer_operator.cluster.follow import follow
from bessemer_operator.cluster.protocol import Cluster, ClusterError, Conflict
from bessemer_operator.reconcile.cache import OWN_KINDS, WATCHED, Cache, Key, Obj, key_of
from bessemer_operator.reconcile.controller import Controller, Refused
from bessemer_operator.reconcile.progress import poll_progress
from bessemer_operator.reconcile.queue import Closed, WorkQueue

log = logging.getLogger("bessemer")
WORKERS = 8
STOP_SECONDS = 10.0
"""What is under way when the loop is stopped gets so long to end."""
LOCAL_PROGRESS_SECONDS = 1.0
Measured = Callable[[Key, float, str], None]
"""Called after each reconcile with the key, its seconds and its outcome (ok, conflict, refused, error)."""


@dataclass
class Runtime:
    """Cache, queue and workers around one controller."""

    controller: Controller
    queue: WorkQueue[Key] = field(default_factory=lambda: WorkQueue(time.monotonic))
    measured: Measured = lambda key, seconds, outcome: None

    def __post_init__(self) -> None:
        self.controller.on_write = self.wrote

    @property
    def cache(self) -> Cache:
        """What was last seen."""
        return self.controller.cache

    def seen(self, event_type: str, obj: Obj) -> bool:
        """Take one event in: remember the object, and make whoever it concerns due. Whether it told anything new."""
        if event_type == "BOOKMARK":
            return False
        before = self.cache.owner(obj)
        if event_type == "DELETED":
            self.cache.remove(obj)
        elif not self.cache.put(obj):
            return False
        self._enqueue(obj, before)
        return True

    def wrote(self, obj: Obj, by: Key) -> None:
        """The reconcile of `by` wrote `obj`: the event about it will tell nothing new, so others are told now."""
        self._enqueue(obj, None, but=by)

    def _enqueue(self, obj: Obj, owner_before: Key | None, but: Key | None = None) -> None:
        own = key_of(obj) if obj["kind"] in OWN_KINDS else None
        for key in {own, owner_before, self.cache.owner(obj)}:
            if key is not None and key != but:
                self.queue.add(key)

    async def run_workers(self, stop: asyncio.Event, workers: int = WORKERS) -> None:
        """Reconcile what is due until `stop` is set; what is under way then is finished."""
        tasks = [asyncio.create_task(self._work()) for _ in range(workers)]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self.queue.close()
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        finally:
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            try:
                await self.handle(await self.queue.take())
            except Closed:
                return

    async def handle(self, key: Key) -> str:
        """Reconcile a key that was taken from the queue, and give it back; the outcome."""
        begun = time.monotonic()
        outcome = await self._reconcile(key)
        self.measured(key, time.monotonic() - begun, outcome)
        # After a conflict the newer state decides, if it is there already.
        is_outdated = outcome == "conflict" and self.queue.has_news(key)
        self.queue.done(key, failed=outcome != "ok" and not is_outdated)
        return outcome

    async def _reconcile(self, key: Key) -> str:
        try:
            requeue = await self.controller.reconcile(key)
        except Conflict:
            return "conflict"
        except (ClusterError, Refused) as error:
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
    """Feed the runtime from a cluster's own watch, poll progress, and run its workers until `stop` is set."""
    feeding = asyncio.create_task(_feed(runtime, cluster))
    polling = asyncio.create_task(poll_progress(runtime.controller, runtime.queue.add, LOCAL_PROGRESS_SECONDS))
    working = asyncio.create_task(runtime.run_workers(stop))
    tasks = (feeding, polling, working)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _feed(runtime: Runtime, cluster: Cluster) -> None:
    async with aclosing(follow(cluster, WATCHED)) as events:
        async for event in events:
            runtime.seen(event.type, event.obj)
