"""The artifact store: the only place that opens files and objects of the store. It knows no stage and no model.

Layout and manifest: docs/contract.md. An artifact is a folder whose manifest was written last; its digest is the
sha256 of the manifest. What a reader gets was verified against the manifest, file by file.
Two backends with one small set of operations: a local folder (backends.LocalFolder) and S3 (objects.ObjectStore).
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bessemer_api.digest import canonical_json, sha256_digest
from bessemer_api.fields import DIGEST_PATTERN
from bessemer_trainer.backends import MANIFEST, Backend, LocalFolder, Shared
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.objects import ObjectStore

SIGNATURE = "model.sig"
"""Stands beside the manifest, whose digest it can not be part of (signatures.py)."""

_UNFINISHED = ".tmp-"
"""A signature that is being written, beside the files that it is about."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact: path relative to its folder (POSIX), bytes, hexadecimal sha256."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact is made of. `meta` holds only what the inputs determine: no times, hosts or run ids."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema: int
    kind: str
    files: tuple[FileEntry, ...]
    meta: dict[str, Any]

    def to_json(self) -> bytes:
        return canonical_json(asdict(self))


_MANIFEST_OF_JSON = TypeAdapter(Manifest)


def artifact_key(digest: str) -> str:
    """Key of the artifact's folder; PermanentError(ArtifactMissing) when `digest` is none."""
    if not re.fullmatch(DIGEST_PATTERN, digest):
        raise PermanentError("ArtifactMissing", f"{digest!r} is no digest (sha256: and 64 hexadecimal digits)")
    return "artifacts/" + digest.replace(":", "-")


def run_key(input_digest: str) -> str:
    """Key of the run folder that all attempts of one piece of work share."""
    return "runs/" + input_digest.removeprefix("sha256:")


