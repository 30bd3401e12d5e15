"""Rows as tokens in a scratch file, and the files of a mixture that they become: examples, pairs or prompts.

One class a format: it makes tokens of a row or says why it can not be used, and writes drawn rows. Which rows are drawn
is not decided here.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bessemer_api.v1alpha1.data import DataKind
from bessemer_api.v1alpha1.stage import MixtureInputs
from bessemer_trainer.chat import RowError
from bessemer_trainer.data import JsonLines
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.examples import RowReader
from bessemer_trainer.packing import ExampleWriter, smallest_type
from bessemer_trainer.token_cache import Vocabulary

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row in tokens. `flags`: one byte a token (1: a target); `cuts`: where its parts end; `fields`: kept beside."""

    tokens: Sequence[int] | Array
    flags: Sequence[bool] | Array = ()
    cuts: tuple[int, ...] = ()
    fields: Mapping[str, Any] | None = None
    truncated: bool = False


class Format(Protocol):
    """How rows of one format become tokens, and tokens files."""

    kinds: tuple[DataKind, ...]

    def encode(self, row: Mapping[str, Any], kind: DataKind) -> Encoded:
        """The row as tokens; RowError says why it can not be used."""
        ...

    def write(self, folder: Path, prefix: str, rows: Iterable[Encoded]) -> dict[str, int]:
        """Write rows to files whose names begin with `prefix`; their counts."""
        ...


class Examples:
    """Examples of sft: tokens, document numbers and targets, in sequences of one length."""

    kinds: tuple[DataKind, ...] = ("text", "messages", "promptCompletion")

    def __init__(self, inputs: MixtureInputs, vocabulary: Vocabulary, reader: RowReader) -> None:
        self._inputs, self._vocabulary, self._reader = inputs, vocabulary, reader

    def encode(self, row: Mapping[str, Any], kind: DataKind) -> Encoded:
        example = self._reader.example(row, kind, self._inputs.loss_on)
        length = self._inputs.sequence_length
        targets = example.targets[:length]
        if not any(targets):
            raise RowError("noTarget", f"no target within {length} tokens")
        return Encoded(example.tokens[:length], targets, truncated=len(example.tokens) > length)

    def write(self, folder: Path, prefix: str, rows: Iterable[Encoded]) -> dict[str, int]:
        inputs, vocabulary = self._inputs, self._vocabulary
        writer = ExampleWriter(
            folder,
            inputs.sequence_length,
            largest_token=vocabulary.largest,
            padding=vocabulary.padding,
            packing=inputs.packing,
            prefix=prefix,
        )
        with writer:
            for row in rows:
                writer.add(np.asarray(row.tokens), np.asarray(row.flags))
        padding = writer.sequences * inputs.sequence_length - writer.tokens
        counts = {"sequences": writer.sequences, "tokens": writer.tokens, "padding": padding}
        return {**counts, "targets": writer.targets, "rows": writer.examples}


class Pairs:
    """Preference pairs: tokens in a row, and an index of offset and lengths of prompt, chosen and rejected."""

    kinds: tuple[DataKind, ...] = ("preference",)

    def __init__(self, inputs: MixtureInputs, vocabulary: Vocabulary, reader: RowReader) -> None:
        self._length, self._largest, self._reader = inputs.sequence_length, vocabulary.largest, reader

    def encode(self, row: Mapping[str, Any], kind: DataKind) -> Encoded:
        pair = self._reader.pair(row)
        room = max(0, self._length - len(pair.prompt))
        chosen, rejected = pair.chosen[:room], pair.rejected[:room]
        if not pair.prompt:
            raise RowError("emptyPrompt", "the prompt has no token")
        if not chosen or not rejected:
            raise RowError("emptyAnswer", f"the prompt alone has {len(pair.prompt)} tokens of {self._length}")
        if chosen == rejected:
            raise RowError("equalAnswers", f"within {self._length} tokens chosen and rejected are equal")
        cut = len(pair.chosen) > room or len(pair.rejected) > room
        lengths = (len(pair.prompt), len(chosen), len(rejected))
        return Encoded([*pair.prompt, *chosen, *rejected], cuts=lengths, truncated=cut)

    def write(self, folder: Path, prefix: str, rows: Iterable[Encoded]) -> dict[str, int]:
        suffix, kind = smallest_type(self._largest)
        counts = {"pairs": 0, "tokens": 0, "targets": 0}
        with ExitStack() as files:
            tokens = files.enter_context((folder / f"{prefix}tokens.{suffix}").open("wb"))
            index = files.enter_context((folder / f"{prefix}index.u32").open("wb"))
            for row in rows:
                if counts["tokens"] >= 1 << 32:
                    raise PermanentError("MixtureTooLarge", "pairs of over 4,294,967,295 tokens; lower the weights")
                np.asarray(row.tokens, dtype=kind).tofile(tokens)
                np.array([counts["tokens"], *row.cuts], dtype="<u4").tofile(index)
                counts["pairs"] += 1
                counts["tokens"] += len(row.tokens)
                counts["targets"] += sum(row.cuts[1:])
        return counts


