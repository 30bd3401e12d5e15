"""Each loss against its published formula, written out again number by number; and where it may not be NaN."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bessemer_trainer.objectives.dpo import dpo_losses
from bessemer_trainer.objectives.grpo import Rollout, group_advantages, grpo_losses
from bessemer_trainer.objectives.kto import kl_estimate, kto_losses
from bessemer_trainer.objectives.logprobs import Duo, span
from bessemer_trainer.objectives.orpo import orpo_losses
from bessemer_trainer.objectives.reward import reward_losses

POLICY = ([-3.0, -20.5, -1.25, -60.0], [-4.0, -18.0, -9.5, -2.0])
REFERENCE = ([-3.5, -21.0, -2.25, -55.0], [-3.0, -19.0, -9.0, -4.0])
LENGTHS = ([2, 10, 1, 30], [3, 9, 4, 1])


def duo(values: tuple[list[float], list[float]]) -> Duo:
    return Duo(*(torch.tensor(part, dtype=torch.float64) for part in values))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_first_position_is_never_predicted_and_a_span_ends_before_its_end() -> None:
    found = span(torch.tensor([0, 2]), torch.tensor([2, 4]), 4)
    assert found.tolist() == [[False, True, False, False], [False, False, True, True]]


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo", "sigmoidNorm"])
def test_dpo_is_the_published_formula(loss_type: str, beta: float) -> None:
    losses, rewards = dpo_losses(duo(POLICY), duo(REFERENCE), duo(LENGTHS), beta, loss_type)  # type: ignore[arg-type]
    for n in range(4):
        h = [POLICY[side][n] - REFERENCE[side][n] for side in (0, 1)]
        if loss_type in ("ipo", "sigmoidNorm"):
            h = [h[side] / LENGTHS[side][n] for side in (0, 1)]
        expected = {
            "sigmoid": -math.log(sigmoid(beta * (h[0] - h[1]))),
            "sigmoidNorm": -math.log(sigmoid(beta * (h[0] - h[1]))),
            "hinge": max(0.0, 1 - beta * (h[0] - h[1])),
            "ipo": (h[0] - h[1] - 1 / (2 * beta)) ** 2,
        }[loss_type]
        assert float(losses[n]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert [float(rewards.chosen[n]), float(rewards.rejected[n])] == pytest.approx([beta * h[0], beta * h[1]])


def test_dpo_of_a_policy_that_is_its_reference_is_log_2_and_pushes_both_ways() -> None:
    chosen, rejected = (torch.tensor([-5.0], requires_grad=True) for _ in "ab")
    losses, _ = dpo_losses(Duo(chosen, rejected), Duo(chosen.detach(), rejected.detach()), duo(LENGTHS), 0.1, "sigmoid")
    assert losses.detach().tolist() == pytest.approx([math.log(2)])
    losses.sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert float(chosen.grad) == pytest.approx(-0.05)
    assert float(rejected.grad) == pytest.approx(0.05)


@pytest.mark.parametrize("weight", [0.05, 0.1, 1.0])
def test_orpo_is_the_published_formula(weight: float) -> None:
    chosen, rejected = [-0.02, -1.5, -4.0], [-2.5, -0.3, -4.0]
    losses, rewards = orpo_losses(duo((chosen, rejected)), torch.tensor([0.5, 1.0, 2.0]).double(), weight)
    for n, nll in enumerate((0.5, 1.0, 2.0)):
        p = [math.exp(chosen[n]), math.exp(rejected[n])]
        odds = [value / (1 - value) for value in p]
        expected = nll + weight * -math.log(sigmoid(math.log(odds[0] / odds[1])))
        assert float(losses[n]) == pytest.approx(expected, rel=1e-6)
        assert float(rewards.chosen[n]) == pytest.approx(weight * chosen[n])


@pytest.mark.parametrize("log_prob", [0.0, -1e-9, -1e-6, -0.7, -50.0, -200.0])
def test_orpo_stays_finite_for_probabilities_next_to_0_and_1(log_prob: float) -> None:
    chosen = torch.tensor([log_prob], requires_grad=True)
    rejected = torch.tensor([-0.5], requires_grad=True)
    losses, _ = orpo_losses(Duo(chosen, rejected), -chosen, 0.1)
    losses.sum().backward()
    assert chosen.grad is not None
    assert bool(torch.isfinite(losses).all() and torch.isfinite(chosen.grad).all())


@pytest.mark.parametrize("kl", [0.0, 1.75])
def test_kto_is_the_published_formula(kl: float) -> None:
    losses, _ = kto_losses(duo(POLICY), duo(REFERENCE), torch.tensor(kl).double(), 0.1)
    for n in range(4):
        h = [POLICY[side][n] - REFERENCE[side][n] for side in (0, 1)]
        expected = (1 - sigmoid(0.1 * (h[0] - kl)) + 1 - sigmoid(0.1 * (kl - h[1]))) / 2
        assert float(losses[n]) == pytest.approx(expected, rel=1e-9)


def test_the_kl_of_kto_is_a_mean_that_is_never_negative() -> None:
    assert kl_estimate(3.0, 4) == 0.75
    assert kl_estimate(-3.0, 4) == 0.0
    assert kl_estimate(0.0, 0) == 0.0


def test_the_reward_loss_is_bradley_terry() -> None:
    losses = reward_losses(duo(([1.0, -2.0], [0.5, 3.0])))
    assert losses.tolist() == pytest.approx([-math.log(sigmoid(0.5)), -math.log(sigmoid(-5.0))])


def test_advantages_compare_within_a_group_and_equal_rewards_teach_nothing() -> None:
    rewards = np.array([[0.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 4.0]])
    expected = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)
    found = group_advantages(torch.tensor(rewards))
    assert found.numpy() == pytest.approx(expected)
    assert found[1].tolist() == [0.0] * 4


def test_grpo_is_the_published_formula() -> None:
    random = np.random.default_rng(0)
    policy, old, reference = (-random.exponential(size=(3, 5)) for _ in range(3))
    wanted = np.array([[0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 1, 0, 0, 0]], dtype=bool)
    policy, old, reference = (values * wanted for values in (policy, old, reference))
    advantages = np.array([1.5, -0.5, -1.0])
    rollout = Rollout(torch.tensor(old), torch.tensor(reference), torch.tensor(advantages))
    losses, kls = grpo_losses(torch.tensor(policy), torch.tensor(wanted), rollout, 0.2, 0.04)
    for row in range(3):
        terms, kl_terms = [], []
        for t in np.flatnonzero(wanted[row]):
            ratio = math.exp(policy[row, t] - old[row, t])
            gain = min(ratio * advantages[row], min(max(ratio, 0.8), 1.2) * advantages[row])
            apart = math.exp(reference[row, t] - policy[row, t])
            kl = apart - math.log(apart) - 1
            terms.append(-gain + 0.04 * kl)
            kl_terms.append(kl)
        assert float(losses[row]) == pytest.approx(np.mean(terms), rel=1e-9)
        assert float(kls[row]) == pytest.approx(np.mean(kl_terms), rel=1e-9)


def test_grpo_does_not_follow_a_ratio_past_its_clip() -> None:
    """A good sample that is already likelier by more than the clip pulls no further; a bad one is still pushed."""
    gradients = []
    for advantage in (1.0, -1.0):
        log_probs = torch.tensor([[0.0, -1.0]], requires_grad=True)
        rollout = Rollout(torch.tensor([[0.0, -2.0]]), None, torch.tensor([advantage]))
        wanted = torch.tensor([[False, True]])
        losses, _ = grpo_losses(log_probs, wanted, rollout, 0.2, 0.0)
        gradients.append(_gradient(losses, log_probs))
    assert gradients[0] == [[0.0, 0.0]]
    assert gradients[1][0][1] == pytest.approx(math.e)


def _gradient(losses: Tensor, of: Tensor) -> list[list[float]]:
    losses.sum().backward()
    assert of.grad is not None
    return of.grad.tolist()
