"""The model: made from a shape or read from a checkpoint. Knows no loss, no ranks, no store."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import is_flash_attn_2_available

from bessemer_api.v1alpha1.train import ModelShape
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.token_cache import load_vocabulary


def fresh_model(shape: ModelShape, tokenizer: Path, seed: int) -> nn.Module:
    """A Llama of `shape` with random weights (fp32): normal with deviation 0.02, from `seed`."""
    vocabulary = load_vocabulary(tokenizer)
    config = LlamaConfig(
        vocab_size=vocabulary.largest + 1,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads or shape.heads,
        max_position_embeddings=shape.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tie_embeddings,
        initializer_range=0.02,
        bos_token_id=None,
        eos_token_id=vocabulary.end,
        pad_token_id=vocabulary.padding,
    )
    config._attn_implementation = attention()
    torch.manual_seed(seed)
    model: nn.Module = LlamaForCausalLM(config)
    return model


def attention() -> str:
    """Flash attention where it is installed beside a GPU, else torch's own SDPA."""
    return "flash_attention_2" if torch.cuda.is_available() and is_flash_attn_2_available() else "sdpa"


def load_model(folder: Path) -> nn.Module:
    """The model of a verified checkpoint artifact, in fp32. Raises PermanentError(CheckpointInvalid)."""
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=attention(),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise PermanentError("CheckpointInvalid", f"{folder}: {first}") from error
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if info.get(problem):
            raise PermanentError("CheckpointInvalid", f"{folder}: {problem}: {sorted(map(str, info[problem]))[:3]}")
    return model  # type: ignore[no-any-return]  # transformers is untyped


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; vectors (norms, biases) do not."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    vectors = [parameter for parameter in parameters if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
