"""Group relative policy optimisation: reinforcement with the mean of a group of samples as its baseline.

Shao et al. 2024 (DeepSeekMath), arXiv 2402.03300, equations 3 and 4, with outcome rewards (section 4.1.2):

    A_i = (r_i - mean(r)) / std(r)                             over the samples i of one prompt
    ratio = pi(token) / old(token)
    loss_i = mean over tokens of -min(ratio A_i, clip(ratio, 1 - e, 1 + e) A_i) + beta KL
    KL = ref(token)/pi(token) - log(ref(token)/pi(token)) - 1  (equation 4; Schulman's k3)

std is that of a sample (n - 1), with 1e-4 added; a group of equal rewards teaches nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bessemer_api.v1alpha1.train import Grpo as Settings
from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.objectives.logprobs import completion_log_probs, span, token_log_probs

_EPSILON = 1e-4


@dataclass(frozen=True, slots=True)
class Rollout:
    """Samples that are learned from. All have shape (rows, length) and are 0 outside of the completions' tokens.

    `old`: log-probabilities under the policy that sampled; `reference`: under the reference, None when beta is 0.
    """

    old: Tensor
    reference: Tensor | None
    advantages: Tensor
    """Shape (rows,)."""


def group_advantages(rewards: Tensor) -> Tensor:
    """Shape (prompts, samples), as `rewards`."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True) + _EPSILON)


def grpo_losses(log_probs: Tensor, wanted: Tensor, rollout: Rollout, clip: float, beta: float) -> tuple[Tensor, Tensor]:
    """Loss and KL to the reference of each row, shape (rows,) each; the KL is detached.

    `log_probs`: under the policy that learns, shape (rows, length), 0 where `wanted` is False.
    """
    ratio = torch.exp(log_probs - rollout.old)
    advantages = rollout.advantages.unsqueeze(1)
    gain = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    kl = torch.zeros_like(log_probs)
    if rollout.reference is not None:
        behind = rollout.reference - log_probs
        kl = torch.exp(behind) - behind - 1
    lengths = wanted.sum(dim=1).clamp(min=1)
    losses = ((beta * kl - gain) * wanted).sum(dim=1) / lengths
    return losses, (kl.detach() * wanted).sum(dim=1) / lengths


class Grpo(nn.Module):
    """The model with this loss. Batches: tokens, begins, ends, advantages (rows,), reference (rows, length) or none."""

    metrics = ("kl",)

    def __init__(self, model: nn.Module, train: Train) -> None:
        super().__init__()
        self.model: Any = model
        settings = train.grpo or Settings.model_validate({})
        self._clip, self._beta = settings.clip, train.beta

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the losses and sums of the metrics; in evaluation the sum and the length of each row.

        Samples are used for one update, by the policy that they were drawn from: it is `old`.
        """
        if not self.training:
            return completion_log_probs(self.model, batch)
        wanted = span(batch["begins"], batch["ends"], batch["tokens"].shape[1])
        values = token_log_probs(self.model, batch["tokens"], wanted)
        rollout = Rollout(batch.get("old", values.detach()), batch.get("reference"), batch["advantages"])
        losses, kl = grpo_losses(values, wanted, rollout, self._clip, self._beta)
        return losses.sum(), kl.double().sum().reshape(1)
