"""Tokenised shards of a mixture artifact, memory-mapped. Reads only; knows no model and no rank."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.schedule import Indices

Array = npt.NDArray[np.int64]
_Mapped = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Shards:
    """`tokens` and `documents`, both of shape (sequences, length).

    `documents` holds the number of each token's document within its sequence; 0 is padding.
    """

    tokens: _Mapped
    documents: _Mapped

    @property
    def sequences(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def sequence_length(self) -> int:
        return int(self.tokens.shape[1])

    def rows(self, indices: Indices) -> tuple[Array, Array]:
        """Tokens and documents of the sequences `indices`, shape (len(indices), length)."""
        return self.tokens[indices].astype(np.int64), self.documents[indices].astype(np.int64)

    def targets_in(self, indices: Indices) -> int:
        """How many tokens of the sequences `indices` are predicted: all but the first of each document."""
        documents = self.documents[indices]
        return int(np.count_nonzero((documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] != 0)))


def open_shards(folder: Path, sequence_length: int) -> Shards:
    """Map the shards of a mixture artifact. Raises PermanentError(MixtureInvalid) that names the file."""
    tokens = _map(folder, "tokens", sequence_length)
    documents = _map(folder, "documents", sequence_length)
    if tokens.shape != documents.shape:
        raise PermanentError("MixtureInvalid", f"{folder}: tokens {tokens.shape}, documents {documents.shape}")
    return Shards(tokens, documents)


def _map(folder: Path, name: str, sequence_length: int) -> _Mapped:
    for suffix, dtype in (("u16", "<u2"), ("u32", "<u4")):
        path = folder / f"{name}.{suffix}"
        if path.exists():
            return _reshaped(path, np.dtype(dtype), sequence_length)
    raise PermanentError("MixtureInvalid", f"{folder}: neither {name}.u16 nor {name}.u32 is there")


def _reshaped(path: Path, dtype: np.dtype[Any], sequence_length: int) -> _Mapped:
    items, rest = divmod(path.stat().st_size, dtype.itemsize * sequence_length)
    if rest:
        raise PermanentError("MixtureInvalid", f"{path}: no multiple of {sequence_length} tokens")
    if items == 0:
        return np.zeros((0, sequence_length), dtype)
    return np.memmap(path, dtype, mode="r", shape=(items, sequence_length))
