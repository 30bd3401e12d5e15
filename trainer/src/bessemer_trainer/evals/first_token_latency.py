"""firstTokenLatency: seconds from a prompt to its first token, one prompt at a time; smaller is better.

The only task whose result is not the same each time: it is a time. So it is taken as the median of several runs after
a warm-up, it is compared within one class of device only, and as a ratio.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.common import Sample, longest_input, sample_of
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.prompts import prompt_of
from bessemer_trainer.evals.subject import Subject

RUNS = 5
"""Runs of each prompt; their median is its score."""


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items."""
    prompts = [_tokens(subject, item, axis) for item in items]
    _seconds(subject.model, max(prompts, key=len))
    samples = []
    for done, (item, tokens) in enumerate(zip(items, prompts, strict=True), start=1):
        seconds = [_seconds(subject.model, tokens) for _ in range(RUNS)]
        samples.append(sample_of(item, axis, median(seconds), {"tokens": len(tokens), "seconds": seconds}))
        progress(done)
    return samples


def _tokens(subject: Subject, item: Item, axis: Axis) -> list[int]:
    tokens = subject.prompt_tokens(prompt_of(item, axis), axis, item)
    if len(tokens) >= longest_input(subject.model):
        raise item.error(f"its prompt has {len(tokens)} tokens", f"the model takes {longest_input(subject.model)}")
    return tokens


@torch.inference_mode()
def _seconds(model: Any, tokens: Sequence[int]) -> float:  # noqa: ANN401 - transformers is untyped
    device = next(model.parameters()).device
    start = time.perf_counter()
    row = torch.tensor([list(tokens)], device=device)
    model(input_ids=row, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1).item()  # item() waits for the GPU
    return time.perf_counter() - start
