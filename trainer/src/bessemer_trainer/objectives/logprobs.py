"""Log-probabilities of tokens under a causal language model. Knows no loss.

Rows are padded at the right and get no attention mask: a causal model never looks at what comes after a token, so the
padding can not change what is read here, and attention stays the fast causal kernel. Which id the padding has does not
matter either, not even that of the end-of-text token: what counts is where a row ends, not what its padding is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

PAIR_METRICS = ("rewards_margin", "rewards_accuracy", "logps_chosen", "logps_rejected")
"""Means over pairs that every method on pairs reports."""

_LOGITS_AT_ONCE = 1 << 27
"""Logits (tokens x vocabulary) that are held at once; more are made in chunks and again in backward."""


@dataclass(frozen=True, slots=True)
class Duo:
    """One value of the chosen and one of the rejected completion, each of shape (pairs,)."""

    chosen: Tensor
    rejected: Tensor

    @staticmethod
    def halves(values: Tensor) -> "Duo":
        """Of rows that hold all chosen completions first, then the rejected ones in the same order."""
        chosen, rejected = values.chunk(2)
        return Duo(chosen, rejected)

    def __sub__(self, other: "Duo") -> "Duo":
        return Duo(self.chosen - other.chosen, self.rejected - other.rejected)

    def __truediv__(self, other: "Duo") -> "Duo":
        return Duo(self.chosen / other.chosen, self.rejected / other.rejected)

    def times(self, factor: float) -> "Duo":
        return Duo(self.chosen * factor, self.rejected * factor)

    @property
    def margin(self) -> Tensor:
        return self.chosen - self.rejected


def span(begins: Tensor, ends: Tensor, length: int) -> Tensor:
    """Shape (rows, length): True where begin <= position < end. The first position of a row is never predicted."""
    positions = torch.arange(length, device=begins.device)
    return (positions >= begins.clamp(min=1).unsqueeze(1)) & (positions < ends.unsqueeze(1))


def completion_log_probs(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - transformers
    """Sum of the log-probabilities of each row's completion, and its tokens; shape (rows,) each.

    `batch`: tokens (rows, length), begins and ends (rows,) of the completions.
    """
    wanted = span(batch["begins"], batch["ends"], batch["tokens"].shape[1])
    return token_log_probs(model, batch["tokens"], wanted).sum(dim=1), wanted.sum(dim=1)


def pair_metrics(rewards: Duo, log_probs: Duo) -> Tensor:
    """Sums over the pairs of what PAIR_METRICS names. A tie is half right."""
    right = (rewards.margin > 0).double() + 0.5 * (rewards.margin == 0).double()
    values = (rewards.margin, right, log_probs.chosen, log_probs.rejected)
    return torch.stack([value.detach().double().sum() for value in values])


def token_log_probs(model: Any, tokens: Tensor, wanted: Tensor) -> Tensor:  # noqa: ANN401 - transformers is untyped
    """Log-probability log p(token | tokens before it), fp32, shape (rows, length); 0 where `wanted` is False.

    `wanted` must be False at the first position. Logits are made for the wanted positions only.
    """
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    picked = _picked(model.get_output_embeddings(), hidden[:, :-1][wanted[:, 1:]], tokens[wanted])
    values = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
    return values.index_put((wanted,), picked)


def _picked(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:  # noqa: ANN401 - a module or a parametrised one
    def chunk(part: Tensor, target: Tensor) -> Tensor:
        return -functional.cross_entropy(head(part).float(), target, reduction="none")

    rows = max(1, _LOGITS_AT_ONCE // head.weight.shape[0])
    if len(targets) <= rows:
        return chunk(hidden, targets)
    parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    return torch.cat([checkpoint(chunk, part, target, use_reentrant=False) for part, target in parts])
