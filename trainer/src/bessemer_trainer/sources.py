"""User data outside of the store: which files a URI means, what their content is, and their bytes.

A URI is an absolute path, `file://` or `s3://`, and names a file or a folder. What can not be meant (`..`, another
host, a link out of the folder, a device) is refused, never repaired. This module knows no document and no item.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bessemer_api.digest import canonical_json, sha256_digest
from bessemer_trainer.compressed import PACKING_ERRORS, unpacked
from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.locations import Bucket, parse_uri
from bessemer_trainer.s3_source import head_s3, list_s3, open_s3

_PACKED = {".gz": "gzip", ".zst": "zstandard", ".xz": "xz"}
DATA_SUFFIXES = tuple(plain + packed for packed in ("", *_PACKED) for plain in (".jsonl", ".json", ".txt"))
"""Documents and items: JSON Lines, or one document a text file; plain or compressed."""

ROW_SUFFIXES = (*DATA_SUFFIXES, ".parquet")
"""What data sets are read from."""

TASK_SUFFIXES = (".yaml", ".yml", ".jsonl", ".json")
"""A folder with tasks of lm-evaluation-harness: YAML and data; Python is not looked at."""

MODEL_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")
"""What a model folder of the Hugging Face layout may hold; everything else in it is not looked at."""

MAX_LINE_BYTES = 64 << 20
"""A longer line is no document; reading it whole could take all memory."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file: name relative to its folder (POSIX), where it is, bytes, and what changes when its content does."""

    name: str
    where: Path | Bucket
    size: int
    version: str

    def __str__(self) -> str:
        return str(self.where)


def list_files(uri: str, suffixes: tuple[str, ...] = DATA_SUFFIXES) -> list[SourceFile]:
    """The files that `uri` means, sorted by name; folders are searched to the bottom, hidden files left out.

    Raises PermanentError(SourceInvalid | SourceMissing | SourceEmpty | SourceRefused), TransientError(SourceFailed).
    """
    place = parse_uri(uri)
    found = _local_files(place, suffixes) if isinstance(place, Path) else _s3_files(place, suffixes)
    if not found:
        raise PermanentError("SourceEmpty", f"{uri}: no file in it ends in {', '.join(suffixes)}")
    return sorted(found, key=lambda file: file.name)


def content_digest(files: Sequence[SourceFile], *, by_content: bool = False) -> str:
    """Digest of what the files hold.

    Local files: by (name, sha256) of each; one file alone: the sha256 of its bytes, as `sha256sum` prints it.
    S3 objects: by (name, size, etag), which costs no download; `by_content` reads them and counts as for local files.
    """
    is_local = all(isinstance(file.where, Path) for file in files)
    if not (is_local or by_content):
        return sha256_digest(canonical_json([[file.name, file.size, file.version] for file in files]))
    if len(files) == 1:
        return "sha256:" + _sha256(files[0])
    return sha256_digest(canonical_json([[file.name, _sha256(file)] for file in files]))


def pin(uri: str, expected: str | None, suffixes: tuple[str, ...] = DATA_SUFFIXES) -> str:
    """Digest of what `uri` holds now. PermanentError(SourceChanged) when it is not the `expected` one."""
    found = content_digest(list_files(uri, suffixes), by_content=expected is not None)
    if expected is not None and found != expected:
        raise PermanentError(
            "SourceChanged",
            f"{uri}: its sha256 is declared as {expected}, but the content found has {found}; "
            "restore the file or declare the new digest",
        )
    return found


@contextmanager
def open_bytes(file: SourceFile) -> Iterator[BinaryIO]:
    """The file's bytes as they are stored."""
    with _read_errors(file):
        stream = open_s3(file.where, file.version) if isinstance(file.where, Bucket) else file.where.open("rb")
        with stream:
            yield stream


