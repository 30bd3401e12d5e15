"""Rows of user sources: JSON Lines, text files and Parquet as documents, and the spans that they are read by.

A span is a stretch of one file that can be read alone, with the number of rows before it: so several processes read
one source, and each row has the same id whoever reads it. Nothing is judged here.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from bessemer_api.v1alpha1.data import DataKind, Source
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.records import Record, parse_record, record_of
from bessemer_trainer.sources import (
    MAX_LINE_BYTES,
    ROW_SUFFIXES,
    SourceFile,
    list_files,
    open_bytes,
    open_lines,
    open_plain,
)

_KEPT_OF_BAD_ROW = 2000
_PARQUET_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One document, or a row that can not be read: then `error` says why and `text` is what could be saved of it.

    `source` is the file's name in its source; `row` its line, counted from 1 (0 when the file is the document). `text`
    is the joined text, `fields` what the artifact keeps beside the id; rows of one `group` are held out together, and
    what `is_held` is held out whatever the share.
    """

    id: str
    source: str
    row: int
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    error: str = ""
    is_held: bool = False
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a file: bytes of JSON Lines, row groups of Parquet, or all of it (`end` is None)."""

    source: int
    file: SourceFile
    size: int
    start: int = 0
    end: int | None = None
    before: int = 0

    @property
    def name(self) -> str:
        """Name of the file in its data set: how rows are called after it."""
        return f"{self.source}/{self.file.name}"


def spans_of(sources: Sequence[Source], largest: int) -> Iterator[Span]:
    """All of the sources, in order, in spans of about `largest` bytes where a file can be read in parts."""
    for number, source in enumerate(sources):
        for file in list_files(source.uri, ROW_SUFFIXES):
            is_local = isinstance(file.where, Path)
            if is_local and file.name.endswith((".jsonl", ".json")) and file.size > largest:
                yield from _line_spans(number, file, largest)
            elif is_local and file.name.endswith(".parquet"):
                yield from _group_spans(number, file, largest)
            else:
                yield Span(number, file, file.size)


def _line_spans(number: int, file: SourceFile, largest: int) -> Iterator[Span]:
    start = before = 0
    with open_bytes(file) as stream:
        while start < file.size:
            stream.seek(min(start + largest, file.size))
            stream.readline(MAX_LINE_BYTES + 1)  # whoever reads the span tells what a longer line is
            end = stream.tell()
            yield Span(number, file, end - start, start, end, before)
            stream.seek(start)
            before += _count_lines(stream, end - start)
            start = end


def _count_lines(stream: BinaryIO, size: int) -> int:
    count = 0
    while size > 0 and (data := stream.read(min(size, 1 << 20))):
        count += data.count(b"\n")
        size -= len(data)
    return count


def _group_spans(number: int, file: SourceFile, largest: int) -> Iterator[Span]:
    with _parquet(file) as table:
        groups = [table.metadata.row_group(place) for place in range(table.metadata.num_row_groups)]
        start = before = size = rows = 0
        for place, group in enumerate(groups, start=1):
            size, rows = size + group.total_byte_size, rows + group.num_rows
            if size >= largest or place == len(groups):
                yield Span(number, file, size, start, place, before)
                start, before, size, rows = place, before + rows, 0, 0


def read_span(span: Span, source: Source, kind: DataKind) -> Iterator[Row]:
    """The rows of a span, one at a time. Ids are `<source number>/<file>:<row>`."""
    names = {**(source.fields.model_dump() if source.fields else {}), "text": source.text_field}
    if span.file.name.endswith(".parquet"):
        yield from _parquet_rows(span, kind, names)
    elif ".txt" in Path(span.file.name).suffixes[-2:]:
        yield _text_document(span.file, span.name, kind)
    else:
        yield from _json_lines(span, kind, names)


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


def _json_lines(span: Span, kind: DataKind, names: Mapping[str, str]) -> Iterator[Row]:
    for number, line in open_lines(span.file, span.start, span.end, span.before):
        if not line.strip():
            continue
        try:
            yield _row(span, number, parse_record(line, kind, names))
        except ValueError as error:
            yield _bad_row(span.file, span.name, number, line, str(error))


def _row(span: Span, number: int, record: Record) -> Row:
    where = f"{span.file}:{number}"
    return Row(f"{span.name}:{number}", span.name, number, record.text, record.fields, record.group, where=where)


def _bad_row(file: SourceFile, name: str, number: int, data: bytes, why: str) -> Row:
    saved = data[:_KEPT_OF_BAD_ROW].decode(errors="replace")
    return Row(f"{name}:{number}", name, number, saved, error=why, where=f"{file}:{number}")


def _parquet_rows(span: Span, kind: DataKind, names: Mapping[str, str]) -> Iterator[Row]:
    with _parquet(span.file) as table:
        columns = _columns(span.file, table.schema_arrow.names, kind, names)
        groups = range(span.start, table.metadata.num_row_groups if span.end is None else span.end)
        number = span.before
        for batch in table.iter_batches(_PARQUET_BATCH, row_groups=list(groups), columns=columns):
            for row in batch.to_pylist():
                number += 1
                try:
                    yield _row(span, number, record_of(row, kind, names))
                except ValueError as error:
                    saved = str({key: row[key] for key in list(row)[:8]}).encode(errors="replace")
                    yield _bad_row(span.file, span.name, number, saved, str(error))


_FIELDS: Mapping[DataKind, tuple[str, ...]] = {
    "text": ("text",),
    "messages": ("messages",),
    "promptCompletion": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
    "prompts": ("prompt",),
}


def _columns(file: SourceFile, found: Sequence[str], kind: DataKind, names: Mapping[str, str]) -> list[str] | None:
    """The columns that are read: those of the kind; of prompts all, for their verifiers."""
    needed = [names.get(name, name) for name in _FIELDS[kind]]
    for name in needed:
        if name not in found:
            told = ", ".join(map(repr, found[:12]))
            raise PermanentError("SourceInvalid", f"{file}: column {name!r}: no such column; the columns are {told}")
    return None if kind == "prompts" else needed


@contextmanager
def _parquet(file: SourceFile) -> Iterator[Any]:
    """The file as pyarrow reads it; what is elsewhere is copied first, for it is not read in order."""
    import pyarrow as pa  # noqa: PLC0415 - no other source needs it
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415

    with open_bytes(file) as stored, tempfile.TemporaryFile() as copy:
        stream = stored
        if not isinstance(file.where, Path):
            shutil.copyfileobj(stored, copy, 1 << 20)
            copy.seek(0)
            stream = cast(BinaryIO, copy)
        try:
            with ParquetFile(stream, pre_buffer=False) as table:
                yield table
        except pa.ArrowException as error:
            raise PermanentError("SourceInvalid", f"{file}: not a Parquet file: {str(error)[:200]}") from None
