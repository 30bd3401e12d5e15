"""Documents: rows of user sources as documents, and JSON Lines files of artifacts. No rule about quality here."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, Self

from bessemer_api.digest import canonical_json, sha256_digest
from bessemer_api.v1alpha1.data import Source
from bessemer_api.v1alpha1.evaluation import BankTask
from bessemer_trainer.errors import PermanentError
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

_KEPT_OF_BAD_ROW = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """One document, or a row that can not be read: then `error` says why and `text` is what could be saved of it.

    `source` is the file's name in its source; `row` its line, counted from 1 (0 when the file is the document).
    """

    id: str
    source: str
    row: int
    text: str
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


def read_rows(sources: Sequence[Source]) -> Iterator[Row]:
    """All rows of all sources in their order; one at a time. Ids are `<source number>/<file>:<row>`."""
    for number, source in enumerate(sources):
        for file in list_files(source.uri):
            if file.name.removesuffix(".gz").endswith(".txt"):
                yield _text_document(file, f"{number}/{file.name}")
            else:
                yield from _json_lines(file, f"{number}/{file.name}", source.text_field)


def _text_document(file: SourceFile, name: str) -> Row:
    with open_plain(file) as stream:
        data = stream.read(MAX_LINE_BYTES + 1)
    if len(data) > MAX_LINE_BYTES:
        raise PermanentError("SourceInvalid", f"{file}: a document of over {MAX_LINE_BYTES} bytes; split it")
    try:
        return Row(name, name, 0, data.decode("utf-8-sig"), where=str(file))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return _bad_row(file, name, line, data, f"not UTF-8 at byte {error.start} (line {line})")


def _json_lines(file: SourceFile, name: str, text_field: str) -> Iterator[Row]:
    for number, line in open_lines(file):
        if not line.strip():
            continue
        try:
            yield Row(f"{name}:{number}", name, number, parse_text(line, text_field), where=f"{file}:{number}")
        except ValueError as error:
            yield _bad_row(file, name, number, line, str(error))


def _bad_row(file: SourceFile, name: str, number: int, data: bytes, why: str) -> Row:
    saved = data[:_KEPT_OF_BAD_ROW].decode(errors="replace")
    return Row(f"{name}:{number}", name, number, saved, error=why, where=f"{file}:{number}")


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. ValueError says what was wrong."""
    try:
        document = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}; expected one JSON object a line") from None
    except (ValueError, RecursionError):
        raise ValueError("not JSON: a number is too long or the nesting too deep") from None
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object, found {type(document).__name__}")
    return document


def parse_text(line: bytes, text_field: str) -> str:
    """The text of a JSON row. ValueError says what was wrong."""
    text = parse_object(line).get(text_field)
    if not isinstance(text, str):
        found = "no such field" if text is None else type(text).__name__
        raise ValueError(f"field {text_field!r}: expected a string, found {found}")
    if not text.isascii():
        require_encodable(text, text_field)
    return text


def require_encodable(text: str, name: str) -> None:
    """ValueError when `text` holds half a surrogate pair: JSON can write one, UTF-8 can not."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"field {name!r}: half a surrogate pair at character {error.start}") from None


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
