"""What all measurements share: samples, the text encoder, batches and reading a checkpoint for measuring.

Nothing here decides anything about a candidate, and nothing reads the store: paths and parsed items come in.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.items import Item

LOGIT_BYTES = 256 * 2**20
"""Largest tensor of logits in a batch: with a vocabulary of 128,000 the logits are the largest thing in memory."""

BATCH_TOKENS = 8192
"""Largest number of padded tokens in a batch."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of one item. `score`: 0 or 1 (multipleChoice), bits per byte (bitsPerByte), as measured."""

    id: str
    cluster: str | None
    score: float
    detail: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """The JSON document that is stored. Raises PermanentError for a score that is not finite."""
        if not math.isfinite(self.score):
            raise PermanentError(
                "NonFiniteScore",
                f"item {self.id}: the score is {self.score}; the model's output is not finite: look at its training",
            )
        return {"id": self.id, "cluster": self.cluster, "score": self.score, **self.detail}


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Text to token numbers. Every text is preceded by the token that precedes a document in training."""

    tokenizer: Tokenizer
    start: int

    def encode(self, text: str) -> list[int]:
        """The start token and the tokens of `text`; no other special token is added."""
        return [self.start, *self.tokenizer.encode(text, add_special_tokens=False).ids]


Measure = Callable[[torch.nn.Module, TextEncoder, Sequence[Item], Axis, Callable[[int], None]], list[Sample]]
"""measure(model, tokenizer, items, axis, progress) -> samples in the order of the items; progress(items done)."""


def longest_input(model: torch.nn.Module) -> int:
    """Tokens that the model was built for."""
    return int(model.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]


def vocabulary_size(model: torch.nn.Module) -> int:
    return int(model.config.vocab_size)  # type: ignore[union-attr, arg-type]


def batches(sizes: Sequence[tuple[int, int]], vocabulary: int) -> Iterator[list[int]]:
    """Indices in batches of similar size, smallest first.

    `sizes`: per element its rows and the tokens of its longest row. A batch holds at most BATCH_TOKENS padded tokens
    and LOGIT_BYTES of fp32 logits, but at least one element.
    """
    limit = min(BATCH_TOKENS, LOGIT_BYTES // (4 * vocabulary))
    batch: list[int] = []
    rows = 0
    for i in sorted(range(len(sizes)), key=lambda k: (sizes[k][1], k)):
        if batch and (rows + sizes[i][0]) * sizes[i][1] > limit:
            yield batch
            batch, rows = [], 0
        batch.append(i)
        rows += sizes[i][0]
    if batch:
        yield batch


def token_log_probabilities(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target, in nats, computed in fp32. logits [..., vocabulary], targets [...]."""
    wide = logits.float()
    chosen = wide.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return chosen - wide.logsumexp(-1)


def load_encoder(folder: Path) -> TextEncoder:
    """The encoder of a checkpoint. The start token is the tokenizer's bos_token, else its eos_token."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
    except Exception as error:  # tokenizers raises a bare Exception
        raise PermanentError(
            "CheckpointUnreadable", f"tokenizer of the checkpoint: {error}; expected tokenizer.json and its config"
        ) from error
    tokenizer.no_truncation()  # a saved tokenizer may carry either, and would cut items without a word
    tokenizer.no_padding()
    start = tokenizer.token_to_id(str(_special_token(config)))
    if start is None:
        raise PermanentError(
            "CheckpointUnreadable", "the tokenizer names neither a bos_token nor an eos_token that it knows"
        )
    return TextEncoder(tokenizer, start)


def _special_token(config: Mapping[str, Any]) -> str | None:
    value = config.get("bos_token") or config.get("eos_token")
    return value.get("content") if isinstance(value, dict) else value


def load_model(folder: Path, precision: str) -> torch.nn.Module:
    """A causal language model for measuring: safetensors only, no code from the checkpoint, every weight present."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - seconds of import that other verbs need not pay
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # the library raises many kinds; each means that the checkpoint is no model
        raise PermanentError("CheckpointUnreadable", f"the checkpoint can not be loaded: {error}") from error
    wrong = sorted({*map(str, info["missing_keys"]), *map(str, info["mismatched_keys"])})
    if wrong:  # the library would fill them with random numbers
        raise PermanentError(
            "CheckpointIncomplete", f"{len(wrong)} weights are missing or have another shape, for example {wrong[0]}"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    placed: torch.nn.Module = model.eval().to(device)
    return placed
