"""Direct preference optimisation, without a reward model and without sampling.

With h = log pi(y|x) - log ref(y|x), summed over the tokens of the completion y, c the chosen and r the rejected:

- sigmoid: -log sigmoid(beta (h_c - h_r)). Rafailov et al. 2023, arXiv 2305.18290, equation 7.
- hinge: max(0, 1 - beta (h_c - h_r)). Zhao et al. 2023 (SLiC-HF), arXiv 2305.10425, with the reference as DPO has it;
  Liu et al. 2024 (RSO), arXiv 2309.06657, equation 10.
- ipo: (h_c/|c| - h_r/|r| - 1/(2 beta))^2. Azar et al. 2023, arXiv 2310.12036, equation 17, with the mean over tokens
  in place of the sum: the form of the paper's own results, which does not grow with the length.
- sigmoidNorm: -log sigmoid(beta (h_c/|c| - h_r/|r|)). Length-normalised DPO: Lambert et al. 2024 (Tulu 3),
  arXiv 2411.15124, equation 6.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.objectives.logprobs import PAIR_METRICS, Duo, completion_log_probs, pair_metrics

NORMALISED = frozenset({"ipo", "sigmoidNorm"})
"""Types of the loss that compare means over tokens, not sums."""


def dpo_losses(policy: Duo, reference: Duo, lengths: Duo, beta: float, loss_type: str) -> tuple[Tensor, Duo]:
    """Loss of each pair, shape (pairs,), and the implicit rewards beta h that it compares (detached).

    `policy`, `reference`: sums of log-probabilities; `lengths`: tokens of each completion.
    """
    scores = policy - reference
    if loss_type in NORMALISED:
        scores = scores / lengths
    return _losses(scores.margin, beta, loss_type), Duo(scores.chosen.detach(), scores.rejected.detach()).times(beta)


def _losses(margin: Tensor, beta: float, loss_type: str) -> Tensor:
    if loss_type == "hinge":
        return torch.relu(1 - beta * margin)
    if loss_type == "ipo":
        return (margin - 1 / (2 * beta)).square()
    return -functional.logsigmoid(beta * margin)


class Dpo(nn.Module):
    """The model with this loss. Batches: tokens, begins, ends, and reference (rows,): sums under the reference."""

    metrics = PAIR_METRICS

    def __init__(self, model: nn.Module, train: Train) -> None:
        super().__init__()
        self.model: Any = model
        self._beta, self._type = train.beta, train.loss_type

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the losses and sums of the metrics; in evaluation the sum and the length of each row."""
        sums, lengths = completion_log_probs(self.model, batch)
        if not self.training:
            return sums, lengths
        policy = Duo.halves(sums)
        losses, rewards = dpo_losses(
            policy, Duo.halves(batch["reference"]), Duo.halves(lengths), self._beta, self._type
        )
        return losses.sum(), pair_metrics(rewards, policy)
