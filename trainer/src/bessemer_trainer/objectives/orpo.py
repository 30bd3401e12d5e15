"""Odds ratio preference optimisation: a likelihood term and a penalty in one stage, without a reference model.

Hong, Lee, Thorne 2024, arXiv 2403.07691. With log P(y|x) the mean over the tokens of y (equation 3) and
odds(y|x) = P(y|x) / (1 - P(y|x)) (equation 4):

    loss = NLL(chosen) + lambda * -log sigmoid(log(odds(chosen) / odds(rejected)))        (equations 6 and 7)

NLL(chosen) is the mean over the tokens of the chosen completion: equation 6 is about y given x. TRL 1.16 takes the mean
over prompt and completion of a whole micro batch; `lossOn: all` covers the prompt too, but the loss of a pair never
depends on its neighbours.
"""

import torch
from torch import Tensor
from torch.nn import functional

from bessemer_trainer.objectives.logprobs import Duo

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
