"""Reading safetensors piece by piece with numpy alone: no torch, no copy of a whole tensor."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_trainer.errors import PermanentError

WEIGHTS = "model.safetensors"
CHUNK = 1 << 20
"""Numbers that are held at once."""
_FLOATS: dict[str, Any] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_MAX_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: number format as safetensors names it, shape, and where its bytes lie."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The tensors of one `model.safetensors` by name."""

    path: Path
    tensors: dict[str, Tensor]

    def chunks(self, name: str) -> Iterator[npt.NDArray[np.floating[Any]]]:
        """The numbers of a floating-point tensor in single precision (double where it is stored so)."""
        tensor = self.tensors[name]
        if tensor.size == 0:
            return
        raw = np.memmap(self.path, _FLOATS[tensor.dtype], "r", tensor.start, (tensor.size,))
        for first in range(0, tensor.size, CHUNK):
            yield _widen(raw[first : first + CHUNK], tensor.dtype)

    def is_float(self, name: str) -> bool:
        """Whether its numbers are floating-point."""
        return self.tensors[name].dtype in _FLOATS


def _widen(chunk: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.floating[Any]]:
    if dtype == "BF16":  # the upper half of a single-precision number
        return (chunk.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return chunk.astype(np.float64 if dtype == "F64" else np.float32)


def open_tensors(folder: Path) -> TensorFile:
    """The weights of a checkpoint. Raises PermanentError(CheckpointInvalid)."""
    path = folder / WEIGHTS
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER:
                raise ValueError("its header is too long")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        start = 8 + length
        tensors = {
            name: Tensor(
                item["dtype"], tuple(item["shape"]), start + item["data_offsets"][0], start + item["data_offsets"][1]
            )
            for name, item in sorted(header.items())
        }
        if max((item.end for item in tensors.values()), default=0) > path.stat().st_size:
            raise ValueError("it is cut short")
    except FileNotFoundError:
        raise PermanentError("CheckpointInvalid", f"{WEIGHTS} is missing") from None
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise PermanentError("CheckpointInvalid", f"{WEIGHTS} is no safetensors file: {error}") from None
    return TensorFile(path, tensors)
