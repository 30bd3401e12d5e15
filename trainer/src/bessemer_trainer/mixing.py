"""How much of each part a mixture draws, and in which order. Pure; knows no file and no format.

The first part is drawn exactly once. Part i gives tokens(first) * weight(i) / weight(first) tokens, to the nearest
whole row: it is repeated, shuffled anew each time, or cut short. All drawn rows are shuffled together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_api.v1alpha1.stage import MixtureInputs

I64 = npt.NDArray[np.int64]
_METRICS = 24


@dataclass(frozen=True, slots=True)
class Draw:
    """Rows that one part gives, in the order drawn: numbers within the part."""

    documents: I64
    tokens: int


def draw(lengths: Sequence[I64], weights: Sequence[float], seed: int) -> list[Draw]:
    """What each part gives. `lengths` are tokens of each row, by part; `weights` are relative shares of tokens."""
    first = int(lengths[0].sum())
    targets = [round(first * weight / weights[0]) for weight in weights]
    return [
        _draw_part(part, target, seed, number)
        for number, (part, target) in enumerate(zip(lengths, targets, strict=True))
    ]


def _draw_part(lengths: I64, target: int, seed: int, number: int) -> Draw:
    """Whole passes, then the start of one more, to the row where the sum is nearest to `target`; at least one."""
    random = np.random.Generator(np.random.PCG64([seed, number]))
    passes, rest = divmod(target, int(lengths.sum()))
    orders = [random.permutation(len(lengths)) for _ in range(passes + 1)]
    sums = np.concatenate([[0], np.cumsum(lengths[orders[-1]])])
    nearest = int(np.abs(sums - rest).argmin())
    orders[-1] = orders[-1][: nearest or int(passes == 0)]
    documents = np.concatenate(orders)
    return Draw(documents, int(lengths[documents].sum()))


def drawn_rows(draws: Sequence[Draw], seed: int) -> Iterator[tuple[int, int]]:
    """(part, number within the part) of all drawn rows in one shuffled order."""
    owners = np.repeat(np.arange(len(draws)), [len(drawn.documents) for drawn in draws])
    numbers = np.concatenate([drawn.documents for drawn in draws])
    order = np.random.Generator(np.random.PCG64([seed, len(draws)])).permutation(len(numbers))
    for place in order:
        yield int(owners[place]), int(numbers[place])


def shares(inputs: MixtureInputs, lengths: Sequence[I64], draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """What each part really gave."""
    total = sum(drawn.tokens for drawn in draws)
    return [
        {
            "name": declared.name,
            "digest": declared.digest,
            "weight": declared.weight,
            "documents": len(part),
            "rows": len(drawn.documents),
            "tokens": drawn.tokens,
            "repeats": round(drawn.tokens / int(part.sum()), 6),
            "share": round(drawn.tokens / total, 6),
        }
        for declared, part, drawn in zip(inputs.parts, lengths, draws, strict=True)
    ]


def metrics(meta: dict[str, Any], totals: Sequence[str]) -> dict[str, float]:
    """Totals, then share, repeats, tokens and rows by part as far as a report holds them; the rest is in the meta."""
    by_part = {
        f"{figure}.{part['name']}": float(part[figure])
        for figure in ("share", "repeats", "tokens", "rows")
        for part in meta["parts"]
    }
    return dict(list(({name: float(meta[name]) for name in totals} | by_part).items())[:_METRICS])
