"""Kahneman-Tversky optimisation: each completion is desirable or not, on its own; no pair is compared.

Ethayarajh et al. 2024, arXiv 2402.01306, equations 6 to 8. With h = log pi(y|x) - log ref(y|x), summed over tokens, and
z0 an estimate of KL(pi || ref), which no gradient flows through:

    desirable y:    1 - sigmoid(beta (h - z0))
    undesirable y:  1 - sigmoid(beta (z0 - h))
    z0 = max(0, mean of h over mismatched pairs: a prompt with the completion of another one)

The weights of both kinds are 1: a pair gives one of each, so they are balanced (equation 8). z0 is that of the whole
global batch, whatever the micro batch and the number of ranks.
"""

import torch
from torch import Tensor

from bessemer_trainer.objectives.logprobs import Duo


def kto_losses(policy: Duo, reference: Duo, kl: Tensor, beta: float) -> tuple[Tensor, Duo]:
    """Sum of both losses of each pair, shape (pairs,), and the rewards beta h (detached). `kl`: z0, a scalar."""
    ratios = policy - reference
    desirable = 1 - torch.sigmoid(beta * (ratios.chosen - kl))
    undesirable = 1 - torch.sigmoid(beta * (kl - ratios.rejected))
    return desirable + undesirable, Duo(ratios.chosen.detach(), ratios.rejected.detach()).times(beta)


def kl_estimate(total: float, count: int) -> float:
    """z0 from the sum of h over `count` mismatched pairs."""
    return max(0.0, total / max(1, count))
