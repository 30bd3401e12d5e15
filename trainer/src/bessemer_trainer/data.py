"""Documents: rows of user sources as documents, and JSON Lines files of artifacts. No rule about quality here."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Self

from bessemer_api.digest import canonical_json, sha256_digest
from bessemer_api.v1alpha1.data import DataKind, Source
from bessemer_api.v1alpha1.evaluation import BankTask
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.records import Record, parse_record
from bessemer_trainer.sources import (
    DATA_SUFFIXES,
    MAX_LINE_BYTES,
    TASK_SUFFIXES,
    SourceFile,
    list_files,
    open_lines,
    open_plain,
    pin,
)
from bessemer_trainer.store import Store

_KEPT_OF_BAD_ROW = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """One document, or a row that can not be read: then `error` says why and `text` is what could be saved of it.

    `source` is the file's name in its source; `row` its line, counted from 1 (0 when the file is the document). `text`
    is the joined text, `fields` what the artifact keeps beside the id; rows of one `group` are held out together.
    """

    id: str
    source: str
    row: int
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    error: str = ""
    where: str = field(default="", compare=False)


def pin_sources(sources: Sequence[Source]) -> str:
    """Digest of the content of a data set's sources, in order."""
    return sha256_digest(canonical_json([pin(source.uri, source.sha256) for source in sources]))


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


def read_rows(sources: Sequence[Source], kind: DataKind = "text") -> Iterator[Row]:
    """All rows of all sources in their order; one at a time. Ids are `<source number>/<file>:<row>`."""
    for number, source in enumerate(sources):
        names = {**(source.fields.model_dump() if source.fields else {}), "text": source.text_field}
        for file in list_files(source.uri):
            if file.name.removesuffix(".gz").endswith(".txt"):
                yield _text_document(file, f"{number}/{file.name}", kind)
            else:
                yield from _json_lines(file, f"{number}/{file.name}", kind, names)


def _text_document(file: SourceFile, name: str, kind: DataKind) -> Row:
    if kind != "text":
        raise PermanentError("SourceInvalid", f"{file}: a text file has no fields; rows of kind {kind} need JSON Lines")
    with open_plain(file) as stream:
        data = stream.read(MAX_LINE_BYTES + 1)
    if len(data) > MAX_LINE_BYTES:
        raise PermanentError("SourceInvalid", f"{file}: a document of over {MAX_LINE_BYTES} bytes; split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return _bad_row(file, name, line, data, f"not UTF-8 at byte {error.start} (line {line})")
    return Row(name, name, 0, text, {"text": text}, text, where=str(file))


def _json_lines(file: SourceFile, name: str, kind: DataKind, names: Mapping[str, str]) -> Iterator[Row]:
    for number, line in open_lines(file):
        if not line.strip():
            continue
        try:
            yield _row(file, name, number, parse_record(line, kind, names))
        except ValueError as error:
            yield _bad_row(file, name, number, line, str(error))


def _row(file: SourceFile, name: str, number: int, record: Record) -> Row:
    where = f"{file}:{number}"
    return Row(f"{name}:{number}", name, number, record.text, record.fields, record.group, where=where)


def _bad_row(file: SourceFile, name: str, number: int, data: bytes, why: str) -> Row:
    saved = data[:_KEPT_OF_BAD_ROW].decode(errors="replace")
    return Row(f"{name}:{number}", name, number, saved, error=why, where=f"{file}:{number}")


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
