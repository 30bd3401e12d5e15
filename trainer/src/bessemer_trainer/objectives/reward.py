"""A reward model from preferences: the backbone of a language model with one linear head, read at the last token.

Bradley and Terry 1952; Ouyang et al. 2022 (InstructGPT), arXiv 2203.02155, equation 1:

    loss = -log sigmoid(r(x, chosen) - r(x, rejected))

The head starts as normal(0, 1/(width + 1)) (variance), as in Stiennon et al. 2020, arXiv 2009.01325, appendix B.1.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional

from bessemer_trainer.objectives.logprobs import Duo


def reward_losses(scores: Duo) -> Tensor:
    """Loss of each pair, shape (pairs,)."""
    return -functional.logsigmoid(scores.margin)


def reward_scores(model: Any, tokens: Tensor, ends: Tensor) -> Tensor:  # noqa: ANN401 - transformers is untyped
    """Reward of each row, fp32, shape (rows,). `ends`: one past the last token; what follows is padding.

    `model` is a transformers model for sequence classification with one label (backbone `base_model`, head `score`).
    """
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    last = hidden[range(len(ends)), ends - 1]
    scores: Tensor = model.score(last).float().squeeze(-1)
    return scores
