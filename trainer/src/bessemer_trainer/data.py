"""Pins of user data, and JSON Lines files of artifacts. Rows of user data are read in rows.py."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Self

from bessemer_api.digest import canonical_json, sha256_digest
from bessemer_api.v1alpha1.data import DataKind, Source
from bessemer_api.v1alpha1.evaluation import BankTask
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.sources import DATA_SUFFIXES, ROW_SUFFIXES, TASK_SUFFIXES, pin
from bessemer_trainer.store import Store


def pin_sources(sources: Sequence[Source]) -> str:
    """Digest of the content of a data set's sources, in order."""
    return sha256_digest(canonical_json([pin(source.uri, source.sha256, ROW_SUFFIXES) for source in sources]))


def pin_bank(tasks: Mapping[str, BankTask]) -> str:
    """Digest of the content of a bank's item files, by axis."""
    return sha256_digest(canonical_json({axis: _pin_items(task) for axis, task in tasks.items()}))


def _pin_items(task: BankTask) -> str:
    """Content of an item file or task folder; of generated items, what they are made by."""
    if task.uri is not None:
        return pin(task.uri, task.sha256, TASK_SUFFIXES if task.lm_eval else DATA_SUFFIXES)
    made_by = {"version": version("reasoning-gym"), "task": task.wire()}
    return sha256_digest(canonical_json(made_by))


def require_unchanged(what: str, found: str, pinned: str) -> None:
    """PermanentError(SourceChanged) unless the content is still the one that the pipeline resolved."""
    if found != pinned:
        raise PermanentError(
            "SourceChanged",
            f"{what}: the content has digest {found}, but {pinned} was found when the pipeline was resolved; "
            "restore it, or annotate the pipeline with bessemer.dev/refresh to take the new content",
        )


def kind_of(store: Store, digest: str) -> DataKind:
    """Kind of the rows of a data artifact; text where none is written down."""
    kind: DataKind = store.manifest(digest).meta.get("kind", "text")
    return kind


class JsonLines:
    """Writes a JSON Lines file of an artifact: sorted keys, UTF-8; equal documents give equal bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
        self.count = 0

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8", newline="\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, document: Mapping[str, Any]) -> None:
        if self._file is None:
            raise RuntimeError("JsonLines is written inside its with block")
        self._file.write(self._encode(document) + "\n")
        self.count += 1


def write_lines(path: Path, documents: Iterable[Mapping[str, Any]]) -> int:
    """Write all documents as JSON Lines; their number."""
    with JsonLines(path) as lines:
        for document in documents:
            lines.write(document)
    return lines.count


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The documents of a JSON Lines file of a verified artifact."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)
