"""Checkpoints of a running stage: save, find, retain. Knows no model and no DeepSpeed.

A checkpoint is a folder (or prefix) `step-<n>-<digest12>` whose manifest was written last and whose name carries the
first 12 digits of the manifest's sha256. Whatever has no such manifest does not exist. Files are hashed while they are
written and verified before they are read.
"""

import contextlib
import errno
import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter, ValidationError

from bessemer_trainer.backends import MANIFEST, disk_errors
from bessemer_trainer.disk import Disk
from bessemer_trainer.dist import Gang
from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.store import FileEntry, Manifest, Store, describe, is_safe_path

_ABANDONED_SECONDS = 86_400
"""An unfinished save that nobody added a file to for so long will never be finished."""

_NAME = re.compile(r"step-(\d+)-([0-9a-f]{12})")
_ENTRIES = TypeAdapter(list[FileEntry])
_MANIFEST_OF_JSON = TypeAdapter(Manifest)


class HashingFile:
    """A file that is hashed while it is written. Looks enough like a binary file for torch.save."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._file: BinaryIO = disk.create(path)
        self._digest = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1)
        self.size = 0

    def write(self, data: Any) -> int:  # noqa: ANN401 - anything with a buffer
        view = memoryview(data).cast("B")
        hashed = self._hasher.submit(self._digest.update, view)  # both work outside of Python's lock, side by side
        try:
            self._disk.write(self._file, view)
        finally:
            hashed.result()
        self.size += len(view)
        return len(view)

    def flush(self) -> None:
        """torch.save calls it; what counts is the fsync at the end."""

    def close(self) -> str:
        """Fsync and close; the hexadecimal sha256 of all that was written."""
        try:
            self._disk.sync(self._file)
        finally:
            self._file.close()
            self._hasher.shutdown()
        return self._digest.hexdigest()


class ShardWriter:
    """The files of one rank. Never raises while writing: other ranks may wait in a collective. `finish` does."""

    def __init__(self, disk: Disk, folder: Path, rank: int) -> None:
        self.folder = folder
        self._disk = disk
        self._rank = rank
        self._entries: list[FileEntry] = []
        self._error: OSError | None = None

    def write(self, path: str, data: bytes) -> None:
        """Write one file; `path` is relative to the folder."""
        self.write_with(path, lambda file: file.write(data))

    def write_with(self, path: str, fill: Callable[[HashingFile], Any]) -> None:
        """Write one file with what `fill` gives."""
        if self._error is not None:
            return
        try:
            self._write(path, fill)
        except OSError as error:
            self._error = error
        except RuntimeError as error:  # torch.save hides the cause in its own error
            cause = error.__context__
            if not isinstance(cause, OSError):
                raise
            self._error = cause

    def _write(self, path: str, fill: Callable[[HashingFile], Any]) -> None:
        target = self.folder / path
        if target.parent != self.folder:
            self._disk.mkdir(target.parent)
        file = HashingFile(self._disk, target)
        try:
            fill(file)
        finally:
            sha256 = file.close()
        self._disk.sync_folder(target.parent)
        self._entries.append(FileEntry(path, file.size, sha256))

    def finish(self) -> list[FileEntry]:
        """Write `rank-<k>.json`, the list of this rank's files. Raises what went wrong while writing."""
        with disk_errors(str(self.folder)):
            if self._error is not None:
                raise self._error
            note = json.dumps([asdict(entry) for entry in self._entries]).encode()
            _write_file(self._disk, self.folder / f"rank-{self._rank}.json", note)
        return self._entries


