"""Generation: greedy or sampled, many prompts at once, with a cache of keys and values.

The same requests give the same outputs, whatever else is in a batch: batches depend on the requests only, and each
sample draws from a stream of its own that depends on the seed, the item and the number of the sample, never on torch's
random state. A token is where its number falls in the cumulative distribution, in fp64. (Kernels round differently for
other shapes of batches, by about 1e-6: an output changes only where two tokens are that close.)

Nothing here measures time, and nothing knows tasks.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.common import BATCH_TOKENS, grouped

_NOTHING: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, and how many answers to it are wanted. `key` names it for randomness; `longest` counts new tokens."""

    key: str
    tokens: Sequence[int]
    longest: int
    samples: int = 1
    stop: tuple[str, ...] = _NOTHING

    @property
    def size(self) -> tuple[int, int]:
        """Rows, and tokens of a row at most."""
        return self.samples, len(self.tokens) + self.longest


@dataclass(frozen=True, slots=True)
class Output:
    """New tokens, without the one that ended them. `ended`: an end-of-text token came (and not the longest length)."""

    tokens: tuple[int, ...]
    ended: bool


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are chosen, and when an answer is over."""

    ends: frozenset[int]
    temperature: float = 0.0
    seed: int = 0
    text_of: Callable[[Sequence[int]], str] = field(default=lambda tokens: "")


def generate(
    model: Any,  # noqa: ANN401 - transformers is untyped
    requests: Sequence[Request],
    decoding: Decoding,
    progress: Callable[[int], None],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[Output]]:
    """`samples` outputs for each request, in the order of the requests."""
    found: dict[int, list[Output]] = {}
    for batch in grouped([request.size for request in requests], batch_tokens):
        outputs = iter(_run([requests[i] for i in batch], model, decoding))
        for i in batch:
            found[i] = [next(outputs) for _ in range(requests[i].samples)]
        progress(len(found))
    return [found[i] for i in range(len(requests))]


class _Rows:
    """The answers that are being written, one a row. `alive`: which of them the model still goes on with."""

    def __init__(self, requests: Sequence[Request], decoding: Decoding) -> None:
        self.decoding = decoding
        self.requests = [request for request in requests for _ in range(request.samples)]
        self.tokens: list[list[int]] = [[] for _ in self.requests]
        self.ended = [False] * len(self.requests)
        self.over = [False] * len(self.requests)
        numbers = [k for request in requests for k in range(request.samples)]
        self.draws = (
            [random_numbers(decoding.seed, r.key, k, r.longest) for r, k in zip(self.requests, numbers, strict=True)]
            if decoding.temperature > 0
            else []
        )

    def take(self, rows: Sequence[int], chosen: Sequence[int]) -> None:
        """Write one more token in each of these rows."""
        for row, token in zip(rows, chosen, strict=True):
            if self.over[row]:
                continue
            if token in self.decoding.ends:
                self.ended[row] = self.over[row] = True
                continue
            self.tokens[row].append(token)
            is_full = len(self.tokens[row]) >= self.requests[row].longest
            self.over[row] = is_full or self._has_stopped(row)

    def _has_stopped(self, row: int) -> bool:
        stop = self.requests[row].stop
        if not stop:
            return False
        tail = self.decoding.text_of(self.tokens[row][-(8 + max(map(len, stop))) :])
        return any(text in tail for text in stop)


@torch.inference_mode()
def _run(requests: Sequence[Request], model: Any, decoding: Decoding) -> list[Output]:  # noqa: ANN401
    device = next(model.parameters()).device
    rows = _Rows(requests, decoding)
    prompt, mask = _pad_left([request.tokens for request in requests], device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    out = model(input_ids=prompt, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
    cache = out.past_key_values
    expand = torch.tensor([i for i, request in enumerate(requests) for _ in range(request.samples)], device=device)
    cache.batch_select_indices(expand)
    mask, positions, logits = mask[expand], positions[expand, -1:], out.logits[:, -1][expand]
    alive = list(range(len(rows.requests)))
    step = 0
    while True:
        chosen = _choose(logits, [rows.draws[r][step] for r in alive] if rows.draws else [], decoding, rows, alive)
        rows.take(alive, chosen.tolist())
        going = [k for k, row in enumerate(alive) if not rows.over[row]]
        if not going:
            return [Output(tuple(t), e) for t, e in zip(rows.tokens, rows.ended, strict=True)]
        if 2 * len(going) <= len(alive):  # rows that are over cost time: leave them once they are half of all
            keep = torch.tensor(going, device=device)
            cache.batch_select_indices(keep)
            mask, positions, chosen, alive = mask[keep], positions[keep], chosen[keep], [alive[k] for k in going]
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        positions = positions + 1
        out = model(
            input_ids=chosen.unsqueeze(1), attention_mask=mask, position_ids=positions, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        logits, step = out.logits[:, -1], step + 1


def _choose(
    logits: torch.Tensor, draws: Sequence[float], decoding: Decoding, rows: _Rows, alive: Sequence[int]
) -> torch.Tensor:
    """The next token of each row: the most likely one, or where its number falls."""
    finite = torch.isfinite(logits.max(-1).values) & ~torch.isnan(logits).any(-1)
    if not bool(finite.all()):
        request = rows.requests[alive[int((~finite).nonzero()[0])]]
        raise PermanentError(
            "NonFiniteScore", f"item {request.key}: the model's output is not finite: look at its training"
        )
    if not draws:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.double() / decoding.temperature, -1).cumsum(-1)
    numbers = torch.tensor(draws, dtype=torch.float64, device=logits.device).unsqueeze(1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, numbers, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


def random_numbers(seed: int, key: str, sample: int, count: int) -> list[float]:
    """Numbers in [0, 1) of one sample of one item; the same on every machine."""
    words = np.frombuffer(hashlib.sha256(f"{seed}/{sample}/{key}".encode()).digest(), dtype=np.uint32)
    numbers: list[float] = np.random.Generator(np.random.PCG64(words)).random(count).tolist()
    return numbers


def _pad_left(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token numbers and mask (1 for tokens), [sequences, longest]; padded on the left so that all end together."""
    width = max(map(len, sequences))
    padded = [[0] * (width - len(s)) + list(s) for s in sequences]
    mask = [[0] * (width - len(s)) + [1] * len(s) for s in sequences]
    return torch.tensor(padded, device=device), torch.tensor(mask, device=device)
