"""Documents as tokens to sequences of one length. Each token keeps the number of its document; 0 is padding.

Touches nothing but the two files that it writes; knows no tokenizer and no text.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

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
