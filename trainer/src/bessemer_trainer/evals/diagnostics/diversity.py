"""diversity: does the model still give different answers to one prompt? Preference tuning narrows them.

Several answers are sampled to each dev prompt. Per prompt: distinct-2, expectation-adjusted distinct, 1 - self-BLEU,
the inverse of the compression ratio, the Vendi score (all: larger is more diverse), and the entropy of the next token
in nats. The alarm is on the lower bound of the mean ratio of Vendi scores, the one that no single repeated phrase
moves; the others stand in the table.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import torch

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_trainer.evals.common import vocabulary_size
from bessemer_trainer.evals.diagnostics import text_statistics as text
from bessemer_trainer.evals.diagnostics.common import Arm, Case, Finding, items_for, mean_interval, required, table
from bessemer_trainer.evals.diagnostics.prompts import GENERATING
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.similarity import similarities, vendi_score

_MEASURES = ("vendi", "distinct2", "adjustedDistinct", "unlikeEachOther", "incompressibility", "tokenEntropy")
_ENTROPY_TOKENS = 256
"""Tokens of an answer over which the entropy of the next one is averaged at most."""


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """Diversity of sampled answers, as a ratio to what the stage started from."""
    start = required(case.reference, "checkpoint that it started from")
    axis, items = items_for(case, diagnostic, GENERATING)
    before, after = (_measures(arm, items, diagnostic) for arm in (start, case.subject))
    ratios = [math.log(new["vendi"] / old["vendi"]) for old, new in zip(before, after, strict=True)]
    mean, low, _ = mean_interval(ratios, diagnostic.alpha)
    bound = math.exp(low)
    rows = [(name, _mean(before, name), _mean(after, name)) for name in _MEASURES]
    words = (
        f"{rows[0][2]:.2f} different answers of {diagnostic.samples} (Vendi), {rows[0][1]:.2f} of {start.name}; ratio "
        f"{math.exp(mean):.2f}, at least {bound:.2f} ({len(items)} prompts of {axis.name})"
    )
    found = [{"id": i.id, "before": dict(b), "after": dict(a)} for i, b, a in zip(items, before, after, strict=True)]
    figure = table("Diversity of answers", ["measure", start.name, case.subject.name], rows)
    is_alarm = bound < diagnostic.level
    return Finding("Alarm" if is_alarm else "Quiet", words, bound, diagnostic.level, found, {"diversity": figure})


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return fmean(row[name] for row in rows)


def _measures(arm: Arm, items: Sequence[Item], diagnostic: Diagnostic) -> list[dict[str, float]]:
    answers = arm.probe.answers(items, diagnostic)
    size = vocabulary_size(arm.probe.subject.model)
    return [
        {**measures([answer.text for answer in found], size), "tokenEntropy": _entropy(arm, item, found[0].text)}
        for item, found in zip(items, answers, strict=True)
    ]


def measures(texts: Sequence[str], vocabulary: int) -> dict[str, float]:
    """Everything that texts alone tell; larger is more diverse."""
    return {
        "vendi": vendi_score(similarities(texts)),
        "distinct2": text.distinct(texts),
        "adjustedDistinct": text.adjusted_distinct(texts, vocabulary),
        "unlikeEachOther": 1 - text.self_bleu(texts),
        "incompressibility": 1 / text.compression_ratio(texts),
    }


@torch.inference_mode()
def _entropy(arm: Arm, item: Item, answer: str) -> float:
    """Mean entropy in nats of the next token along an answer, as the model that gave it saw it."""
    subject = arm.probe.subject
    tokens = subject.encoder.encode(f"{item.fields['prompt']}{answer}")[:_ENTROPY_TOKENS]
    device = next(subject.model.parameters()).device
    logits = subject.model(input_ids=torch.tensor([tokens], device=device), use_cache=False).logits.float()
    logs = logits.log_softmax(-1)
    return float(-(logs.exp() * logs).sum(-1).mean())
