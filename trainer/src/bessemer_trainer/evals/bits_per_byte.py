"""bitsPerByte: how many bits does the model need for a byte of a text? Smaller is better.

The sum of -log p over the tokens of the text, in nats, divided by ln 2 and by its bytes in UTF-8: a figure that hardly
depends on the tokenizer. The text stands as a document does in training: after the tokenizer's start token if it has
one; without one its first token has nothing to be predicted from and counts no nats (as in training and in the loss on
a holdout). A text longer than the model is read in windows that do not overlap; the first token of a window is
predicted from the last token of the window before (as lm-evaluation-harness does).
"""

import math
from collections.abc import Callable, Sequence

import torch

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.common import (
    Sample,
    TextEncoder,
    batches,
    decode,
    longest_input,
    sample_of,
    target_log_probabilities,
    vocabulary_size,
)
from bessemer_trainer.evals.items import Item, required_text
from bessemer_trainer.evals.subject import Subject


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items; `score` in bits per byte."""
    model, tokenizer = subject.model, subject.encoder
    texts = [required_text(item, "text") for item in items]
    tokens = [_encode(item, tokenizer, text) for item, text in zip(items, texts, strict=True)]
    rows = [(i, window) for i, row in enumerate(tokens) for window in windows(row, longest_input(model))]
    found: dict[int, float] = {}
    for batch in batches([(1, len(window) - 1) for _, window in rows], vocabulary_size(model)):
        for k, value in zip(batch, nats(model, [rows[k][1] for k in batch]), strict=True):
            found[k] = value
        progress(len(found) * len(items) // len(rows))
    totals = [0.0] * len(items)
    for k, (i, _) in enumerate(rows):
        totals[i] += found[k]
    return [_sample(*result, axis) for result in zip(items, texts, totals, strict=True)]


def _encode(item: Item, tokenizer: TextEncoder, text: str) -> list[int]:
    tokens = tokenizer.encode(text)
    if len(tokens) < 2:
        raise item.error("its text is a single token: nothing can be predicted", "expected a longer text")
    return tokens


def windows(tokens: Sequence[int], longest: int) -> list[Sequence[int]]:
    """Pieces of at most `longest` + 1 tokens, each beginning with the last token of the one before.

    The model reads all but the last token of a piece and predicts all but the first, so that every token of the text
    is predicted exactly once.
    """
    return [tokens[i : i + longest + 1] for i in range(0, len(tokens) - 1, longest)]


@torch.inference_mode()
def nats(model: torch.nn.Module, pieces: Sequence[Sequence[int]]) -> list[float]:
    """Sum of -log p of all tokens but the first, for each piece."""
    device = next(model.parameters()).device
    width = max(map(len, pieces))
    tokens = torch.tensor([[*piece, *[0] * (width - len(piece))] for piece in pieces], device=device)
    lengths = torch.tensor([len(piece) for piece in pieces], device=device).unsqueeze(1)
    # No mask: padding stands behind every token that counts, where causal attention does not look.
    decoded = decode(model, input_ids=tokens[:, :-1], use_cache=False)
    scores = target_log_probabilities(model, decoded, tokens[:, 1:])
    counted = torch.arange(1, width, device=device) < lengths
    sums: list[float] = (-scores.double().masked_fill(~counted, 0.0).sum(1)).tolist()
    return sums


def _sample(item: Item, text: str, total: float, axis: Axis) -> Sample:
    size = len(text.encode())
    bits = total / math.log(2) / size
    return sample_of(item, axis, bits, {"bytes": size, "nats": total})
