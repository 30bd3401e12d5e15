"""What each evaluation task measures: one table, so that operator and trainer agree on direction, unit and scale.

A task gives every item one number. The table says what it is called, which way is better, whether it is 0 or 1, and
what a comparison does with it. How it is measured stands in the trainer (`evals/`), in words in docs/evaluation.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TaskName = Literal[
    "multipleChoice",
    "bitsPerByte",
    "exactMatch",
    "jsonAnswer",
    "reasoningGym",
    "verifiableConstraints",
    "distinctValidNovel",
    "toolCall",
    "handoff",
    "verified",
    "firstTokenLatency",
    "sessionCost",
    "lmEval",
]

MetricName = Literal[
    "accuracy",
    "letter",
    "formatGap",
    "brier",
    "margin",
    "bitsPerByte",
    "exact",
    "contains",
    "fields",
    "score",
    "strictPrompt",
    "instructions",
    "validEos",
    "usable",
    "vendi",
    "arguments",
    "call",
    "payload",
    "mean",
    "p95",
    "tokens",
    "acc",
    "acc_norm",
    "exact_match",
    "f1",
    "brier_score",
]

Perturbation = Literal["asrNoise", "truncate", "toolTimeout"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number an item.

    `is_binary`: each item is 0 or 1. `is_ratio`: positive, and compared by the difference of logarithms, so that 0.05
    means 5 %. `quantile`: compared by that quantile of the items and not by their mean.
    """

    unit: str
    larger_is_better: bool = True
    is_binary: bool = False
    is_ratio: bool = False
    quantile: float | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One task. The first metric is the default; `samples` is 0 where an item is answered once, greedily or not at all.

    `max_new_tokens`: default length of an answer, 0 where nothing is generated.
    """

    metrics: Mapping[MetricName, Metric]
    max_new_tokens: int = 0
    samples: int = 0
    has_prompt: bool = True

    @property
    def default_metric(self) -> MetricName:
        return next(iter(self.metrics))


_RIGHT = Metric("accuracy", is_binary=True)
_SHARE = Metric("share")

TASKS: Mapping[TaskName, Task] = {
    "multipleChoice": Task(
        {
            "accuracy": _RIGHT,
            "letter": _RIGHT,
            "formatGap": Metric("accuracy lost by having to name the letter", larger_is_better=False),
            "brier": Metric("Brier score", larger_is_better=False),
            "margin": Metric("nats per byte"),
        },
        max_new_tokens=8,
    ),
    "bitsPerByte": Task({"bitsPerByte": Metric("bits per byte", larger_is_better=False)}, has_prompt=False),
    "exactMatch": Task({"exact": _RIGHT, "contains": _RIGHT}, max_new_tokens=32, samples=1),
    "jsonAnswer": Task({"exact": _RIGHT, "fields": _SHARE}, max_new_tokens=128, samples=1),
    "reasoningGym": Task({"score": Metric("score"), "exact": _RIGHT}, max_new_tokens=128, samples=1),
    "verifiableConstraints": Task(
        {"strictPrompt": _RIGHT, "instructions": _SHARE, "validEos": _RIGHT}, max_new_tokens=256, samples=1
    ),
    "distinctValidNovel": Task(
        {"usable": Metric("usable outputs, share of samples"), "vendi": Metric("effective number of outputs")},
        max_new_tokens=128,
        samples=8,
    ),
    "toolCall": Task({"arguments": _SHARE, "call": _RIGHT}, max_new_tokens=128, samples=1),
    "handoff": Task({"payload": _RIGHT, "fields": _SHARE}, max_new_tokens=128),
    "verified": Task({"score": Metric("score"), "exact": _RIGHT}, max_new_tokens=128, samples=1),
    "firstTokenLatency": Task(
        {
            "p95": Metric("seconds to the first token", larger_is_better=False, is_ratio=True, quantile=0.95),
            "mean": Metric("seconds to the first token", larger_is_better=False, is_ratio=True),
        },
    ),
    "sessionCost": Task(
        {"tokens": Metric("weighted tokens", larger_is_better=False, is_ratio=True)}, max_new_tokens=128
    ),
    "lmEval": Task(
        {
            "acc": _RIGHT,
            "acc_norm": _RIGHT,
            "exact_match": _RIGHT,
            "f1": Metric("F1"),
            "brier_score": Metric("Brier score", larger_is_better=False),
        },
        has_prompt=False,
    ),
}

TASKS_WITHOUT_PROMPT = sorted(name for name, task in TASKS.items() if not task.has_prompt)
TASKS_THAT_GENERATE = sorted(name for name, task in TASKS.items() if task.max_new_tokens)
TASKS_WITH_SAMPLES = sorted(name for name, task in TASKS.items() if task.samples)
