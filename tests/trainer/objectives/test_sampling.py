"""Sampling with a cache draws exactly what forwards without one draw, whoever else is in the batch."""

from typing import Any

import numpy as np
import pytest
import torch

from bessemer_trainer.sampling import Sampler, sample, uniform_numbers

END = 0


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=END,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


PROMPTS = [np.array(tokens) for tokens in ([5, 6, 7, 8, 9], [3], [11, 12, 13])]


def naive(model: Any, prompt: np.ndarray, numbers: np.ndarray, temperature: float) -> list[int]:
    """One token after another, the whole text read anew for each."""
    answer: list[int] = []
    for number in numbers:
        tokens = torch.tensor([[*prompt.tolist(), *answer]])
        with torch.no_grad():
            logits = model(input_ids=tokens, use_cache=False).logits[0, -1].double().numpy() / temperature
        weights = np.exp(logits - logits.max())
        answer.append(int(np.searchsorted(np.cumsum(weights) / weights.sum(), number, side="right")))
        if answer[-1] == END:
            break
    return answer


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_samples_are_those_of_plain_forwards(model: Any, temperature: float) -> None:
    numbers = np.concatenate([uniform_numbers(1, 2, number, 4, 12) for number in range(3)])
    found = sample(model, PROMPTS, numbers, Sampler((END,), temperature, 12))
    expected = [naive(model, PROMPTS[row // 4], numbers[row], temperature) for row in range(12)]
    assert [answer.tolist() for answer in found] == expected
    assert len({tuple(answer) for answer in expected}) > 6
    assert {len(answer) for answer in expected} != {12}, "some end by themselves"


def test_a_rank_goes_on_while_another_has_work_and_its_answers_stay_as_they_are(model: Any) -> None:
    numbers = uniform_numbers(1, 2, 1, 4, 12)
    waits = sample(model, PROMPTS[1:2], numbers, Sampler((END,), 3.0, 12, goes_on=lambda _: True))
    alone = sample(model, PROMPTS[1:2], numbers, Sampler((END,), 3.0, 12))
    assert [answer.tolist() for answer in waits] == [answer.tolist() for answer in alone]


def test_numbers_differ_by_seed_step_and_prompt_and_by_nothing_else() -> None:
    draws = [uniform_numbers(*key, 2, 3) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({draw.tobytes() for draw in draws}) == 4
    assert uniform_numbers(0, 1, 0, 2, 3).tobytes() == draws[2].tobytes()


def test_a_token_without_probability_is_never_drawn() -> None:
    """Even where the number falls on the very edge of the distribution."""
    from bessemer_trainer.sampling import _draw

    logits = torch.tensor([[-1e9, 0.0, -1e9, 0.0, -1e9]]).repeat(4, 1)
    numbers = torch.tensor([0.0, 0.5, 1 - 2**-53, 0.25], dtype=torch.float64)
    assert set(_draw(logits, numbers, 1.0).tolist()) <= {1, 3}
