"""Odds ratio preference optimisation: a likelihood term and a penalty in one stage, without a reference model.

Hong, Lee, Thorne 2024, arXiv 2403.07691. With log P(y|x) the mean over the tokens of y (equation 3) and
odds(y|x) = P(y|x) / (1 - P(y|x)) (equation 4):

    loss = NLL(chosen) + lambda * -log sigmoid(log(odds(chosen) / odds(rejected)))        (equations 6 and 7)

NLL(chosen) is the mean over the tokens of the chosen completion: equation 6 is about y given x. TRL 1.16 takes the mean
over prompt and completion of a whole micro batch; `lossOn: all` covers the prompt too, but the loss of a pair never
depends on its neighbours.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.objectives.logprobs import (
    PAIR_METRICS,
    Duo,
    completion_log_probs,
    pair_metrics,
    span,
    token_log_probs,
)

_LOG_HALF = -0.6931471805599453


def orpo_losses(mean_log_probs: Duo, chosen_nll: Tensor, weight: float) -> tuple[Tensor, Duo]:
    """Loss of each pair, shape (pairs,), and the rewards lambda log P (detached). `weight` is the paper's lambda."""
    odds = mean_log_probs.margin - (_log1mexp(mean_log_probs.chosen) - _log1mexp(mean_log_probs.rejected))
    losses = chosen_nll - weight * functional.logsigmoid(odds)
    rewards = Duo(mean_log_probs.chosen.detach(), mean_log_probs.rejected.detach()).times(weight)
    return losses, rewards


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, exact near 0 as well as far from it (Maechler 2012).

    Each branch gets only what it can take: the gradient of the other one would otherwise be NaN times zero. A
    probability that rounds to 1 counts as the largest number below it: its odds are finite.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    near = x > _LOG_HALF
    close = torch.log(-torch.expm1(torch.where(near, x, _LOG_HALF)))
    return torch.where(near, close, torch.log1p(-torch.exp(torch.where(near, _LOG_HALF, x))))


class Orpo(nn.Module):
    """The model with this loss. Batches: tokens, begins, ends."""

    metrics = PAIR_METRICS

    def __init__(self, model: nn.Module, train: Train) -> None:
        super().__init__()
        self.model: Any = model
        self._weight, self._covers_prompt = train.beta, train.loss_on == "all"

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the losses and sums of the metrics; in evaluation the sum and the length of each row."""
        if not self.training:
            return completion_log_probs(self.model, batch)
        means, nll = self._means(batch)
        losses, rewards = orpo_losses(means, nll, self._weight)
        return losses.sum(), pair_metrics(rewards, means)

    def _means(self, batch: Mapping[str, Tensor]) -> tuple[Duo, Tensor]:
        """Mean log-probability of both completions, and the likelihood term of the chosen one."""
        tokens, begins, ends = batch["tokens"], batch["begins"], batch["ends"]
        answer = span(begins, ends, tokens.shape[1])
        wanted = span(torch.zeros_like(begins), ends, tokens.shape[1]) if self._covers_prompt else answer
        values = token_log_probs(self.model, tokens, wanted)
        means = Duo.halves((values * answer).sum(dim=1) / answer.sum(dim=1))
        return means, -Duo.halves(values.sum(dim=1) / wanted.sum(dim=1)).chosen