class Store:
    """Artifacts by digest, and small documents by key."""

    def __init__(self, url: str, backend: Backend, scratch: Path) -> None:
        self._url = url.rstrip("/")
        self._backend = backend
        self._scratch = scratch
        self._verified: dict[str, Path] = {}

    def url(self, key: str) -> str:
        return f"{self._url}/{key}"

    @property
    def backend(self) -> Backend:
        """For checkpoints, which have their own protocol."""
        return self._backend

    def read(self, key: str) -> bytes | None:
        """The bytes under `key`; None when there are none."""
        return self._backend.read(_checked(key))

    def create(self, key: str, data: bytes) -> bool:
        """Write `data` only if `key` is absent, all or nothing. False when it was there."""
        return self._backend.create(_checked(key), data)

    def write(self, key: str, data: bytes) -> None:
        """Write or overwrite. For reports and progress only: nothing that is relied on is ever overwritten."""
        self._backend.write(_checked(key), data)

    def list(self, prefix: str) -> list[str]:
        """All keys under the folder `prefix`, sorted."""
        return self._backend.keys(_checked(prefix))

    def publish(self, folder: Path, kind: str, meta: Mapping[str, Any]) -> str:
        """Make an artifact of the files in `folder`; its digest. Atomic, and idempotent: equal content, equal digest.

        Raises PermanentError(ArtifactInvalid) for a symbolic link, a special file or a `manifest.json` in `folder`.
        """
        return self._publish(folder, kind, meta, None)

    def extend(self, digest: str, folder: Path, kind: str, meta: Mapping[str, Any]) -> str:
        """Make an artifact of all files of the artifact `digest`, which are verified, and of those in `folder`.

        The store shares the bytes of the first where it can (a second name, a copy by the server). Where both have a
        file it is the one in `folder`. Otherwise as `publish`.
        """
        return self._publish(folder, kind, meta, digest)

    def _publish(self, folder: Path, kind: str, meta: Mapping[str, Any], base: str | None) -> str:
        own = tuple(describe(folder, path) for path in _files_of(folder))
        names = [entry.path for entry in own]
        for taken in {MANIFEST, SIGNATURE} & set(names):
            raise PermanentError("ArtifactInvalid", f"{folder}: {taken}: that name is the store's own")
        kept = tuple(entry for entry in self.manifest(base).files if entry.path not in names) if base else ()
        shared = Shared(artifact_key(base), self.fetch(base), tuple((e.path, e.size) for e in kept)) if base else None
        files = tuple(sorted((*own, *kept), key=lambda entry: entry.path)) if base else own
        manifest = Manifest(1, kind, files, json.loads(canonical_json(dict(meta)))).to_json()
        digest = sha256_digest(manifest)
        self._backend.publish_folder(artifact_key(digest), folder, names, manifest, shared)
        return digest

    def manifest(self, digest: str) -> Manifest:
        """The manifest of an artifact. Raises PermanentError(ArtifactMissing | ArtifactCorrupt)."""
        key = artifact_key(digest)
        data = self._backend.read(f"{key}/{MANIFEST}")
        if data is None:
            raise PermanentError(
                "ArtifactMissing",
                f"there is no artifact {digest} at {self.url(key)}; run the stage that makes it again (rerun-from)",
            )
        if sha256_digest(data) != digest:
            raise self._corrupt(digest, f"{MANIFEST} does not have the digest that names it")
        return self._parse(digest, data)

    def _parse(self, digest: str, data: bytes) -> Manifest:
        try:
            manifest = _MANIFEST_OF_JSON.validate_json(data)
        except ValidationError as error:
            raise self._corrupt(digest, f"{MANIFEST} is not a manifest: {error.errors()[0]['msg']}") from None
        for entry in manifest.files:
            if not is_safe_path(entry.path):
                raise self._corrupt(digest, f"{MANIFEST} names a file outside of its folder: {entry.path!r}")
        return manifest

    def fetch(self, digest: str) -> Path:
        """A local folder with the artifact's files, every one verified; nobody may write there.

        Raises PermanentError(ArtifactMissing | ArtifactCorrupt).
        """
        if digest in self._verified:
            return self._verified[digest]
        manifest = self.manifest(digest)
        key = artifact_key(digest)
        folder = self._backend.local_path(key)
        if folder is None:
            folder = self._scratch / key
            self._download(key, manifest, folder)
        problem = find_damage(folder, manifest.files)
        if problem:
            raise self._corrupt(digest, problem)
        self._verified[digest] = folder
        return folder

    def _download(self, key: str, manifest: Manifest, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for entry in manifest.files:
            self._backend.download(f"{key}/{entry.path}", folder / entry.path)

    def _corrupt(self, digest: str, problem: str) -> PermanentError:
        where = self.url(artifact_key(digest))
        return PermanentError(
            "ArtifactCorrupt", f"{where}: {problem}; delete that folder and run the stage that makes it again"
        )


def open_store(url: str, scratch: Path) -> Store:
    """The store at `url` (`file:///folder` or `s3://bucket/prefix`); downloads go to `scratch`."""
    scheme, _, rest = url.partition("://")
    if scheme == "file" and rest.startswith("/"):
        return Store(url, LocalFolder(Path(rest)), scratch)
    if scheme == "s3" and rest:
        return Store(url, ObjectStore.from_url(url), scratch)
    raise PermanentError("StoreUnusable", f"store {url!r}: expected file:///absolute/folder or s3://bucket/prefix")


def is_safe_path(path: str) -> bool:
    """Whether `path` is relative and stays inside its folder."""
    parts = path.split("/")
    return path != MANIFEST and "\\" not in path and "\0" not in path and not {"", ".", ".."} & set(parts)


def describe(folder: Path, path: str) -> FileEntry:
    """Size and sha256 of one file of `folder`."""
    digest = hashlib.sha256()
    size = 0
    with (folder / path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(path, size, digest.hexdigest())


def find_damage(folder: Path, files: tuple[FileEntry, ...]) -> str:
    """What differs between `folder` and the files it should hold, in words; empty when nothing does."""
    expected = {entry.path for entry in files}
    own = {MANIFEST, SIGNATURE} - expected
    found = {path for path in _files_of(folder) if path not in own and not path.startswith(_UNFINISHED)}
    for path in sorted(expected - found):
        return f"{path} is missing"
    for path in sorted(found - expected):
        return f"{path} is not in the manifest"
    for entry in files:
        now = describe(folder, entry.path)
        if now != entry:
            is_now, expected_now = f"{now.size} bytes, {now.sha256}", f"{entry.size} bytes, {entry.sha256}"
            return f"{entry.path} was changed: it has {is_now}; expected {expected_now}"
    return ""


def _files_of(folder: Path) -> list[str]:
    """All files under `folder`, sorted; a link or device is refused, because it would not be what was hashed."""
    paths = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise PermanentError("ArtifactInvalid", f"{path}: only plain files and folders may be in an artifact")
        if path.is_file():
            paths.append(path.relative_to(folder).as_posix())
    return paths


def _checked(key: str) -> str:
    if PurePosixPath(key).is_absolute() or ".." in key.split("/") or not key:
        raise PermanentError("StoreKeyInvalid", f"{key!r} is no key of a store")
    return key