def _write_file(disk: Disk, path: Path, data: bytes) -> None:
    with disk.create(path) as file:
        disk.write(file, memoryview(data))
        disk.sync(file)


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint that was verified: optimizer steps done, a local folder with its files, and what was said of it."""

    step: int
    folder: Path
    meta: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run folder. Every method is called by all ranks together."""

    def __init__(self, store: Store, run: str, owner: str, gang: Gang, scratch: Path, disk: Disk | None = None) -> None:
        """`owner`: equal on all ranks and in all attempts of one stage, different in another that trains the same."""
        self._store = store
        self._run = run
        self._owner = hashlib.sha256(owner.encode()).hexdigest()[:12]
        self._gang = gang
        self._disk = disk or Disk()
        self._local = store.backend.local_path(run)
        self._scratch = scratch / "checkpoints"
        self._verified: set[int] = set()

    # ---- save

    def save(self, step: int, attempt: int, fill: Callable[[ShardWriter], None], meta: Mapping[str, Any]) -> None:
        """Save after `step` optimizer steps; `fill` writes this rank's files. All ranks raise the same error.

        Raises TransientError(DiskFull | StoreFailed); what was saved before stays.
        """
        folder = (self._local or self._scratch) / f".tmp-{self._owner}-{step}-{attempt}"
        try:
            self._gang.agree(lambda: self._prepare(folder))
            writer = ShardWriter(self._disk, folder, self._gang.rank)
            fill(writer)
            entries = self._gang.agree(writer.finish)
            if self._local is not None:
                self._gang.first(lambda: self._publish_folder(folder, step, meta))
            else:
                self._publish_objects(folder, step, meta, entries)
        except (TransientError, PermanentError):
            if self._removes():
                shutil.rmtree(folder, ignore_errors=True)  # gives the space back; it was never visible
            raise
        self._verified.add(step)

    def _removes(self) -> bool:
        """Shared folder: the first rank. Scratch: the first rank of each pod."""
        return self._gang.is_first if self._local is not None else self._gang.local_rank == 0

    def _prepare(self, folder: Path) -> None:
        """Every rank may come first; a leftover of a killed attempt was removed when this one started."""
        with disk_errors(str(folder)):
            self._disk.mkdir(folder)

    def _manifest(self, step: int, meta: Mapping[str, Any], entries: list[FileEntry]) -> tuple[str, bytes]:
        document = {**meta, "step": step, "worldSize": self._gang.world_size}
        manifest = Manifest(1, "training-state", tuple(sorted(entries, key=lambda e: e.path)), document).to_json()
        return f"step-{step}-{hashlib.sha256(manifest).hexdigest()[:12]}", manifest

    def _publish_folder(self, folder: Path, step: int, meta: Mapping[str, Any]) -> None:
        """Check that every rank's files are there; manifest; rename; only then is the checkpoint visible."""
        with disk_errors(str(folder)):
            entries = [entry for rank in range(self._gang.world_size) for entry in _note(folder, rank)]
            name, manifest = self._manifest(step, meta, entries)
            for rank in range(self._gang.world_size):
                self._disk.remove(folder / f"rank-{rank}.json")
            _write_file(self._disk, folder / MANIFEST, manifest)
            self._disk.sync_folder(folder)
            self._make_visible(folder, folder.parent / name, manifest, entries)

    def _make_visible(self, folder: Path, final: Path, manifest: bytes, entries: list[FileEntry]) -> None:
        """Rename, unless an equal one is there: of a stage that trains the same at this very time, or a damaged one."""
        if final.exists() and not _is_whole(final, manifest, entries):
            self._remove_folder(final)
        try:
            self._disk.rename(folder, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._disk.remove_tree(folder)
        self._disk.sync_folder(final.parent)

    def _publish_objects(self, folder: Path, step: int, meta: Mapping[str, Any], entries: list[FileEntry]) -> None:
        everyone = [entry for part in self._gang.gather(entries) for entry in part]
        name, manifest = self._manifest(step, meta, everyone)
        prefix = f"{self._run}/{name}"
        self._gang.agree(lambda: self._upload(prefix, folder, entries))
        self._gang.first(lambda: self._store.create(f"{prefix}/{MANIFEST}", manifest))
        if self._gang.local_rank == 0:
            shutil.rmtree(folder, ignore_errors=True)

    def _upload(self, prefix: str, folder: Path, entries: list[FileEntry]) -> None:
        for entry in entries:
            self._store.backend.upload(f"{prefix}/{entry.path}", folder / entry.path)

    # ---- find

    def newest(self, expected: Mapping[str, Any]) -> Found | None:
        """The newest checkpoint whose every file was verified; None when there is none.

        Raises PermanentError(WorldSizeChanged | SettingsChanged) when that checkpoint was saved by another number of
        ranks, or when its meta differs from `expected`.
        """
        self._gang.first(self._clean)
        if self._gang.local_rank == 0:
            shutil.rmtree(self._scratch, ignore_errors=True)
        for name, manifest in self._gang.first(self._visible):
            found = self._examine(name, manifest, expected)
            if found is not None:
                return found
        return None

    def _examine(self, name: str, manifest: Manifest, expected: Mapping[str, Any]) -> Found | None:
        """One candidate; None when a file of it is damaged, on whatever rank that is seen."""
        self._gang.agree(lambda: self._check_fits(name, manifest, expected))
        folder = (self._local or self._scratch) / name
        problem = self._gang.agree(lambda: self._check(name, manifest, folder))
        problems = [text for text in self._gang.gather(problem) if text]
        if problems:
            if self._gang.is_first:
                sys.stderr.write(f"warning: checkpoint {name} is damaged ({problems[0]}); going back to an older one\n")
            return None
        step = int(manifest.meta["step"])
        self._verified.add(step)
        return Found(step, folder, manifest.meta)

    def _clean(self) -> None:
        """Remove what killed attempts left unfinished. The operator never runs two attempts of one stage at once.

        Another pipeline may train the same stage: what it has not finished is its own for a day.
        """
        if self._local is None or not self._local.is_dir():
            return
        for path in self._local.glob(".tmp-*"):
            with contextlib.suppress(FileNotFoundError):
                age = time.time() - path.stat().st_mtime  # noqa: TID251 - the shell asks how old a file is
                if age > _ABANDONED_SECONDS or path.name.startswith(f".tmp-{self._owner}-"):
                    shutil.rmtree(path, ignore_errors=True)

    def _visible(self) -> list[tuple[str, Manifest]]:
        """Names and manifests of what exists, newest first. A manifest that does not fit its name does not exist."""
        names = {key.split("/")[2] for key in self._store.list(self._run) if key.endswith(f"/{MANIFEST}")}
        found = [(name, self._read_manifest(name)) for name in names if _NAME.fullmatch(name)]
        valid = [(name, manifest) for name, manifest in found if manifest is not None]
        return sorted(valid, key=lambda item: (int(item[1].meta["step"]), item[0]), reverse=True)

    def _read_manifest(self, name: str) -> Manifest | None:
        data = self._store.read(f"{self._run}/{name}/{MANIFEST}") or b""
        step, digest = name.removeprefix("step-").split("-")
        if hashlib.sha256(data).hexdigest()[:12] != digest:
            return None
        try:
            manifest = _MANIFEST_OF_JSON.validate_json(data)
        except ValidationError:
            return None
        is_own = manifest.meta.get("step") == int(step) and all(is_safe_path(entry.path) for entry in manifest.files)
        return manifest if is_own else None

    def _check_fits(self, name: str, manifest: Manifest, expected: Mapping[str, Any]) -> None:
        saved_by = manifest.meta.get("worldSize")
        if saved_by != self._gang.world_size:
            raise PermanentError(
                "WorldSizeChanged",
                f"checkpoint {name} was saved by {saved_by} ranks and this attempt has {self._gang.world_size}; "
                f"give the stage {saved_by} GPUs again, or start it anew with rerun-from",
            )
        for key, value in expected.items():
            if manifest.meta.get(key) != value:
                raise PermanentError(
                    "SettingsChanged",
                    f"checkpoint {name} was saved with {key} {manifest.meta.get(key)} and this attempt has {value}; "
                    "set it back, or start the stage anew with rerun-from",
                )

    def _check(self, name: str, manifest: Manifest, folder: Path) -> str:
        """Verify this rank's share of the files (those of S3 are downloaded first); what is wrong, or ''."""
        for entry in manifest.files[self._gang.local_rank :: self._gang.local_world_size]:
            if self._local is None:
                self._store.backend.download(f"{self._run}/{name}/{entry.path}", folder / entry.path)
            if not (folder / entry.path).is_file():
                return f"{entry.path} is missing"
            with disk_errors(str(folder)):
                if describe(folder, entry.path) != entry:
                    return f"{entry.path} was changed"
        return ""

    # ---- retain

    def retain(self, keep_last: int) -> None:
        """Remove what is older than the last `keep_last` that this attempt wrote or verified."""
        kept = sorted(self._verified, reverse=True)[:keep_last]
        if len(kept) == keep_last:
            self._gang.first(lambda: self._remove_before(kept[-1]))

    def _remove_before(self, step: int) -> None:
        names = {key.split("/")[2] for key in self._store.list(self._run) if key.count("/") > 2}
        for name in sorted(names):
            match = _NAME.fullmatch(name)
            if match and int(match[1]) < step:
                self._remove(name)

    def _remove(self, name: str) -> None:
        if self._local is not None:
            with disk_errors(str(self._local)):
                self._remove_folder(self._local / name)
            return
        self._store.backend.delete(f"{self._run}/{name}/{MANIFEST}")
        for key in self._store.list(f"{self._run}/{name}"):
            self._store.backend.delete(key)

    def _remove_folder(self, folder: Path) -> None:
        """The manifest first: from then on the checkpoint does not exist. Another run may be removing it too."""
        with contextlib.suppress(FileNotFoundError):
            if (folder / MANIFEST).exists():
                self._disk.remove(folder / MANIFEST)
                self._disk.sync_folder(folder)
            self._disk.remove_tree(folder)


def _is_whole(folder: Path, manifest: bytes, entries: list[FileEntry]) -> bool:
    """Whether the checkpoint in `folder` has this manifest, and all its files are as they were written."""
    paths = [folder / MANIFEST, *(folder / entry.path for entry in entries)]
    if not all(path.is_file() for path in paths) or paths[0].read_bytes() != manifest:
        return False
    return all(describe(folder, entry.path) == entry for entry in entries)


def _note(folder: Path, rank: int) -> list[FileEntry]:
    """What `rank` said it wrote, checked against what is there."""
    entries = _ENTRIES.validate_json((folder / f"rank-{rank}.json").read_bytes())
    for entry in entries:
        if (folder / entry.path).stat().st_size != entry.size:
            raise TransientError(
                "StoreFailed", f"{folder / entry.path}: written with {entry.size} bytes, but has fewer"
            )
    return entries
