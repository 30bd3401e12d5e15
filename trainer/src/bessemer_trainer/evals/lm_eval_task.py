"""lmEval: items of a task of lm-evaluation-harness, scored by its own code on our model. See `evals/harness.py`.

A stored sample keeps every metric that the harness gives for its item, and what the model answered to each request.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.common import (
    Sample,
    batches,
    decode,
    longest_input,
    sample_of,
    target_log_probabilities,
    vocabulary_size,
)
from bessemer_trainer.evals.generate import Decoding, Request, generate
from bessemer_trainer.evals.harness import build_task
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject

LONGEST = 256
"""Tokens that are generated where a task does not say how many; as the harness does."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Tokens of a context with its continuation, which begins at `start`."""

    tokens: list[int]
    start: int


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items. Raises PermanentError(BadItem) for an item without the metric of the axis."""
    config: Mapping[str, Any] = items[0].fields["task"]
    task = build_task(config, {str(config["test_split"]): [item.fields["doc"] for item in items]})
    requests = [_requests(task, item, number) for number, item in enumerate(items)]
    _answer(subject, items, requests, progress)
    task._instances = [request for own in requests for request in own]
    task.apply_filters()
    return [_sample(task, item, own, axis) for item, own in zip(items, requests, strict=True)]


def _requests(task: Any, item: Item, number: int) -> list[Any]:  # noqa: ANN401 - the package is untyped
    made = task.construct_requests(
        doc=item.fields["doc"], ctx=item.fields["prompt"], metadata=(str(task.config.task), number, 1)
    )
    return made if isinstance(made, list) else [made]


def _answer(
    subject: Subject, items: Sequence[Item], requests: Sequence[Sequence[Any]], progress: Callable[[int], None]
) -> None:
    flat = [(item, request) for item, own in zip(items, requests, strict=True) for request in own]
    each = len(flat) / len(items)
    if flat[0][1].request_type == "generate_until":
        answers: Sequence[Any] = _generated(subject, flat, lambda done: progress(int(done / each)))
    else:
        pairs = [encode_pair(subject, *request.args) for _, request in flat]
        for (item, _), pair in zip(flat, pairs, strict=True):
            if len(pair.tokens) > longest_input(subject.model) + 1:
                raise item.error(f"it has {len(pair.tokens)} tokens", f"the model takes {longest_input(subject.model)}")
        answers = log_likelihoods(subject.model, pairs, lambda done: progress(int(done / each)))
    for (_, request), answer in zip(flat, answers, strict=True):
        request.resps.append(answer)


def encode_pair(subject: Subject, context: str, continuation: str) -> Pair:
    """As the harness cuts it: white space at the end of the context belongs to the continuation.

    Without a context the continuation follows the end-of-text token, as the harness's prefix does for such tokenizers.
    """
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    if not context:
        return Pair([subject.encoder.vocabulary.end, *subject.encoder.encode(continuation)], 1)
    return Pair(subject.encoder.encode(context + continuation), len(subject.encoder.encode(context)))


def log_likelihoods(
    model: torch.nn.Module, pairs: Sequence[Pair], progress: Callable[[int], None]
) -> list[tuple[float, bool]]:
    """Sum of log-probabilities of each continuation in nats, and whether it is what greedy decoding would say."""
    found: dict[int, tuple[float, bool]] = {}
    for batch in batches([(1, len(pair.tokens) - 1) for pair in pairs], vocabulary_size(model)):
        for i, value in zip(batch, _batch(model, [pairs[i] for i in batch]), strict=True):
            found[i] = value
        progress(len(found))
    return [found[i] for i in range(len(pairs))]


@torch.inference_mode()
def _batch(model: Any, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:  # noqa: ANN401 - transformers is untyped
    device = next(model.parameters()).device
    width = max(len(pair.tokens) for pair in pairs)
    tokens = torch.tensor([[*pair.tokens, *[0] * (width - len(pair.tokens))] for pair in pairs], device=device)
    starts = torch.tensor([pair.start for pair in pairs], device=device).unsqueeze(1)
    ends = torch.tensor([len(pair.tokens) for pair in pairs], device=device).unsqueeze(1)
    places = torch.arange(1, width, device=device)
    counted = (places >= starts) & (places < ends)
    decoded = decode(model, input_ids=tokens[:, :-1], use_cache=False)
    scores = target_log_probabilities(model, decoded, tokens[:, 1:])
    best = model.get_output_embeddings()(decoded.last_hidden_state).argmax(-1)
    greedy = ((best == tokens[:, 1:]) | ~counted).all(1)
    sums = scores.double().masked_fill(~counted, 0.0).sum(1)
    return list(zip(sums.tolist(), greedy.tolist(), strict=True))


def _generated(subject: Subject, flat: Sequence[tuple[Item, Any]], progress: Callable[[int], None]) -> list[str]:
    wanted = []
    for item, request in flat:
        context, settings = request.args
        stop = settings.get("until") or []
        longest = int(settings.get("max_gen_toks", LONGEST))
        tokens = subject.encoder.encode(context)
        room = longest_input(subject.model) - len(tokens)
        if room < longest:
            raise item.error(f"its prompt leaves {room} tokens for an answer of {longest}", "lower max_gen_toks")
        wanted.append(Request(item.id, tokens, longest, 1, tuple([stop] if isinstance(stop, str) else stop)))
    outputs = generate(subject.model, wanted, Decoding(subject.ends, 0.0, subject.seed, subject.decode), progress)
    return [_cut(subject.decode(o.tokens), r.stop) for r, (o,) in zip(wanted, outputs, strict=True)]


def _cut(text: str, stop: Sequence[str]) -> str:
    for mark in stop:
        text = text.split(mark, maxsplit=1)[0] if mark else text
    return text


def _sample(task: Any, item: Item, requests: Sequence[Any], axis: Axis) -> Sample:  # noqa: ANN401 - untyped package
    name = next(iter(requests[0].filtered_resps))
    metrics = task.process_results(item.fields["doc"], [request.filtered_resps[name] for request in requests])
    numbers = {key: float(value) for key, value in metrics.items() if isinstance(value, bool | int | float)}
    numbers |= {key: float(value) for key, value in metrics.items() if hasattr(value, "item")}
    if axis.metric_name not in numbers:
        found = ", ".join(sorted(numbers)) or "none that is one number an item"
        raise item.error(f"its task gives no {axis.metric_name}", f"it gives {found}: set metric of the axis")
    answers = [request.resps[0] for request in requests]
    return sample_of(item, axis, numbers[axis.metric_name], {"metrics": numbers, "answers": answers})
