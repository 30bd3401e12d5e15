"""multipleChoice: which choice does the model find most likely per byte?

The score of a choice is the sum of the log-probabilities of its tokens given the prompt, divided by its bytes in
UTF-8 (so that neither long choices nor a tokenizer is favoured); the highest wins and the item scores 1 or 0.

The border between prompt and choice: prompt and choice are tokenised together, as lm-evaluation-harness does, since
"a" + " b" may have other tokens than "a b". Tokens of the choice begin where that sequence leaves the tokens of the
prompt alone; a token that spans the border belongs to the choice. Both begin as a document does in training.

The prompt is computed once: its keys and values are reused for all of its choices, several items in one batch.
The numbers equal those of a plain forward pass over prompt and choice (a test holds 1e-4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.common import (
    Sample,
    TextEncoder,
    batches,
    decode,
    longest_input,
    target_log_probabilities,
    token_log_probabilities,
    vocabulary_size,
)
from bessemer_trainer.evals.items import Item, cluster_of, required_text


@dataclass(frozen=True, slots=True)
class Question:
    """An item as tokens: `prefix` is what all choices share; of `tails[k]` the tokens from `borders[k]` count."""

    item: Item
    answer: int
    prefix: list[int]
    tails: list[list[int]]
    borders: list[int]
    sizes: list[int]  # bytes of each choice

    @property
    def longest(self) -> int:
        return len(self.prefix) + max(len(tail) for tail in self.tails)


def measure(
    model: torch.nn.Module,
    tokenizer: TextEncoder,
    items: Sequence[Item],
    axis: Axis,
    progress: Callable[[int], None],
) -> list[Sample]:
    """Samples in the order of the items, with the log-likelihood in nats of every choice."""
    questions = [_encode(item, tokenizer, longest_input(model)) for item in items]
    found: dict[int, list[float]] = {}
    sizes = [(len(q.tails), q.longest) for q in questions]
    for batch in batches(sizes, vocabulary_size(model)):
        for i, likelihoods in zip(batch, log_likelihoods(model, [questions[i] for i in batch]), strict=True):
            found[i] = likelihoods
        progress(len(found))
    return [_sample(question, found[i], axis) for i, question in enumerate(questions)]


def _encode(item: Item, tokenizer: TextEncoder, limit: int) -> Question:
    prompt, choices, answer = required_text(item, "prompt"), item.fields.get("choices"), item.fields.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise item.error("`choices` is not usable", "expected at least two texts that are not empty")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise item.error(f"`answer` is {answer!r}", f"expected the index of the right choice, 0 to {len(choices) - 1}")
    alone = tokenizer.encode(prompt)
    together = [tokenizer.encode(prompt + choice) for choice in choices]
    starts = [_common_prefix(alone, whole) for whole in together]
    shared = min(starts)
    question = Question(
        item, answer, alone[:shared], [w[shared:] for w in together], [s - shared for s in starts],
        [len(choice.encode()) for choice in choices],
    )  # fmt: skip
    if shared == 0:
        raise item.error("no token of the prompt stands before every choice", "write a longer prompt")
    if any(border >= len(tail) for border, tail in zip(question.borders, question.tails, strict=True)):
        raise item.error("a choice adds no token to the prompt", "write the choice with a character of its own")
    if question.longest > limit:
        raise item.error(f"it has {question.longest} tokens, the model takes {limit}", "shorten the prompt")
    return question


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    length = min(len(one), len(other))
    return next((i for i in range(length) if one[i] != other[i]), length)


@torch.inference_mode()
def log_likelihoods(model: torch.nn.Module, questions: Sequence[Question]) -> list[list[float]]:
    """Sum of the log-probabilities in nats of every choice of every question."""
    device = next(model.parameters()).device
    rows = torch.tensor([i for i, q in enumerate(questions) for _ in q.tails], device=device)
    tails = [tail for q in questions for tail in q.tails]
    targets, kept = _pad_right(tails, device)
    prompt, mask = _pad_left([q.prefix for q in questions], device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    first = model(input_ids=prompt, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
    scores = token_log_probabilities(first.logits[:, -1][rows], targets[:, 0]).unsqueeze(1)
    if targets.shape[1] > 1:
        first.past_key_values.batch_select_indices(rows)
        # The mask needs no exception for padding of short tails: it stands behind every token that counts.
        rest = decode(
            model,
            input_ids=targets[:, :-1],
            attention_mask=torch.cat([mask[rows], torch.ones_like(targets[:, :-1])], dim=1),
            position_ids=positions[rows, -1:] + torch.arange(1, targets.shape[1], device=device),
            past_key_values=first.past_key_values,
            use_cache=True,
        )
        scores = torch.cat([scores, target_log_probabilities(model, rest, targets[:, 1:])], dim=1)
    borders = torch.tensor([b for q in questions for b in q.borders], device=device).unsqueeze(1)
    counted = kept & (torch.arange(targets.shape[1], device=device) >= borders)
    sums = scores.double().masked_fill(~counted, 0.0).sum(1).tolist()
    each = iter(sums)
    return [[next(each) for _ in q.tails] for q in questions]


def _pad_left(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token numbers and mask (1 for tokens), [sequences, longest]; padded on the left so that all end together."""
    width = max(map(len, sequences))
    padded = [[0] * (width - len(s)) + list(s) for s in sequences]
    mask = [[0] * (width - len(s)) + [1] * len(s) for s in sequences]
    return torch.tensor(padded, device=device), torch.tensor(mask, device=device)


def _pad_right(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token numbers and where they are tokens, [sequences, longest]."""
    width = max(map(len, sequences))
    padded = torch.tensor([[*s, *[0] * (width - len(s))] for s in sequences], device=device)
    lengths = torch.tensor([len(s) for s in sequences], device=device).unsqueeze(1)
    return padded, torch.arange(width, device=device) < lengths


def _sample(question: Question, likelihoods: Sequence[float], axis: Axis) -> Sample:
    per_byte = [value / size for value, size in zip(likelihoods, question.sizes, strict=True)]
    chosen = max(range(len(per_byte)), key=per_byte.__getitem__)
    finite = all(value > float("-inf") for value in per_byte)  # false for NaN too
    return Sample(
        id=question.item.id,
        cluster=cluster_of(question.item, axis),
        score=float(chosen == question.answer) if finite else float("nan"),
        detail={
            "answer": question.answer,
            "chosen": chosen,
            "chance": 1 / len(per_byte),
            "logLikelihoods": list(likelihoods),
        },
    )
