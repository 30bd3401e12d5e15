"""The directory behind a local cluster: one JSON file an object, and a journal of the changes.

    <dir>/objects/<plural>[.<group>]/<namespace>/<name>.json     what is now
    <dir>/journal                                                a header, then one line a change, newest last
    <dir>/lock                                                   held (flock) during one write, by any process

The journal line is the commit: it is on disk before the object's file is replaced. A process killed at any
point leaves at worst a torn last line (never acknowledged; cut off by the next writer) or a file that is
behind its journal (the journal wins on reading). Every process follows the journal, so a read costs one `stat`.
Knows nothing of Kubernetes beyond names and versions.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .protocol import KINDS, Obj, Ref, Unavailable, ref_of

COMPACT_BYTES = 16 * 1024 * 1024
"""Size at which the journal starts anew; watches from before must list again."""
KEPT_CHANGES = 10_000

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


class Change(NamedTuple):
    """One committed write; `obj` is the object after it (for DELETED: as it was last)."""

    version: int
    type: ChangeType
    obj: Obj


@dataclass
class Journal:
    """All objects of a directory in memory, kept level with the files. One a process and directory."""

    root: Path
    objects: dict[Ref, Obj] = field(default_factory=dict)
    changes: deque[Change] = field(default_factory=lambda: deque(maxlen=KEPT_CHANGES))
    version: int = 0
    oldest: int = 0
    """A watch can continue from this version or a later one."""
    _dirty: set[Ref] = field(default_factory=set)
    """Objects whose last word is in the journal."""
    _inode: int = -1
    _offset: int = 0

    def refresh(self) -> bool:
        """Read what other processes wrote since; True if anything changed."""
        found = self._stat()
        if found is None or (found.st_ino == self._inode and found.st_size == self._offset):
            return False
        with self._locked(fcntl.LOCK_SH):
            return self._catch_up()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Exclusive among processes, with memory up to date. Blocks for as long as another writes (milliseconds)."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._locked(fcntl.LOCK_EX):
            if self._stat() is None:
                self._start(0)
            self._catch_up()
            self._cut_torn_line()
            if self._offset > COMPACT_BYTES:
                self.compact()
            yield

    def commit(self, kind: ChangeType, obj: Obj) -> None:
        """Append one change and bring the object's file level. Only inside `writing()`."""
        change = Change(self.version + 1, kind, obj)
        line = json.dumps(change._asdict(), separators=(",", ":")).encode() + b"\n"
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._offset += len(line)
        self._take(change)
        self._write_file(ref_of(obj), None if kind == "DELETED" else obj, durable=False)  # the journal is durable

    def compact(self) -> None:
        """Make the files level and durable, then start an empty journal. Only inside `writing()`.

        Until the journal is replaced the old one still has every change, so a kill in between loses nothing.
        """
        for ref in self._dirty:
            self._write_file(ref, self.objects.get(ref), durable=True)
        for folder in {self._file(ref).parent for ref in self._dirty}:
            if folder.exists():
                _sync(folder)
        self._start(self.version)

    @property
    def _path(self) -> Path:
        return self.root / "journal"

    def _stat(self) -> os.stat_result | None:
        try:
            return self._path.stat()
        except FileNotFoundError:
            return None

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with (self.root / "lock").open("a") as lock:
            fcntl.flock(lock, how)
            yield

    def _catch_up(self) -> bool:
        """Follow the journal; load everything when it is another one. Only under the lock."""
        found = self._path.stat()
        if found.st_ino == self._inode:
            return self._follow()
        self.objects.clear()
        self.changes.clear()
        self._dirty.clear()
        self._inode, self._offset = found.st_ino, 0
        for path in (self.root / "objects").glob("*/*/*.json"):
            obj = _read(path)
            if obj is not None:
                self.objects[ref_of(obj)] = obj
        return self._follow()

    def _follow(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline was never committed
        for line in lines:
            self._take_line(line)
            self._offset += len(line) + 1
        return bool(lines)

    def _take_line(self, line: bytes) -> None:
        try:
            record: dict[str, Any] = json.loads(line)
        except ValueError as error:
            what = f"{self._path}: damaged at byte {self._offset} ({error})"
            raise Unavailable(f"{what}; restore it from a copy, or use a new directory") from None
        if "start" in record:
            self.version = self.oldest = record["start"]
        else:
            self._take(Change(record["version"], record["type"], record["obj"]))

    def _take(self, change: Change) -> None:
        ref = ref_of(change.obj)
        self._dirty.add(ref)
        if change.type == "DELETED":
            self.objects.pop(ref, None)
        else:
            self.objects[ref] = change.obj
        if len(self.changes) == self.changes.maxlen:
            self.oldest = self.changes[0].version
        self.changes.append(change)
        self.version = change.version

    def _cut_torn_line(self) -> None:
        if self._path.stat().st_size > self._offset:
            os.truncate(self._path, self._offset)

    def _start(self, version: int) -> None:
        new = self.root / "journal.new"
        with new.open("wb") as file:
            file.write(json.dumps({"start": version}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            self._inode, self._offset = os.fstat(file.fileno()).st_ino, file.tell()
        new.rename(self._path)
        _sync(self.root)
        self.version = self.oldest = version
        self.changes.clear()
        self._dirty.clear()

    def _file(self, ref: Ref) -> Path:
        kind = KINDS[ref.kind]
        folder = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
        return self.root / "objects" / folder / (ref.namespace or "_cluster") / f"{ref.name}.json"

    def _write_file(self, ref: Ref, obj: Obj | None, durable: bool) -> None:
        path = self._file(ref)
        if obj is None:
            path.unlink(missing_ok=True)
        else:
            _replace(path, obj, durable)


def _replace(path: Path, obj: Obj, durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        json.dump(obj, file, indent=1)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(path)


def _sync(folder: Path) -> None:
    """Make the renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> Obj | None:
    """An object's file; None for one that was never completed (the journal then has the object)."""
    try:
        found: Obj = json.loads(path.read_text())
    except (ValueError, FileNotFoundError):
        return None
    return found
