"""A Cluster in which every write is asked about first. It decides nothing: who may write is the guard's to say."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from typing import Literal, TypeVar

from bessemer_operator.cluster.protocol import Cluster, Listing, Obj, Propagation, Ref, WatchEvent, ref_of

T = TypeVar("T")
Guard = Callable[[str, Ref], None]
"""Told the verb and what would be written; raises ClusterError to refuse."""


class GuardedCluster:
    """Passes everything on to `cluster`; writes only after the guard let them."""

    def __init__(self, cluster: Cluster, guard: Guard) -> None:
        self.cluster = cluster
        self._guard = guard

    async def _write(self, verb: str, ref: Ref, call: Callable[[], Awaitable[T]]) -> T:
        self._guard(verb, ref)
        return await call()

    async def get(self, ref: Ref) -> Obj:
        return await self.cluster.get(ref)

    async def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Listing:
        return await self.cluster.list(kind, namespace, labels)

    async def create(self, obj: Obj) -> Obj:
        return await self._write("create", ref_of(obj), lambda: self.cluster.create(obj))

    async def update(self, obj: Obj) -> Obj:
        return await self._write("update", ref_of(obj), lambda: self.cluster.update(obj))

    async def apply(self, obj: Obj, field_manager: str) -> Obj:
        return await self._write("apply", ref_of(obj), lambda: self.cluster.apply(obj, field_manager))

    async def apply_status(self, obj: Obj, field_manager: str, resource_version: str | None = None) -> Obj:
        return await self._write(
            "applyStatus", ref_of(obj), lambda: self.cluster.apply_status(obj, field_manager, resource_version)
        )

    async def patch_annotations(self, ref: Ref, annotations: Mapping[str, str | None]) -> Obj:
        return await self._write("annotate", ref, lambda: self.cluster.patch_annotations(ref, annotations))

    async def delete(
        self,
        ref: Ref,
        propagation: Propagation = "Background",
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        await self._write("delete", ref, lambda: self.cluster.delete(ref, propagation, uid, grace_seconds))

    def watch(
        self, kinds: Collection[str], since: Mapping[str, str], namespace: str | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        return self.cluster.watch(kinds, since, namespace)

    async def pod_log(self, ref: Ref, container: str | None = None, tail_lines: int | None = None) -> str:
        return await self.cluster.pod_log(ref, container, tail_lines)

    async def record_event(self, obj: Obj, event_type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        await self._write("event", ref_of(obj), lambda: self.cluster.record_event(obj, event_type, reason, message))

    async def close(self) -> None:
        await self.cluster.close()
