"""A reward model from preferences: the backbone of a language model with one linear head, read at the last token.

Bradley and Terry 1952; Ouyang et al. 2022 (InstructGPT), arXiv 2203.02155, equation 1:

    loss = -log sigmoid(r(x, chosen) - r(x, rejected))

The head starts as normal(0, 1/(width + 1)) (variance), as in Stiennon et al. 2020, arXiv 2009.01325, appendix B.1.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.objectives.logprobs import PAIR_METRICS, Duo, pair_metrics


def reward_losses(scores: Duo) -> Tensor:
    """Loss of each pair, shape (pairs,)."""
    return -functional.logsigmoid(scores.margin)


def reward_scores(model: Any, tokens: Tensor, ends: Tensor) -> Tensor:  # noqa: ANN401 - transformers is untyped
    """Reward of each row, fp32, shape (rows,). `ends`: one past the last token; what follows is padding.

    `model` is a transformers model for sequence classification with one label (backbone `base_model`, head `score`).
    """
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    last = hidden[torch.arange(len(ends), device=ends.device), ends - 1]
    scores: Tensor = model.score(last).float().squeeze(-1)
    return scores


class Reward(nn.Module):
    """The model with this loss. Batches: tokens, ends. What pairs call log-probabilities are rewards here."""

    metrics = PAIR_METRICS[:2]

    def __init__(self, model: nn.Module, _train: Train) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the losses and sums of the metrics; in evaluation the reward of each row, as of length 1."""
        values = reward_scores(self.model, batch["tokens"], batch["ends"])
        if not self.training:
            return values, torch.ones_like(values)
        scores = Duo.halves(values)
        return reward_losses(scores).sum(), pair_metrics(scores, scores)[:2]
