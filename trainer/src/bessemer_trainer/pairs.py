"""Preference pairs of a mixture artifact, memory-mapped, and the batches that are made of them. Knows no model.

A batch holds all chosen completions first, then the rejected ones in the same order: one forward sees both. Pairs of
one global batch are sorted by length before they are split, so that little of a micro batch is padding; which pairs a
global batch holds does not depend on that.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.schedule import Indices, RunPlan, global_batch
from bessemer_trainer.shards import Array

_MULTIPLE = 8
"""Rows are padded to a multiple of so many tokens: fewer shapes, each a multiple of what GPUs multiply at once."""


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Rows padded at the right with 0. Row i and row i + pairs are the two answers to one prompt."""

    tokens: Array
    """Shape (2 * pairs, length)."""
    begins: Array
    """Where the completion begins, shape (2 * pairs,)."""
    ends: Array
    """One past its last token."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """`tokens`: all pairs one after another, each as prompt, chosen, rejected; `index`: see `open_pairs`."""

    tokens: npt.NDArray[Any]
    index: Array

    def __len__(self) -> int:
        return len(self.index)

    @property
    def lengths(self) -> Array:
        """Tokens of the longer row of each pair."""
        longest: Array = self.index[:, 1] + self.index[:, 2:].max(axis=1)
        return longest

    def trained_tokens(self, pairs: Indices) -> tuple[int, int]:
        """Tokens of `pairs` as the mixture counts them (each prompt once), and those of them that are targets."""
        targets = int(self.index[pairs, 2:].sum())
        return int(self.index[pairs, 1].sum()) + targets, targets

    def batch(self, pairs: Indices, completions_of: Indices | None = None, longest: int | None = None) -> PairBatch:
        """The rows of `pairs`; with `completions_of` each prompt gets the completions of another pair.

        Such a row may be too long: what passes `longest` tokens is cut off at the end.
        """
        others = pairs if completions_of is None else completions_of
        rows = [
            (self._part(pair, 0), self._part(other, side))
            for side in (1, 2)
            for pair, other in zip(pairs, others, strict=True)
        ]
        if longest is not None:
            rows = [(prompt, completion[: max(1, longest - len(prompt))]) for prompt, completion in rows]
        return pad_rows(rows)

    def has_equal_completions(self, pair: int) -> bool:
        return bool(np.array_equal(self._part(pair, 1), self._part(pair, 2)))

    def _part(self, pair: int, part: int) -> npt.NDArray[Any]:
        """Prompt (0), chosen (1) or rejected (2) of a pair."""
        offset, *lengths = (int(value) for value in self.index[pair])
        start = offset + sum(lengths[:part])
        return self.tokens[start : start + lengths[part]]


def pad_rows(rows: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> PairBatch:
    """Prompts and completions as padded rows."""
    begins = np.array([len(prompt) for prompt, _ in rows], dtype=np.int64)
    ends = begins + np.array([len(completion) for _, completion in rows], dtype=np.int64)
    tokens = np.zeros((len(rows), -(-int(ends.max()) // _MULTIPLE) * _MULTIPLE), dtype=np.int64)
    for row, (prompt, completion) in zip(tokens, rows, strict=True):
        row[: len(prompt)] = prompt
        row[len(prompt) : len(prompt) + len(completion)] = completion
    return PairBatch(tokens, begins, ends)


def open_pairs(folder: Path, held_out: bool = False) -> Pairs:
    """Map the pairs of a mixture artifact, or those that it holds out (none is no error).

    Columns of the index: offset, tokens of the prompt, of the chosen and of the rejected completion.
    Raises PermanentError(MixtureInvalid) that names the file, and the pair that training could learn nothing from.
    """
    prefix = "holdout-" if held_out else ""
    path = folder / f"{prefix}index.u32"
    if not path.exists() and not held_out:
        raise PermanentError("MixtureInvalid", f"{path} is missing; a preference stage needs a mixture of pairs")
    index = np.fromfile(path, "<u4").astype(np.int64) if path.exists() else np.zeros(0, np.int64)
    if len(index) % 4:
        raise PermanentError("MixtureInvalid", f"{path}: no multiple of 4 numbers")
    pairs = Pairs(_map_tokens(folder, f"{prefix}tokens", missing_is_empty=held_out), index.reshape(-1, 4))
    _check(pairs, path)
    return pairs


def _map_tokens(folder: Path, name: str, *, missing_is_empty: bool) -> npt.NDArray[Any]:
    for suffix, dtype in (("u16", "<u2"), ("u32", "<u4")):
        path = folder / f"{name}.{suffix}"
        if path.exists():
            return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)
    if missing_is_empty:
        return np.zeros(0, "<u2")
    raise PermanentError("MixtureInvalid", f"{folder}: neither {name}.u16 nor {name}.u32 is there")


def _check(pairs: Pairs, path: Path) -> None:
    """Every pair lies within the tokens and has two completions that differ."""
    if not len(pairs):
        return
    past = int((pairs.index[:, 0] + pairs.index[:, 1:].sum(axis=1)).max())
    if past > len(pairs.tokens):
        raise PermanentError("MixtureInvalid", f"{path}: a pair ends at token {past}, there are {len(pairs.tokens)}")
    empty = np.flatnonzero((pairs.index[:, 1:] < 1).any(axis=1))
    if len(empty):
        raise PermanentError(
            "MixtureInvalid", f"{path}: pair {empty[0]} has an empty prompt or completion; nothing can be learned of it"
        )
    alike = np.flatnonzero(pairs.index[:, 2] == pairs.index[:, 3])
    equal = next((pair for pair in alike if pairs.has_equal_completions(int(pair))), None)
    if equal is not None:
        raise PermanentError(
            "MixtureInvalid", f"{path}: the completions of pair {equal} are equal; nothing can be learned of it"
        )


def micro_batches(plan: RunPlan, step: int, rank: int, lengths: Array) -> list[Indices]:
    """Numbers of the pairs (or prompts) of each micro batch of `rank` in `step`, sorted by length.

    Rank r of micro batch i takes block i * world + r of the sorted global batch: all ranks work on rows of about one
    length at a time.
    """
    batch = global_batch(plan, step)
    ordered = batch[np.argsort(lengths[batch], kind="stable")]
    blocks = range(rank, plan.accumulation * plan.world_size, plan.world_size)
    return [ordered[block * plan.micro : (block + 1) * plan.micro] for block in blocks]


def shares(lengths: Array, micro: int, rank: int, world_size: int) -> list[Indices]:
    """All pairs once, sorted by length, in micro batches dealt out to the ranks; equally many for each.

    A rank that has none left gets an empty one: every rank must run equally many forwards.
    """
    ordered = np.argsort(lengths, kind="stable")
    count = -(-len(ordered) // (micro * world_size))
    return [
        ordered[(number * world_size + rank) * micro : (number * world_size + rank + 1) * micro]
        for number in range(count)
    ]