class Prompts:
    """Prompts of grpo: JSON Lines with the tokens of the prompt and what its verifier needs."""

    kinds: tuple[DataKind, ...] = ("prompts",)

    def __init__(self, inputs: MixtureInputs, vocabulary: Vocabulary, reader: RowReader) -> None:
        self._length, self._reader = inputs.sequence_length, reader

    def encode(self, row: Mapping[str, Any], kind: DataKind) -> Encoded:
        tokens = self._reader.prompt(row)
        if not tokens:
            raise RowError("emptyPrompt", "the prompt has no token")
        if len(tokens) >= self._length:
            raise RowError(
                "tooLong", f"the prompt has {len(tokens)} tokens, {self._length} leave no room for an answer"
            )
        return Encoded(tokens, fields=row)

    def write(self, folder: Path, prefix: str, rows: Iterable[Encoded]) -> dict[str, int]:
        counts = {"prompts": 0, "tokens": 0}
        with JsonLines(folder / f"{prefix}prompts.jsonl") as lines:
            for row in rows:
                lines.write({**(row.fields or {}), "tokens": [int(token) for token in row.tokens]})
                counts["prompts"] += 1
                counts["tokens"] += len(row.tokens)
        return counts


FORMATS: Mapping[str, type[Examples] | type[Pairs] | type[Prompts]] = {
    "examples": Examples,
    "pairs": Pairs,
    "prompts": Prompts,
}


class RowCache:
    """Rows of one part in scratch files, so that they can be drawn in any order without holding them."""

    def __init__(self, path: Path, largest: int, rows: Iterable[Encoded]) -> None:
        """Writes all rows to files whose names begin with `path`; `largest` is the largest token id."""
        self._path = path
        kind = smallest_type(largest)[1]
        lengths: list[int] = []
        self._cuts: list[tuple[int, ...]] = []
        self._places: list[int] = []
        self.truncated = 0
        with ExitStack() as files:
            tokens, flags, fields = (files.enter_context(self._file(name).open("wb")) for name in _FILES)
            for row in rows:
                np.asarray(row.tokens, dtype=kind).tofile(tokens)
                np.asarray(row.flags, dtype=np.uint8).tofile(flags)
                lengths.append(len(row.tokens))
                self._cuts.append(row.cuts)
                self.truncated += row.truncated
                if row.fields is not None:
                    self._places.append(fields.tell())
                    fields.write(json.dumps(row.fields, ensure_ascii=False).encode() + b"\n")
        self.lengths: I64 = np.array(lengths, dtype=np.int64)
        """Tokens of each row."""
        self._offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self._tokens, self._flags = self._map("tokens", kind), self._map("flags", "u1")

    def _file(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}-{name}")

    def _map(self, name: str, kind: str) -> Array:
        path = self._file(name)
        return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.zeros(0, kind)

    def row(self, number: int) -> Encoded:
        """One row as it was written."""
        start, end = self._offsets[number : number + 2]
        flags = self._flags[start:end] if len(self._flags) else self._flags
        return Encoded(self._tokens[start:end], flags, self._cuts[number], self._fields(number))

    def _fields(self, number: int) -> dict[str, Any] | None:
        if not self._places:
            return None
        with self._file("fields").open("rb") as file:
            file.seek(self._places[number])
            fields: dict[str, Any] = json.loads(file.readline())
            return fields


_FILES = ("tokens", "flags", "fields")


class Refused:
    """Rows that can not be used, kept beside the mixture with part, id and reason; counted by reason."""

    def __init__(self, lines: JsonLines) -> None:
        self._lines = lines
        self.counts: Counter[str] = Counter()

    def encode(self, part: str, row: Mapping[str, Any], encode: Callable[[], Encoded]) -> Encoded | None:
        """The row as tokens; None when it can not be used: then it is written down."""
        try:
            return encode()
        except RowError as error:
            self.counts[error.reason] += 1
            self._lines.write({"part": part, "id": row["id"], "reason": f"{error.reason}: {error}"})
            return None
