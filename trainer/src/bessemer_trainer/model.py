"""The model: made from a shape or read from a checkpoint, and its loss on packed sequences. Knows no ranks, no store.

Documents that are packed in one sequence do not see each other: positions restart at each document, and transformers
makes the block-diagonal causal mask from them (for SDPA and flash attention alike).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils import is_flash_attn_2_available

from bessemer_api.v1alpha1.train import ModelShape
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.token_cache import load_vocabulary

IGNORE = -100
_LOGITS_AT_ONCE = 1 << 27
"""Logits (positions x vocabulary) that are held at once; more are made in chunks and again in backward."""


class Scorer(nn.Module):
    """A causal language model whose forward is a sum of losses, as DeepSpeed's engine wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, tokens: Tensor, documents: Tensor) -> Tensor:
        """Sum of the cross entropies (nats, fp32) of all targets. `tokens`, `documents`: shape (rows, length)."""
        positions = positions_of(documents)
        targets = targets_of(tokens, documents).flatten()
        if self.model.config._attn_implementation.startswith("flash"):
            # Flash attention takes the documents of one flattened row as sequences of different lengths.
            tokens, positions = tokens.view(1, -1), positions.view(1, -1)
        hidden = self.model.base_model(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state
        return self._loss(hidden.reshape(-1, hidden.shape[-1]), targets)

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        rows = max(1, _LOGITS_AT_ONCE // self.model.config.vocab_size)
        if len(targets) <= rows:
            return self._chunk(hidden, targets)
        chunks = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
        losses = [checkpoint(self._chunk, part, target, use_reentrant=False) for part, target in chunks]
        return torch.stack(losses).sum()

    def _chunk(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self.model.get_output_embeddings()(hidden).float()
        return functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")


def positions_of(documents: Tensor) -> Tensor:
    """Position of each token within its document, shape as `documents` (rows, length)."""
    index = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return index - torch.where(starts, index, 0).cummax(dim=1).values


def targets_of(tokens: Tensor, documents: Tensor) -> Tensor:
    """What each position predicts: the next token of its document, IGNORE at its end and in padding (document 0)."""
    targets = torch.full_like(tokens, IGNORE)
    same = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] != 0)
    targets[:, :-1] = torch.where(same, tokens[:, 1:], IGNORE)
    return targets


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
