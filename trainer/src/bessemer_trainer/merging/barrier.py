"""The loss along the path from the first parent to the second, on held-out text: is there a barrier between them?

The path is the merge's own (linear or spherical, of weights or of differences from the ancestor) with one factor for
all tensors. The barrier is the largest excess over the straight line between the losses of the two ends (Frankle et
al. 2020, arXiv 1912.05671), in nats a token.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from bessemer_trainer.model import load_model
from bessemer_trainer.token_cache import load_vocabulary

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)
TOKENS = 8192
"""Tokens of held-out text that are read at most, in documents of their order."""
_LINEAR = 0.9995


def interpolate(a: Tensor, b: Tensor, t: float, *, spherical: bool) -> Tensor:
    """Between `a` (t=0) and `b` (t=1), in double precision: Shoemake's formula over the whole tensor, or straight.

    Where the cosine exceeds 0.9995 in size the straight line is taken, as mergekit does.
    """
    first, second = a.double(), b.double()
    norms = first.norm() * second.norm()
    cosine = float((first.flatten() @ second.flatten()) / norms) if float(norms) > 0 else 1.0
    if not spherical or abs(cosine) > _LINEAR:
        return (1 - t) * first + t * second
    angle = torch.acos(torch.tensor(cosine, dtype=torch.float64))
    return (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)


def measure(parents: Sequence[Path], base: Path | None, method: str, texts: Path) -> dict[str, Any]:
    """`losses` by factor and `barrier`, nats a token; how many tokens were read."""
    windows = _windows(parents[0], texts)
    model: Any = load_model(parents[0])
    losses = []
    for factor in POINTS:
        _set_weights(model, parents, base, factor, spherical=method in {"slerp", "nuslerp"})
        losses.append(_loss(model, windows))
    ends = losses[0], losses[-1]
    excess = [loss - ((1 - t) * ends[0] + t * ends[1]) for t, loss in zip(POINTS, losses, strict=True)]
    tokens = sum(len(window) - 1 for window in windows)
    return {"points": list(POINTS), "losses": losses, "barrier": max(0.0, *excess), "tokens": tokens}


def _windows(folder: Path, texts: Path) -> list[list[int]]:
    """Token rows of the documents, each with its end-of-text token, cut to what the model reads."""
    vocabulary = load_vocabulary(folder)
    longest = int(json.loads((folder / "config.json").read_bytes())["max_position_embeddings"])
    rows: list[list[int]] = []
    for line in texts.read_text(encoding="utf-8").splitlines():
        row = [
            *vocabulary.tokenizer.encode(str(json.loads(line)["text"]), add_special_tokens=False).ids,
            vocabulary.end,
        ]
        rows.append(row[: min(longest, TOKENS - sum(map(len, rows)))])
        if sum(map(len, rows)) >= TOKENS:
            break
    return [row for row in rows if len(row) > 1]


@torch.inference_mode()
def _set_weights(model: Any, parents: Sequence[Path], base: Path | None, factor: float, *, spherical: bool) -> None:  # noqa: ANN401
    """The point of the path at `factor`, tensor by tensor, in single precision."""
    own = dict(model.named_parameters())
    folders = [*parents, *([base] if base else [])]
    files: list[Any] = [safe_open(folder / "model.safetensors", framework="pt") for folder in folders]
    for name in files[0].keys():  # noqa: SIM118 - it is no dictionary
        tensors = [file.get_tensor(name) for file in files]
        origin = tensors[2].double() if base else 0.0
        a, b = (tensor.double() - origin for tensor in tensors[:2])
        own[name].copy_(origin + interpolate(a, b, factor, spherical=spherical))


@torch.inference_mode()
def _loss(model: Any, windows: Sequence[Sequence[int]]) -> float:  # noqa: ANN401 - transformers is untyped
    total = 0.0
    for window in windows:
        row = torch.tensor([window])
        logs = model(input_ids=row, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        total -= float(logs.gather(-1, row[0, 1:].unsqueeze(-1)).double().sum())
    return total / max(1, sum(len(window) - 1 for window in windows))
