"""Tokenised shards of a mixture artifact, memory-mapped. Reads only; knows no model and no rank."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.schedule import Indices

Array = npt.NDArray[np.int64]
Batch = Mapping[str, npt.NDArray[Any]]
"""What an objective is given, by name."""
_Mapped = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Shards:
    """`tokens` and `documents`, both of shape (sequences, length).

    `documents` holds the number of each token's document within its sequence; 0 is padding. `targets`, of the same
    shape, is 1 where a token is trained; None where all are.
    """

    tokens: _Mapped
    documents: _Mapped
    targets: npt.NDArray[np.uint8] | None = None

    @property
    def sequences(self) -> int:
        return int(self.tokens.shape[0])

    @property
    def sequence_length(self) -> int:
        return int(self.tokens.shape[1])

    def rows(self, indices: Indices) -> Batch:
        """Tokens, documents and, where there are any, targets of the sequences `indices`."""
        batch = {
            "tokens": self.tokens[indices].astype(np.int64),
            "documents": self.documents[indices].astype(np.int64),
        }
        return batch if self.targets is None else {**batch, "targets": self.targets[indices]}

    def targets_in(self, indices: Indices) -> int:
        """How many tokens of the sequences `indices` are predicted: no first token of a document, and only targets."""
        documents = self.documents[indices]
        predicted = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] != 0)
        if self.targets is not None:
            predicted &= self.targets[indices][:, 1:] != 0
        return int(np.count_nonzero(predicted))


def open_shards(folder: Path, sequence_length: int, prefix: str = "") -> Shards:
    """Map the shards of a mixture artifact; `prefix` is `holdout-` for what it sets aside.

    Raises PermanentError(MixtureInvalid) that names the file.
    """
    tokens = _map(folder, f"{prefix}tokens", sequence_length)
    documents = _map(folder, f"{prefix}documents", sequence_length)
    path = folder / f"{prefix}targets.u8"
    targets = _reshaped(path, np.dtype("u1"), sequence_length) if path.exists() else None
    if tokens.shape != documents.shape or (targets is not None and targets.shape != tokens.shape):
        shapes = f"tokens {tokens.shape}, documents {documents.shape}"
        shapes += "" if targets is None else f", targets {targets.shape}"
        raise PermanentError("MixtureInvalid", f"{folder}: {shapes}")
    return Shards(tokens, documents, targets)


def _map(folder: Path, name: str, sequence_length: int) -> _Mapped:
    for suffix, dtype in (("u16", "<u2"), ("u32", "<u4")):
        path = folder / f"{name}.{suffix}"
        if path.exists():
            return _reshaped(path, np.dtype(dtype), sequence_length)
    raise PermanentError("MixtureInvalid", f"{folder}: neither {name}.u16 nor {name}.u32 is there")


def _reshaped(path: Path, dtype: np.dtype[Any], sequence_length: int) -> npt.NDArray[Any]:
    items, rest = divmod(path.stat().st_size, dtype.itemsize * sequence_length)
    if rest:
        raise PermanentError("MixtureInvalid", f"{path}: no multiple of {sequence_length} tokens")
    if items == 0:
        return np.zeros((0, sequence_length), dtype)
    return np.memmap(path, dtype, mode="r", shape=(items, sequence_length))
