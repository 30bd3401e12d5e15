"""Maximum likelihood: the cross entropy of the next token, for pretrain, cpt and sft.

Documents that are packed in one sequence do not see each other: positions restart at each document, and transformers
makes the block-diagonal causal mask from them (for SDPA and flash attention alike).

NEFTune (Jain et al. 2023, arXiv 2310.05914): in training the embedding of each token gets uniform noise of
[-1, 1] * alpha / sqrt(L d), with L the tokens of its document and d the width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

IGNORE = -100
_LOGITS_AT_ONCE = 1 << 27
"""Logits (positions x vocabulary) that are held at once; more are made in chunks and again in backward."""


class Likelihood(nn.Module):
    """A causal language model whose forward is a sum of losses, as DeepSpeed's engine wants it."""

    metrics: tuple[str, ...] = ()

    def __init__(self, model: nn.Module, neftune_alpha: float = 0.0) -> None:
        super().__init__()
        self.model: Any = model
        self._alpha = neftune_alpha

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Sum of the cross entropies (nats, fp32) of all targets.

        `batch`: tokens and documents of shape (rows, length); targets, when there are any but all, of the same shape:
        1 where a token is to be predicted.
        """
        tokens, documents = batch["tokens"], batch["documents"]
        positions = positions_of(documents)
        labels = targets_of(tokens, documents, batch.get("targets"))
        hidden = self._hidden(tokens, documents, positions)
        if "targets" in batch:
            # Only what is trained needs logits: with a loss on completions that can be a small share.
            wanted = labels.flatten() != IGNORE
            return self._loss(hidden.reshape(-1, hidden.shape[-1])[wanted], labels.flatten()[wanted])
        return self._loss(hidden.reshape(-1, hidden.shape[-1]), labels.flatten())

    def _hidden(self, tokens: Tensor, documents: Tensor, positions: Tensor) -> Tensor:
        noise = self._noise(tokens, documents) if self.training and self._alpha else None
        if self.model.config._attn_implementation.startswith("flash"):
            # Flash attention takes the documents of one flattened row as sequences of different lengths.
            tokens, positions = tokens.view(1, -1), positions.view(1, -1)
        given = {"input_ids": tokens}
        if noise is not None:
            embedded = self.model.get_input_embeddings()(tokens)
            given = {"inputs_embeds": embedded + noise.view(embedded.shape).to(embedded.dtype)}
        result = self.model.base_model(**given, position_ids=positions, use_cache=False)
        hidden: Tensor = result.last_hidden_state
        return hidden

    def _noise(self, tokens: Tensor, documents: Tensor) -> Tensor:
        width = self.model.config.hidden_size
        scale = self._alpha / (lengths_of(documents) * width).float().sqrt()
        uniform = torch.rand((*tokens.shape, width), device=tokens.device) * 2 - 1
        noise: Tensor = uniform * scale.unsqueeze(-1)
        return noise

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        rows = max(1, _LOGITS_AT_ONCE // self.model.config.vocab_size)
        if len(targets) <= rows:
            return self._chunk(hidden, targets)
        chunks = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        losses = [checkpoint(self._chunk, part, target, use_reentrant=False) for part, target in chunks]
        return torch.stack(losses).sum()

    def _chunk(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self.model.get_output_embeddings()(hidden).float()
        loss: Tensor = functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
        return loss


def positions_of(documents: Tensor) -> Tensor:
    """Position of each token within its document, shape as `documents` (rows, length)."""
    index = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    return index - torch.where(_starts(documents), index, 0).cummax(dim=1).values


def lengths_of(documents: Tensor) -> Tensor:
    """Tokens of each token's document, shape as `documents` (rows, length)."""
    numbers = _starts(documents).flatten().cumsum(dim=0) - 1
    return torch.bincount(numbers)[numbers].reshape(documents.shape)


def _starts(documents: Tensor) -> Tensor:
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return starts


def targets_of(tokens: Tensor, documents: Tensor, wanted: Tensor | None = None) -> Tensor:
    """What each position predicts: the next token of its document, IGNORE at its end and in padding (document 0).

    `wanted`: 1 for the tokens that are to be predicted; all when it is absent.
    """
    targets = torch.full_like(tokens, IGNORE)
    same = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] != 0)
    if wanted is not None:
        same = same & (wanted[:, 1:] != 0)
    targets[:, :-1] = torch.where(same, tokens[:, 1:], IGNORE)
    return targets
