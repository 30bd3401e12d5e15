"""What lies between the parents, tensor by tensor: norms, angles, and where a spherical merge is a linear one.

One pass over the numbers, which also finds NaN and infinity. In `space: taskVectors` everything is that of the
differences from the common ancestor.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_api.v1alpha1.merge import TASK_METHODS, MergeInputs
from bessemer_trainer.merging.parents import Parent, refused
from bessemer_trainer.merging.schedule import factor_of

SLERP_LINEAR = 0.9995
"""mergekit's slerp is linear where the cosine between two tensors is larger (or below the negative): a relative change
of about 3.2 %."""
_NUSLERP_LINEAR = 1e-8
"""mergekit's nuslerp is linear where the sine of the angle is smaller."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor: norm of each parent, angle in degrees between the first parent and each other, factor (where the
    method has one), and whether a spherical method merges it linearly.
    """

    name: str
    size: int
    norms: tuple[float, ...]
    angles: tuple[float, ...]
    t: float | None
    linear: bool

    def wire(self) -> dict[str, Any]:
        """As a JSON object; 9 digits of each number."""
        found: dict[str, Any] = {
            "name": self.name,
            "norms": [_rounded(value) for value in self.norms],
            "angles": [_rounded(value) for value in self.angles],
        }
        return (
            found | ({"t": _rounded(self.t)} if self.t is not None else {}) | ({"linear": True} if self.linear else {})
        )


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


def measure(
    inputs: MergeInputs, parents: Sequence[Parent], base: Parent | None, report: Callable[[int], None]
) -> list[Row]:
    """Rows by tensor name. Raises PermanentError(ParentRefused) for a parent that holds NaN or infinity."""
    uses_base = base if inputs.space == "taskVectors" or inputs.method in TASK_METHODS else None
    rows = []
    for done, (name, tensor) in enumerate(parents[0].weights.tensors.items()):
        report(done)
        if not parents[0].weights.is_float(name):
            continue
        norms, angles = _compare(name, parents, uses_base)
        factor = factor_of(name, inputs.t, parents[0].layers) if inputs.t is not None else None
        rows.append(Row(name, tensor.size, norms, angles, factor, _is_linear(inputs, norms, angles)))
    return rows


def _is_linear(inputs: MergeInputs, norms: Sequence[float], angles: Sequence[float]) -> bool:
    if inputs.method not in {"slerp", "nuslerp"}:
        return False
    if inputs.method == "slerp" and inputs.space == "weights":
        is_null = min(norms) == 0
        return not is_null and abs(math.cos(math.radians(angles[0]))) > SLERP_LINEAR
    return abs(math.sin(math.radians(angles[0]))) <= _NUSLERP_LINEAR


def _compare(name: str, parents: Sequence[Parent], base: Parent | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Norms and angles. The angle comes from the difference, which keeps its digits where two parents are close."""
    squares = [0.0] * len(parents)
    apart = [0.0] * (len(parents) - 1)
    for chunks in _together(name, parents, base):
        for index, chunk in enumerate(chunks):
            squares[index] += _square(chunk)
        for index, chunk in enumerate(chunks[1:]):
            apart[index] += _square(chunk - chunks[0])
    norms = [math.sqrt(value) for value in squares]
    others = zip(norms[1:], apart, strict=True)
    return tuple(norms), tuple(_angle(norms[0], norm, square) for norm, square in others)


def _together(name: str, parents: Sequence[Parent], base: Parent | None) -> Iterator[list[Array]]:
    streams = [parent.weights.chunks(name) for parent in parents]
    if base is None:
        for chunks in zip(*streams, strict=True):
            _require_finite(name, parents, chunks)
            yield list(chunks)
        return
    for ancestor, *chunks in zip(base.weights.chunks(name), *streams, strict=True):
        _require_finite(name, [base, *parents], [ancestor, *chunks])
        yield [chunk - ancestor for chunk in chunks]


def _require_finite(name: str, parents: Sequence[Parent], chunks: Sequence[Array]) -> None:
    for parent, chunk in zip(parents, chunks, strict=True):
        if not math.isfinite(_square(chunk)) and not bool(np.isfinite(chunk).all()):
            raise refused(parent.name, f"{name} holds NaN or infinity")


def _square(chunk: Array) -> float:
    """Sum of squares; in double precision where single precision overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = float(np.dot(chunk, chunk))
        if math.isinf(found):
            wide = chunk.astype(np.float64)
            found = float(np.dot(wide, wide))
    return found


def _angle(first: float, second: float, square: float) -> float:
    """Degrees between two vectors from their norms and the square of their distance; 0 where one is null."""
    if first == 0 or second == 0:
        return 0.0
    half = max(0.0, square - (first - second) ** 2) / (4 * first * second)
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(half))))


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """The figures of a merge in a few numbers: tensors, linear fallbacks, and angles weighted by size."""
    sizes = sum(row.size for row in rows)
    largest = [max(row.angles) for row in rows]
    return {
        "tensors": float(len(rows)),
        "linearFallbacks": float(sum(row.linear for row in rows)),
        "linearShare": _rounded(sum(row.size for row in rows if row.linear) / max(1, sizes)),
        "meanAngle": _rounded(sum(row.size * angle for row, angle in zip(rows, largest, strict=True)) / max(1, sizes)),
        "smallestAngle": _rounded(min(largest)),
        "largestAngle": _rounded(max(largest)),
    }
