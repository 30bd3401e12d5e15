"""A directory that behaves as an API server: versions, server-side apply, owners, watches, preconditions.

For runs without a cluster. What it does is held to a real API server by one table of conformance tests.
What it leaves out, on purpose: namespaces need not exist, there are no accounts, and no admission but admission.py.
Any process may read and write; the one that runs the pipeline holds `claim()`. See journal.py for the files.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import random
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Literal

from . import managed, objects
from .admission import admit
from .clock import stamp, utc_now
from .journal import ChangeType, Journal
from .protocol import (
    AlreadyExists,
    Conflict,
    Expired,
    Invalid,
    Kind,
    Listing,
    NotFound,
    Obj,
    Propagation,
    Ref,
    Unavailable,
    WatchEvent,
    kind_of,
    ref_of,
)

POLL_SECONDS = 0.05
"""How soon a watch sees what another process wrote."""
KEPT_EVENTS = 500
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # as the API server: no vowels, nothing that looks alike


class LocalCluster:
    """A `Cluster` in a directory. Writes are durable (fsync) before they return."""

    def __init__(self, root: Path, clock: Callable[[], datetime] = utc_now, logs: Path | None = None) -> None:
        """`logs` is where the kubelet of this directory puts the logs of pods."""
        self.root = root
        self._logs = logs or root / "pods"
        self._journal = Journal(root)
        self._clock = clock
        self._waiting: set[asyncio.Event] = set()
        self._owner: IO[str] | None = None
        self.failure: Unavailable | None = None
        """Why a write was not done: the disk is full, or broken."""

    def claim(self) -> None:
        """Become the one process that runs this directory's pods and controllers, until `close()`.

        Also finishes what a killed owner left: files behind the journal, dependents of deleted objects.
        Raises Unavailable when another process has it, or when the directory can not be used.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            owner = (self.root / "owner.lock").open("a")
        except OSError as error:
            raise Unavailable(f"{error.filename or self.root} can not be used: {error.strerror}") from None
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner.close()
            raise Unavailable(f"{self.root} is in use by another bessemer process; stop that one first") from None
        self._owner = owner
        with self._writing():
            self._journal.compact()
            self._collect_orphans()

    async def get(self, ref: Ref) -> Obj:
        self._refresh()
        return _copy(self._live(ref))

    async def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Listing:
        kind_of(kind)
        self._refresh()
        found = [
            _copy(obj)
            for ref, obj in sorted(self._journal.objects.items())
            if ref.kind == kind and namespace in (None, ref.namespace) and objects.has_labels(obj, labels)
        ]
        return Listing(tuple(found), str(self._journal.version))

    async def create(self, obj: Obj) -> Obj:
        obj = _copy(obj)
        meta = obj.setdefault("metadata", {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"][:58] + "".join(random.choices(_SUFFIX_LETTERS, k=5))  # noqa: S311 - a name, not a secret
        ref = ref_of(obj)
        if meta.get("resourceVersion"):
            raise Invalid(f"{ref}: resourceVersion should not be set on objects to be created")
        with self._writing():
            if ref in self._journal.objects:
                raise AlreadyExists(f"{ref} already exists")
            return self._create(ref, managed.without_server_fields(obj, kind_of(ref.kind)), "bessemer", "Update")

    async def update(self, obj: Obj) -> Obj:
        ref, kind = ref_of(obj), kind_of(obj["kind"])
        with self._writing():
            old = self._live(ref)
            self._check_version(ref, old, obj["metadata"].get("resourceVersion"))
            new = managed.updated(old, managed.without_server_fields(_copy(obj), kind), kind)
            return self._write(ref, old, managed.record_update(old, new, "bessemer", self._now()))

    async def apply(self, obj: Obj, field_manager: str) -> Obj:
        ref, kind = ref_of(obj), kind_of(obj["kind"])
        config = managed.without_server_fields(_copy(obj), kind)
        with self._writing():
            old = self._journal.objects.get(ref)
            self._check_version(ref, old, obj["metadata"].get("resourceVersion"))
            if old is None:
                return self._create(ref, config, field_manager, "Apply")
            return self._write(ref, old, managed.applied(old, config, (field_manager, ""), self._now()))

    async def apply_status(self, obj: Obj, field_manager: str, resource_version: str | None = None) -> Obj:
        ref, kind = ref_of(obj), kind_of(obj["kind"])
        if not kind.has_status:
            raise NotFound(f"{ref}: {kind.plural} have no status")
        with self._writing():
            old = self._live(ref)
            self._check_version(ref, old, resource_version)
            if not kind.is_custom and obj["metadata"].get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
                raise Invalid(f"{ref} is invalid: metadata.uid: field is immutable")
            status = {"status": _copy(obj.get("status") or {})}
            return self._write(ref, old, managed.applied(old, status, (field_manager, "status"), self._now()))

    async def replace_status(self, obj: Obj, manager: str) -> Obj:
        """PUT of the status, as the built-in controllers write it; `obj`'s version is the precondition."""
        ref = ref_of(obj)
        with self._writing():
            old = self._live(ref)
            self._check_version(ref, old, obj["metadata"].get("resourceVersion"))
            new = {**old, "status": _copy(obj["status"])}
            return self._write(ref, old, managed.record_update(old, new, manager, self._now()))

    async def patch_annotations(self, ref: Ref, annotations: Mapping[str, str | None]) -> Obj:
        with self._writing():
            old = self._live(ref)
            found = {**(old["metadata"].get("annotations") or {}), **annotations}
            kept = {key: value for key, value in found.items() if value is not None}
            meta = {key: value for key, value in old["metadata"].items() if key != "annotations"}
            new = {**old, "metadata": {**meta, **({"annotations": kept} if kept else {})}}
            return self._write(ref, old, managed.record_update(old, new, "bessemer-annotate", self._now()))

    async def delete(
        self,
        ref: Ref,
        propagation: Propagation = "Background",
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        with self._writing():
            live = self._live(ref)
            self._check_uid(ref, live, uid)
            if propagation == "Orphan":
                self._release_dependents(live["metadata"]["uid"])
            self._delete(ref, grace_seconds)

    async def watch(
        self, kinds: Collection[str], since: Mapping[str, str], namespace: str | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        start = {kind_of(kind).name: int(since[kind]) for kind in kinds}
        cursor = min(start.values())
        wake = asyncio.Event()
        self._waiting.add(wake)
        try:
            while True:
                wake.clear()
                self._refresh()
                if cursor < self._journal.oldest:
                    raise Expired(f"version {cursor} is too old; the oldest is {self._journal.oldest}")
                for change in [change for change in self._journal.changes if change.version > cursor]:
                    ref, cursor = ref_of(change.obj), change.version
                    is_wanted = ref.kind in start and change.version > start[ref.kind]
                    if is_wanted and namespace in (None, ref.namespace):
                        yield WatchEvent(change.type, _copy(change.obj))
                await _wait(wake, POLL_SECONDS)
        finally:
            self._waiting.discard(wake)

    async def pod_log(self, ref: Ref, container: str | None = None, tail_lines: int | None = None) -> str:
        """From where the executor puts logs; also after the pod is gone (its newest incarnation)."""
        folders = sorted(self._logs.glob(f"{ref.namespace}_{ref.name}_*"), key=lambda folder: folder.stat().st_mtime)
        logs = sorted(folders[-1].glob(f"{container or '*'}.log")) if folders else []
        if not logs:
            raise NotFound(f"{ref}: no log of container {container or '(any)'} under {self._logs}")
        if len(logs) > 1:
            names = ", ".join(log.stem for log in logs)
            raise Invalid(f"{ref}: a container name must be specified, choose one of: {names}")
        lines = logs[0].read_text(errors="replace").splitlines(keepends=True)
        return "".join(lines if tail_lines is None else lines[max(0, len(lines) - tail_lines) :])

    async def record_event(self, obj: Obj, event_type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        event = objects.build_event(obj, ref_of(obj), (event_type, reason, message), self._now())
        ref = ref_of(event)
        with self._writing():
            old = self._journal.objects.get(ref)
            if old is None:
                self._create(ref, event, "bessemer", "Update")
                self._prune_events()
            else:
                self._write(ref, old, {**old, "count": old["count"] + 1, "lastTimestamp": event["lastTimestamp"]})

    async def close(self) -> None:
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def _now(self) -> str:
        return stamp(self._clock())

    def _refresh(self) -> None:
        try:
            self._journal.refresh()
        except OSError as error:
            raise Unavailable(f"{self.root}: {error.strerror}") from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._journal.writing():
                yield
        except OSError as error:
            self.failure = Unavailable(f"{self.root}: {error.strerror}")
            raise self.failure from None
        for wake in self._waiting:
            wake.set()

    def _live(self, ref: Ref) -> Obj:
        if ref not in self._journal.objects:
            raise NotFound(f"{ref} not found")
        return self._journal.objects[ref]

    def _check_version(self, ref: Ref, live: Obj | None, expected: str | None) -> None:
        if not expected:
            return
        if live is None:
            raise NotFound(f"{ref} not found")
        found = live["metadata"]["resourceVersion"]
        if found != expected:
            raise Conflict(f"{ref}: the object has been modified: resourceVersion is {found}, not {expected}")

    def _check_uid(self, ref: Ref, live: Obj, expected: str | None) -> None:
        found = live["metadata"]["uid"]
        if expected and expected != found:
            raise Conflict(f"{ref}: precondition failed: uid is {found}, not {expected}")

    def _create(self, ref: Ref, config: Obj, manager: str, operation: Literal["Apply", "Update"]) -> Obj:
        kind = kind_of(ref.kind)
        born = {"uid": str(uuid.uuid4()), "creationTimestamp": self._now()}
        meta = {**config["metadata"], **born, **({"generation": 1} if kind.has_generation else {})}
        obj = admit(None, {**config, "metadata": meta})
        if kind.name == "Pod":
            obj = {**obj, "status": {"phase": "Pending"}}
        obj = managed.record_creation(obj, config, (manager, operation), self._now())
        objects.check(obj, kind)
        created = self._commit("ADDED", obj)
        if self._is_orphan(created):
            self._delete(ref, None)
        return _copy(created)

    def _write(self, ref: Ref, old: Obj, new: Obj) -> Obj:
        """Commit `new` where it differs from `old`; a write that changes nothing has no version."""
        kind = kind_of(ref.kind)
        new = admit(old, new)
        if managed.desired(new) != managed.desired(old):
            new = {**new, "metadata": _next_generation(new["metadata"], kind)}
        objects.check(new, kind)
        if new == old:
            return _copy(old)
        if _is_released(new, kind):
            self._remove(ref, new)
            return _copy(new)
        return _copy(self._commit("MODIFIED", new))

    def _commit(self, change: ChangeType, obj: Obj) -> Obj:
        version = str(self._journal.version + 1)
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": version}}
        self._journal.commit(change, obj)
        return obj

    def _delete(self, ref: Ref, grace_seconds: int | None) -> None:
        live, kind = self._live(ref), kind_of(ref.kind)
        grace = _grace(live, grace_seconds) if kind.name == "Pod" else 0
        meta = live["metadata"]
        asked = meta.get("deletionGracePeriodSeconds") if "deletionTimestamp" in meta else None
        if grace == 0 and not meta.get("finalizers"):
            self._remove(ref, live)
        elif asked is None or grace < asked:
            when = stamp(self._clock() + timedelta(seconds=grace))
            meta = {**_next_generation(meta, kind), "deletionTimestamp": when, "deletionGracePeriodSeconds": grace}
            self._commit("MODIFIED", {**live, "metadata": meta})

    def _remove(self, ref: Ref, obj: Obj) -> None:
        self._commit("DELETED", obj)
        self._collect(obj["metadata"]["uid"])

    def _collect(self, uid: str) -> None:
        """Delete what only the owner `uid` held."""
        for ref, obj in list(self._journal.objects.items()):
            if uid in objects.owner_uids(obj) and self._is_orphan(obj) and ref in self._journal.objects:
                self._delete(ref, None)

    def _collect_orphans(self) -> None:
        for ref, obj in list(self._journal.objects.items()):
            if self._is_orphan(obj) and ref in self._journal.objects:
                self._delete(ref, None)

    def _is_orphan(self, obj: Obj) -> bool:
        owners = objects.owner_uids(obj)
        return bool(owners) and owners.isdisjoint(live["metadata"]["uid"] for live in self._journal.objects.values())

    def _release_dependents(self, uid: str) -> None:
        for obj in [obj for obj in self._journal.objects.values() if uid in objects.owner_uids(obj)]:
            kept = [owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] != uid]
            meta = {key: value for key, value in obj["metadata"].items() if key != "ownerReferences"}
            self._commit("MODIFIED", {**obj, "metadata": {**meta, **({"ownerReferences": kept} if kept else {})}})

    def _prune_events(self) -> None:
        events = [obj for ref, obj in self._journal.objects.items() if ref.kind == "Event"]
        events.sort(key=lambda event: event["lastTimestamp"])
        for event in events[: len(events) - KEPT_EVENTS]:
            self._commit("DELETED", event)


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):  # wait_for swallows a cancellation that meets the event (Python 3.11)
            await wake.wait()
    except TimeoutError:
        return


def _copy(obj: Obj) -> Obj:
    """A deep copy that also refuses what is not JSON."""
    try:
        copied: Obj = json.loads(json.dumps(obj, allow_nan=False))
        return copied
    except (TypeError, ValueError) as error:
        raise Invalid(f"not JSON: {error}") from None


def _next_generation(meta: dict[str, Any], kind: Kind) -> dict[str, Any]:
    return {**meta, "generation": meta.get("generation", 0) + 1} if kind.has_generation else meta


def _is_released(obj: Obj, kind: Kind) -> bool:
    """Whether a deletion that waited for finalizers can now happen."""
    meta = obj["metadata"]
    held = bool(meta.get("finalizers")) or (kind.name == "Pod" and meta.get("deletionGracePeriodSeconds", 0) > 0)
    return "deletionTimestamp" in meta and not held


def _grace(pod: Obj, asked: int | None) -> int:
    """Seconds that a pod's node gets to stop it; none for a pod that no node runs."""
    if objects.is_finished(pod) or not pod["spec"].get("nodeName"):
        return 0
    found = asked if asked is not None else pod["spec"].get("terminationGracePeriodSeconds", 30)
    return int(found)
