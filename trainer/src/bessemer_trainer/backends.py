"""Where the store's bytes live: the operations that a store needs, and a local folder that has them (S3: objects.py).

Operations only; what the keys mean is the store's business. Every backend gives the same promises:
`create` is all or nothing and only if absent; a folder that was published appears whole
or not at all. Errors of the world become PermanentError or TransientError here, and only here.
"""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bessemer_trainer.errors import PermanentError, TrainerError, TransientError

MANIFEST = "manifest.json"
_FULL = {errno.ENOSPC: "is full", errno.EDQUOT: "has used up its quota", errno.EFBIG: "allows no larger file"}
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""numpy's tofile says it without a number."""
_NUMBER = re.compile(r"\(os error (\d+)\)")
"""Libraries in Rust (safetensors, tokenizers) say it in the text alone."""
_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


@dataclass(frozen=True, slots=True)
class Shared:
    """Files of an artifact that another one has too: below which key they are, and a local copy of them, verified."""

    key: str
    folder: Path
    files: tuple[tuple[str, int], ...]
    """Path and bytes of each."""


class Backend(Protocol):
    """What the store needs. Keys are relative POSIX paths."""

    def read(self, key: str) -> bytes | None: ...
    def create(self, key: str, data: bytes) -> bool: ...
    def write(self, key: str, data: bytes) -> None: ...
    def keys(self, prefix: str) -> list[str]: ...
    def delete(self, key: str) -> None: ...
    def upload(self, key: str, path: Path) -> None: ...
    def download(self, key: str, path: Path) -> None: ...
    def local_path(self, key: str) -> Path | None: ...
    def publish_folder(
        self, key: str, folder: Path, files: list[str], manifest: bytes, shared: Shared | None = None
    ) -> None: ...


@contextlib.contextmanager
def disk_errors(where: str) -> Iterator[None]:
    """Turn an OSError into an error that says what to do: a full disk may be helped, a refusal may not."""
    try:
        yield
    except TrainerError:
        raise
    except Exception as error:
        explained = _explain(where, error)
        if explained is None:
            raise
        raise explained from error


def _explain(where: str, error: Exception) -> TrainerError | None:
    """What to do about an error of the disk; None for an error that is none."""
    number = _number(error)
    if number in _FULL:
        return TransientError(
            "DiskFull",
            f"{where} {_FULL[number]} ({os.strerror(number)}); free space or enlarge it; "
            "the next attempt continues from the newest checkpoint",
        )
    if not isinstance(error, OSError):
        return None
    place = error.filename or where
    if number in _REFUSED:
        return PermanentError("StoreUnusable", f"{place}: {error.strerror}; the pod's user needs write access to it")
    return TransientError("StoreFailed", f"{place}: {error.strerror or error}")


def _number(error: Exception) -> int:
    """The errno, wherever the library left it; 0 when there is none."""
    if isinstance(error, OSError):
        return errno.ENOSPC if _SHORT_WRITE.fullmatch(str(error)) else error.errno or 0
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else 0


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and fsync it; its name becomes durable only with fsync_folder."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class LocalFolder:
    """A folder of a file system that keeps POSIX's promises (rename and link are atomic): a disk, NFS, a PVC."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def local_path(self, key: str) -> Path | None:
        return self._root / key

    def read(self, key: str) -> bytes | None:
        with disk_errors(str(self._root)):
            try:
                return (self._root / key).read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                return None

    def create(self, key: str, data: bytes) -> bool:
        path = self._root / key
        with disk_errors(str(path)), self._temporary(path, data) as temporary:
            try:
                os.link(temporary, path)  # unlike rename, link refuses to replace
            except FileExistsError:
                return False
            fsync_folder(path.parent)
            return True

    def write(self, key: str, data: bytes) -> None:
        path = self._root / key
        with disk_errors(str(path)), self._temporary(path, data) as temporary:
            temporary.rename(path)
            fsync_folder(path.parent)

    @contextlib.contextmanager
    def _temporary(self, path: Path, data: bytes) -> Iterator[Path]:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".tmp-{uuid.uuid4().hex}"
        try:
            write_durably(temporary, data)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def keys(self, prefix: str) -> list[str]:
        """Temporary names are left out."""
        folder = self._root / prefix
        with disk_errors(str(folder)):
            keys = (path.relative_to(self._root) for path in folder.rglob("*") if path.is_file())
            return sorted(key.as_posix() for key in keys if not any(part.startswith(".tmp-") for part in key.parts))

    def delete(self, key: str) -> None:
        with disk_errors(str(self._root / key)):
            (self._root / key).unlink(missing_ok=True)

    def upload(self, key: str, path: Path) -> None:
        target = self._root / key
        with disk_errors(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_durably(path, target)

    def download(self, key: str, path: Path) -> None:
        with disk_errors(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._root / key, path)

    def publish_folder(
        self, key: str, folder: Path, files: list[str], manifest: bytes, shared: Shared | None = None
    ) -> None:
        """Copy into a temporary folder beside the final one, manifest last, then rename. What is shared is linked."""
        final = self._root / key
        with disk_errors(str(final)):
            if (final / MANIFEST).exists():
                return
            temporary = final.parent / f".tmp-{uuid.uuid4().hex}"
            try:
                _copy_all(folder, temporary, files)
                if shared is not None:
                    for path, _ in shared.files:
                        _link(self._root / shared.key / path, temporary / path)
                write_durably(temporary / MANIFEST, manifest)
                fsync_folder(temporary)
                _rename_unless_there(temporary, final)
                fsync_folder(final.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


def _copy_all(source: Path, target: Path, files: list[str]) -> None:
    target.mkdir(parents=True)
    for path in files:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        _copy_durably(source / path, target / path)
    for folder in {(target / path).parent for path in files}:
        fsync_folder(folder)


def _link(source: Path, target: Path) -> None:
    """A second name for the same bytes; a copy where the file system gives a file no second name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy_durably(source, target)
    fsync_folder(target.parent)


def _rename_unless_there(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if (final / MANIFEST).exists():
            return  # an equal artifact that another pod just published is as good as ours
        debris = temporary.with_name(temporary.name + "-old")  # a folder without a manifest does not exist
        final.rename(debris)
        temporary.rename(final)
        shutil.rmtree(debris, ignore_errors=True)


def _copy_durably(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())
