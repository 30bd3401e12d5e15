"""Documents as tokens to sequences of one length. Each token keeps the number of its document; 0 is padding.

Touches nothing but the two files that it writes; knows no tokenizer and no text.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
OPEN_SEQUENCES = 32
"""Sequences of examples that are filled at once: more waste less, and cost memory."""

Tokens = npt.NDArray[np.unsignedinteger[Any]]


def smallest_type(largest: int) -> tuple[str, str]:
    """(file suffix, numpy type) of little-endian unsigned integers that hold `largest`."""
    return ("u16", "<u2") if largest < 1 << 16 else ("u32", "<u4")


class SequenceWriter:
    """Writes `tokens.*` and `documents.*`: sequences x length, each in the smallest type that fits.

    Documents are numbered from 1 within each sequence. A document longer than what is left of a sequence goes on in
    the next one: no token is lost. `packing` off: each sequence holds one document, or one piece of a long one.
    """

    def __init__(self, folder: Path, length: int, *, largest_token: int, padding: int, packing: bool) -> None:
        """`length` in tokens; `largest_token` and `padding` are token ids."""
        tokens_suffix, tokens_type = smallest_type(largest_token)
        numbers_suffix, numbers_type = smallest_type(length)
        self._paths = (folder / f"tokens.{tokens_suffix}", folder / f"documents.{numbers_suffix}")
        self._rows = (np.zeros(length, tokens_type), np.zeros(length, numbers_type))
        self._files: tuple[BinaryIO, ...] = ()
        self._opened = ExitStack()
        self._fill = (padding, 0)
        self._packing = packing
        self._used = 0
        self._number = 0
        self.sequences = 0
        self.tokens = 0

    def __enter__(self) -> Self:
        self._files = tuple(self._opened.enter_context(path.open("wb")) for path in self._paths)
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        self._opened.close()

    def add(self, document: Tokens) -> None:
        """Write one document."""
        self._number += 1
        self.tokens += len(document)
        length = len(self._rows[0])
        while len(document):
            piece = document[: length - self._used]
            self._rows[0][self._used : self._used + len(piece)] = piece
            self._rows[1][self._used : self._used + len(piece)] = self._number
            self._used += len(piece)
            document = document[len(piece) :]
            if self._used == length:
                self._finish()
                self._number = 1
        if not self._packing or not self._used:
            self._finish()

    def _finish(self) -> None:
        """Pad the sequence and write it; an empty one is not written."""
        if self._used:
            for row, file, fill in zip(self._rows, self._files, self._fill, strict=True):
                row[self._used :] = fill
                row.tofile(file)
            self.sequences += 1
        self._used = self._number = 0


class ExampleWriter:
    """Writes `tokens.*`, `documents.*` and `targets.u8`: whole examples in sequences of one length, each padded.

    An example is never split: its answer would stand without its prompt. `packing` puts several in a sequence: each
    goes into the first of a few open sequences in which it fits. Otherwise each has a sequence to itself.
    """

    def __init__(
        self, folder: Path, length: int, *, largest_token: int, padding: int, packing: bool, prefix: str = ""
    ) -> None:
        """`length` in tokens; `largest_token` and `padding` are token ids."""
        tokens, numbers = smallest_type(largest_token), smallest_type(length)
        names = (f"tokens.{tokens[0]}", f"documents.{numbers[0]}", "targets.u8")
        self._paths = [folder / f"{prefix}{name}" for name in names]
        self._types = (tokens[1], numbers[1], "u1")
        self._fill = (padding, 0, 0)
        self._length = length
        self._most_open = OPEN_SEQUENCES if packing else 0
        self._open: list[list[tuple[Array, Array]]] = []
        self._free: list[int] = []
        self._opened = ExitStack()
        self._files: tuple[BinaryIO, ...] = ()
        self.sequences = self.tokens = self.targets = self.examples = 0

    def __enter__(self) -> Self:
        self._files = tuple(self._opened.enter_context(path.open("wb")) for path in self._paths)
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._finish(0)
        self._opened.close()

    def add(self, tokens: Array, targets: Array) -> None:
        """Write one example of at most `length` tokens; `targets` has a 1 for each token that is learned."""
        self.examples += 1
        self.tokens += len(tokens)
        self.targets += int(np.count_nonzero(targets))
        place = next((place for place, free in enumerate(self._free) if free >= len(tokens)), len(self._open))
        if place == len(self._open):
            self._open.append([])
            self._free.append(self._length)
        self._open[place].append((tokens, targets))
        self._free[place] -= len(tokens)
        if len(self._open) > self._most_open:
            self._finish(0)

    def _finish(self, place: int) -> None:
        """Pad an open sequence and write it."""
        examples = self._open.pop(place)
        self._free.pop(place)
        numbers = [np.full(len(tokens), number) for number, (tokens, _) in enumerate(examples, start=1)]
        columns = ([tokens for tokens, _ in examples], numbers, [targets for _, targets in examples])
        for parts, file, kind, fill in zip(columns, self._files, self._types, self._fill, strict=True):
            row = np.full(self._length, fill, dtype=kind)
            whole = np.concatenate(parts)
            row[: len(whole)] = whole
            row.tofile(file)
        self.sequences += 1
