"""multipleChoice: which choice does the model find most likely per byte?

The score of a choice is the sum of the log-probabilities of its tokens given the prompt, divided by its bytes in
UTF-8 (so that neither long choices nor a tokenizer is favoured); the highest wins and the item scores 1 or 0
(`accuracy`). `brier`: sum of squared errors of the probabilities of the choices, their likelihoods divided by their
sum. `margin`: log-likelihood per byte of the right choice minus that of the best wrong one (sharpness: a diagnostic).
`letter`: 1 when the model writes the letter of the right choice; `formatGap`: accuracy minus letter.

The border between prompt and choice: prompt and choice are tokenised together, as lm-evaluation-harness does, since
"a" + " b" may have other tokens than "a b". Tokens of the choice begin where that sequence leaves the tokens of the
prompt alone; a token that spans the border belongs to the choice. Both begin as a document does in training.

The prompt is computed once: its keys and values are reused for all of its choices, several items in one batch.
The numbers equal those of a plain forward pass over prompt and choice (a test holds 1e-4).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.answering import Answer, told
from bessemer_trainer.evals.common import (
    Sample,
    batches,
    decode,
    longest_input,
    sample_of,
    target_log_probabilities,
    token_log_probabilities,
    vocabulary_size,
)
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.multiple_choice_letters import ask_for_letters
from bessemer_trainer.evals.prompts import prompt_of
from bessemer_trainer.evals.subject import Prompt, Subject, plain_text


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


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items, with the log-likelihood in nats of every choice."""
    questions = [_encode(item, subject, axis) for item in items]
    likelihoods = all_log_likelihoods(subject.model, questions, progress)
    samples = [_sample(question, found, axis) for question, found in zip(questions, likelihoods, strict=True)]
    if axis.metric_name not in {"letter", "formatGap"}:
        return samples
    letters = ask_for_letters(subject, items, axis, progress)
    return [_with_letter(sample, *letter, axis) for sample, letter in zip(samples, letters, strict=True)]


def all_log_likelihoods(
    model: torch.nn.Module, questions: Sequence[Question], progress: Callable[[int], None]
) -> list[list[float]]:
    """As `log_likelihoods`, in batches of similar length."""
    found: dict[int, list[float]] = {}
    sizes = [(len(q.tails), q.longest) for q in questions]
    for batch in batches(sizes, vocabulary_size(model)):
        for i, likelihoods in zip(batch, log_likelihoods(model, [questions[i] for i in batch]), strict=True):
            found[i] = likelihoods
        progress(len(found))
    return [found[i] for i in range(len(questions))]


def _encode(item: Item, subject: Subject, axis: Axis) -> Question:
    prompt, choices, answer = prompt_of(item, axis), item.fields.get("choices"), item.fields.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise item.error("`choices` is not usable", "expected at least two texts that are not empty")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise item.error(f"`answer` is {answer!r}", f"expected the index of the right choice, 0 to {len(choices) - 1}")
    alone, together = _tokens(item, prompt, choices, subject, axis)
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
    if question.longest > longest_input(subject.model):
        limit = longest_input(subject.model)
        raise item.error(f"it has {question.longest} tokens, the model takes {limit}", "shorten the prompt")
    return question


def _tokens(
    item: Item, prompt: Prompt, choices: Sequence[str], subject: Subject, axis: Axis
) -> tuple[list[int], list[list[int]]]:
    """Tokens of the prompt alone, and with each choice; in a chat a choice begins with a token of its own."""
    alone = subject.prompt_tokens(prompt, axis, item)
    if axis.prompt == "chat":
        return alone, [alone + subject.encoder.continuation(choice.strip()) for choice in choices]
    return alone, [subject.encoder.encode(plain_text(prompt) + choice) for choice in choices]


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
    metric = axis.metric_name if axis.metric_name in {"brier", "margin"} else "accuracy"
    score = _SCORES[metric](question.answer, list(likelihoods), per_byte) if finite else float("nan")
    chance = {"accuracy": 1 / len(per_byte), "brier": 1 - 1 / len(per_byte)}.get(metric)
    detail = {"answer": question.answer, "chosen": chosen, "logLikelihoods": list(likelihoods)}
    return sample_of(question.item, axis, score, detail | ({} if chance is None else {"chance": chance}))


def _accuracy(answer: int, _: Sequence[float], per_byte: Sequence[float]) -> float:
    return float(max(range(len(per_byte)), key=per_byte.__getitem__) == answer)


def _brier(answer: int, likelihoods: Sequence[float], _: Sequence[float]) -> float:
    weights = [math.exp(value - max(likelihoods)) for value in likelihoods]
    return sum((w / sum(weights) - (i == answer)) ** 2 for i, w in enumerate(weights))


def _margin(answer: int, _: Sequence[float], per_byte: Sequence[float]) -> float:
    return per_byte[answer] - max(value for i, value in enumerate(per_byte) if i != answer)


_SCORES: Mapping[str, Callable[[int, list[float], list[float]], float]] = {
    "accuracy": _accuracy,
    "brier": _brier,
    "margin": _margin,
}


def _with_letter(sample: Sample, letter: int | None, answer: Answer, axis: Axis) -> Sample:
    """The sample scored by the letter that was written, or by what having to write one costs."""
    right = float(letter == sample.detail["answer"])
    gap = axis.metric_name == "formatGap"
    kept = {name: value for name, value in sample.detail.items() if name != "chance" or not gap}
    detail = kept | {"accuracy": sample.score, "letter": letter} | told([answer])
    return replace(sample, score=sample.score - right if gap else right, detail=detail)
