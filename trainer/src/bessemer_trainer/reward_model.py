"""Reward models: made from a language model, and read from an artifact of the kind `reward`. Knows no loss.

The files are those of a transformers model for sequence classification with one label.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from bessemer_trainer.errors import PermanentError


def reward_model(model: Any, seed: int) -> Any:  # noqa: ANN401 - transformers is untyped
    """The backbone of `model` with a fresh head: normal with variance 1/(width + 1), from `seed`."""
    config = model.config
    config.num_labels = 1
    made = AutoModelForSequenceClassification.from_config(config, attn_implementation=config._attn_implementation)
    made.base_model.load_state_dict(model.base_model.state_dict())
    width = made.score.weight.shape[1]
    head = torch.randn(made.score.weight.shape, generator=torch.Generator().manual_seed(seed)) / (width + 1) ** 0.5
    with torch.no_grad():
        made.score.weight.copy_(head)
    return made


def load_reward_model(folder: Path) -> Any:  # noqa: ANN401 - transformers is untyped
    """The model of a verified reward artifact. Raises PermanentError(CheckpointInvalid)."""
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise PermanentError("CheckpointInvalid", f"{folder}: {first}") from error
    if info["missing_keys"] or info["unexpected_keys"]:
        problem = sorted(map(str, [*info["missing_keys"], *info["unexpected_keys"]]))[:3]
        raise PermanentError("CheckpointInvalid", f"{folder}: no reward model: {problem}")
    return model