@contextmanager
def open_plain(file: SourceFile) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked when its name ends in .gz, .zst or .xz."""
    with open_bytes(file) as stream:
        if not file.name.endswith(tuple(_PACKED)):
            yield stream
            return
        with _read_errors(file), unpacked(file.name, stream) as plain:
            yield plain


def open_lines(
    file: SourceFile, start: int = 0, end: int | None = None, before: int = 0
) -> Iterator[tuple[int, bytes]]:
    """Each line with its number, counted from 1, without its end. A byte order mark is dropped.

    Of a file that is not packed, only the lines from byte `start` to byte `end`, `before` lines being before them.
    Raises PermanentError(SourceInvalid) at a line of more than MAX_LINE_BYTES.
    """
    with open_plain(file) as stream:
        if start:
            stream.seek(start)
        number, place = before, start
        while (end is None or place < end) and (line := stream.readline(MAX_LINE_BYTES + 1)):
            number += 1
            place += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise PermanentError(
                    "SourceInvalid", f"{file}:{number}: line of over {MAX_LINE_BYTES} bytes; expected one row a line"
                )
            yield number, (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).rstrip(b"\r\n")


def _sha256(file: SourceFile) -> str:
    digest = hashlib.sha256()
    with open_bytes(file) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _local_files(root: Path, suffixes: tuple[str, ...]) -> list[SourceFile]:
    try:
        mode = root.stat().st_mode
        if stat.S_ISDIR(mode):
            return [_local_file(path, root) for path in _walk(root) if path.name.endswith(suffixes)]
        if not root.name.endswith(suffixes):
            raise PermanentError("SourceInvalid", f"{root}: expected a name that ends in {', '.join(suffixes)}")
        return [_local_file(root, root.parent)]
    except FileNotFoundError:
        raise PermanentError("SourceMissing", f"{root}: there is no such file or folder") from None
    except OSError as error:
        raise PermanentError("SourceMissing", f"{root}: can not be read: {error.strerror}") from None


def _walk(root: Path) -> Iterator[Path]:
    """All files below `root` but hidden ones. A link may lead to a file inside `root`, to nothing else."""
    inside = root.resolve()
    for folder, subfolders, names in os.walk(root, onerror=_raise):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in (*subfolders, *sorted(names)):
            path = Path(folder) / name
            if path.is_symlink() and not name.startswith("."):
                _refuse_bad_link(path, inside)
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def _refuse_bad_link(path: Path, inside: Path) -> None:
    target = path.resolve()
    if not target.is_relative_to(inside):
        raise PermanentError("SourceRefused", f"{path}: a link that leads out of its folder; copy the file instead")
    if target.is_dir():
        raise PermanentError("SourceRefused", f"{path}: a link to a folder; name that folder as a source instead")


def _raise(error: OSError) -> None:
    raise error


def _local_file(path: Path, root: Path) -> SourceFile:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise PermanentError("SourceRefused", f"{path}: no regular file")
    return SourceFile(path.relative_to(root).as_posix(), path, state.st_size, str(state.st_mtime_ns))


def _s3_files(place: Bucket, suffixes: tuple[str, ...]) -> list[SourceFile]:
    """The object of that key, if it exists, else the objects below it."""
    single = head_s3(place) if place.key.endswith(suffixes) else None
    if single is not None:
        return [SourceFile(place.key.rpartition("/")[2], place, *single)]
    prefix = place.key.rstrip("/") + "/" if place.key else ""
    found = []
    for key, size, etag in list_s3(place, prefix):
        name = key.removeprefix(prefix)
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        if name.endswith(suffixes) and not is_hidden:
            found.append(SourceFile(name, Bucket(place.bucket, key), size, etag))
    return found


@contextmanager
def _read_errors(file: SourceFile) -> Iterator[None]:
    """Errors of reading, with the file. A vanished file is permanent: it was there when it was listed."""
    try:
        yield
    except PACKING_ERRORS as error:
        kind = _PACKED[f".{file.name.rpartition('.')[2]}"]
        raise PermanentError("SourceInvalid", f"{file}: not a complete {kind} file: {error}") from None
    except FileNotFoundError:
        raise PermanentError("SourceChanged", f"{file}: vanished while it was read") from None
    except PermissionError as error:
        raise PermanentError("SourceMissing", f"{file}: can not be read: {error.strerror}") from None
    except OSError as error:
        raise TransientError("SourceFailed", f"{file}: {error.strerror or error}") from None
