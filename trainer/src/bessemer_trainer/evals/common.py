"""What all measurements share: samples, the text encoder, batches and reading a checkpoint for measuring.

Nothing here decides anything about a candidate, and nothing reads the store: paths and parsed items come in.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.items import Item, cluster_of, stratum_of
from bessemer_trainer.token_cache import Vocabulary, load_vocabulary

LOGIT_BYTES = 256 * 2**20
"""Largest tensor of logits: with a vocabulary of 128,000 the logits are the largest thing in memory."""

BATCH_TOKENS = 8192
"""Largest number of padded tokens in a batch."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of one item. `score` as measured: its unit and direction stand in bessemer_api's table of tasks."""

    id: str
    cluster: str | None
    score: float
    detail: Mapping[str, Any] = field(default_factory=dict)
    stratum: str | None = None

    def line(self) -> dict[str, Any]:
        """The JSON document that is stored. Raises PermanentError for a score that is not finite."""
        if not math.isfinite(self.score):
            raise PermanentError(
                "NonFiniteScore",
                f"item {self.id}: the score is {self.score}; the model's output is not finite: look at its training",
            )
        group = {} if self.stratum is None else {"stratum": self.stratum}
        return {"id": self.id, "cluster": self.cluster, "score": self.score, **group, **self.detail}


def sample_of(item: Item, axis: Axis, score: float, detail: Mapping[str, Any]) -> Sample:
    """The sample of an item, with its cluster and stratum. Raises PermanentError when the item lacks one of them."""
    return Sample(item.id, cluster_of(item, axis), score, detail, stratum_of(item, axis))


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Text to token numbers, exactly as a mixture makes the beginning of a training document."""

    vocabulary: Vocabulary

    def encode(self, text: str) -> list[int]:
        """Tokens of `text` after whatever the tokenizer itself puts before a document (nothing, or a start token).

        The end-of-text token that closes a document in training is left out. Text that spells a special token stays
        text.
        """
        ids: list[int] = self.vocabulary.tokenizer.encode(text).ids
        return ids[:-1] if ids and ids[-1] == self.vocabulary.end else ids

    def continuation(self, text: str) -> list[int]:
        """Tokens of `text` alone, with nothing before it."""
        return list(self.vocabulary.tokenizer.encode(text, add_special_tokens=False).ids)


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
    yield from grouped(sizes, min(BATCH_TOKENS, LOGIT_BYTES // (4 * vocabulary)))


def grouped(sizes: Sequence[tuple[int, int]], limit: int) -> Iterator[list[int]]:
    """As `batches`, with at most `limit` padded tokens in a batch."""
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


def decode(model: Any, **inputs: Any) -> Any:  # noqa: ANN401 - transformers is untyped
    """The output of the model without its head: hidden states, and keys and values where they are asked for."""
    return model.base_model(**inputs)


def target_log_probabilities(
    model: Any,  # noqa: ANN401 - transformers is untyped
    decoded: Any,  # noqa: ANN401 - as above
    targets: torch.Tensor,
) -> torch.Tensor:
    """Log-probability of each target, in nats, fp32, shape as `targets` [rows, tokens].

    `decoded` is the output of the model's decoder (`base_model`), [rows, tokens, hidden]. Its logits are made piece by
    piece, at most LOGIT_BYTES (fp32) at once: those of a whole window of 100,000 tokens would take 50 GB.
    """
    rows, tokens = targets.shape
    step = max(1, LOGIT_BYTES // (4 * vocabulary_size(model) * rows))
    with _decoding_to(model) as show:
        parts = []
        for start in range(0, tokens, step):
            piece = slice(start, start + step)
            show(decoded, piece)
            logits = model(input_ids=targets[:, piece], use_cache=False).logits
            parts.append(token_log_probabilities(logits, targets[:, piece]))
    return torch.cat(parts, dim=1)


class _Shown(torch.nn.Module):
    """Stands in for a decoder that has run already: returns a piece of what it gave."""

    output: Any = None

    def show(self, decoded: Any, piece: slice) -> None:  # noqa: ANN401 - an output of transformers
        self.output = type(decoded)(**{**decoded, "last_hidden_state": decoded.last_hidden_state[:, piece]})

    def forward(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - whatever the head passes on to a decoder
        return self.output


@contextmanager
def _decoding_to(model: Any) -> Iterator[Callable[[Any, slice], None]]:  # noqa: ANN401 - transformers is untyped
    """The model's own head alone, whatever it does to logits (some scale or cap them)."""
    decoder, shown = model.base_model, _Shown()
    setattr(model, model.base_model_prefix, shown)
    try:
        yield shown.show
    finally:
        setattr(model, model.base_model_prefix, decoder)


def token_log_probabilities(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target, in nats, computed in fp32. logits [..., vocabulary], targets [...]."""
    wide = logits.float()
    chosen = wide.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return chosen - wide.logsumexp(-1)


def load_encoder(folder: Path) -> TextEncoder:
    """The encoder of a checkpoint. Raises PermanentError(TokenizerInvalid)."""
    return TextEncoder(load_vocabulary(folder))


def load_model(folder: Path, precision: str) -> torch.nn.Module:
    """A causal language model for measuring: safetensors only, no code from the checkpoint, every weight present."""
    from transformers.utils import logging  # noqa: PLC0415

    from bessemer_trainer import model as models  # noqa: PLC0415 - seconds of import, after the inputs were checked

    logging.disable_progress_bar()  # it would stand between our own lines of progress
    loaded: Any = models.load_model(folder)
    loaded.set_attn_implementation("sdpa")  # the same kernels wherever it is measured; flash takes no fp32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    placed: torch.nn.Module = loaded.eval().to(device, torch.bfloat16 if precision == "bf16" else torch.float32)
    return placed
