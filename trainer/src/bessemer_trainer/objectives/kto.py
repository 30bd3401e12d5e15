"""Kahneman-Tversky optimisation: each completion is desirable or not, on its own; no pair is compared.

Ethayarajh et al. 2024, arXiv 2402.01306, equations 6 to 8. With h = log pi(y|x) - log ref(y|x), summed over tokens, and
z0 an estimate of KL(pi || ref), which no gradient flows through:

    desirable y:    1 - sigmoid(beta (h - z0))
    undesirable y:  1 - sigmoid(beta (z0 - h))
    z0 = max(0, mean of h over mismatched pairs: a prompt with the completion of another one)

A pair gives one of each, so their weights are 1 (equation 8) and the loss of a pair is the mean of its two. z0 is that
of the whole global batch, whatever the micro batch and the number of ranks.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.objectives.logprobs import PAIR_METRICS, Duo, completion_log_probs, pair_metrics


def kto_losses(policy: Duo, reference: Duo, kl: Tensor, beta: float) -> tuple[Tensor, Duo]:
    """Mean of both losses of each pair, shape (pairs,), and the rewards beta h (detached). `kl`: z0, a scalar."""
    ratios = policy - reference
    desirable = 1 - torch.sigmoid(beta * (ratios.chosen - kl))
    undesirable = 1 - torch.sigmoid(beta * (kl - ratios.rejected))
    return (desirable + undesirable) / 2, Duo(ratios.chosen.detach(), ratios.rejected.detach()).times(beta)


def kl_estimate(total: float, count: int) -> float:
    """z0 from the sum of h over `count` mismatched pairs."""
    return max(0.0, total / max(1, count))


class Kto(nn.Module):
    """The model with this loss. Batches: tokens, begins, ends, reference (rows,), and kl (a scalar, z0)."""

    metrics = (*PAIR_METRICS, "kl")

    def __init__(self, model: nn.Module, train: Train) -> None:
        super().__init__()
        self.model: Any = model
        self._beta = train.beta

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the losses and sums of the metrics; in evaluation the sum and the length of each row."""
        sums, lengths = completion_log_probs(self.model, batch)
        if not self.training:
            return sums, lengths
        policy = Duo.halves(sums)
        losses, rewards = kto_losses(policy, Duo.halves(batch["reference"]), batch["kl"], self._beta)
        kl = batch["kl"].double().expand(1) * len(losses)
        return losses.sum(), torch.cat([pair_metrics(rewards, policy), kl])
