"""Sampling from a causal language model with a cache of keys and values. Knows no rewards, no files, no ranks.

What is drawn depends on the model, the prompt and the numbers that are passed in, never on torch's random state: a
token is where its number falls in the cumulative distribution. So whoever resumes draws the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sampler:
    """How answers are drawn. `goes_on(unfinished)`: whether any rank still has an unfinished answer."""

    ends: tuple[int, ...]
    temperature: float
    longest: int
    goes_on: Callable[[bool], bool] = bool


def uniform_numbers(seed: int, step: int, prompt: int, samples: int, longest: int) -> Floats:
    """Numbers in [0, 1) for the samples of one prompt in one step, shape (samples, longest)."""
    return np.random.Generator(np.random.PCG64([seed, step, prompt])).random((samples, longest))


@torch.no_grad()
def sample(model: Any, prompts: Sequence[Tokens], numbers: Floats, sampler: Sampler) -> list[Tokens]:  # noqa: ANN401
    """Answers to `prompts`, each up to one of `sampler.ends` or `sampler.longest`; the end is part of an answer.

    `model`: of transformers, in evaluation mode. `numbers`: shape (prompts * samples, longest), samples of a prompt in
    a row, as are the answers. Each prompt is read once, whatever the number of samples.
    """
    device = next(model.parameters()).device
    samples = len(numbers) // len(prompts)
    tokens, seen = (torch.from_numpy(part).to(device) for part in _left_padded(prompts))
    draws = torch.from_numpy(np.ascontiguousarray(numbers)).to(device)
    out = _forward(model, tokens, seen, (seen.cumsum(dim=1) - 1).clamp(min=0), None)
    hidden, cache = out.last_hidden_state[:, -1].repeat_interleave(samples, dim=0), out.past_key_values
    cache.batch_repeat_interleave(samples)
    seen = seen.repeat_interleave(samples, dim=0)
    drawn, finished = [], torch.zeros(len(numbers), dtype=torch.bool, device=device)
    ends = torch.tensor(sampler.ends, device=device)
    for place in range(sampler.longest):
        chosen = _draw(model.get_output_embeddings()(hidden), draws[:, place], sampler.temperature)
        drawn.append(chosen)
        finished = finished | torch.isin(chosen, ends)
        if not sampler.goes_on(not bool(finished.all())) or place + 1 == sampler.longest:
            break
        positions = seen.sum(dim=1, keepdim=True)
        seen = torch.cat([seen, torch.ones_like(seen[:, :1])], dim=1)
        out = _forward(model, chosen.unsqueeze(1), seen, positions, cache)
        hidden, cache = out.last_hidden_state[:, -1], out.past_key_values
    return _ended(torch.stack(drawn, dim=1).cpu().numpy(), sampler.ends)


def _forward(model: Any, tokens: Tensor, seen: Tensor, positions: Tensor, cache: Any) -> Any:  # noqa: ANN401
    return model.base_model(
        input_ids=tokens, attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True
    )


def _left_padded(prompts: Sequence[Tokens]) -> tuple[Tokens, Tokens]:
    """Tokens and what of them is no padding: all prompts end in the last column."""
    width = max(len(prompt) for prompt in prompts)
    tokens, seen = np.zeros((2, len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, width - len(prompt) :] = prompt
        seen[row, width - len(prompt) :] = 1
    return tokens, seen


def _draw(logits: Tensor, numbers: Tensor, temperature: float) -> Tensor:
    """The token in whose part of the cumulative distribution each number falls, shape (rows,)."""
    cumulative = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    # Rounding may leave the sum a little off 1: the numbers are stretched to it, so that no impossible token is drawn.
    places = torch.searchsorted(cumulative, (numbers * cumulative[:, -1]).unsqueeze(1), right=True).squeeze(1)
    return places.clamp(max=logits.shape[1] - 1)


def _ended(drawn: Tokens, ends: tuple[int, ...]) -> list[Tokens]:
    stops = np.isin(drawn, ends)
    lengths = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, drawn.shape[1])
    return [row[:length] for row, length in zip(drawn, lengths, strict=True)]
