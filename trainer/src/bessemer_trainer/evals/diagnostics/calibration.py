"""calibration: is the model as often right as it is sure? Expected calibration error over multiple-choice items.

The probability of a choice is the softmax of the log-likelihoods of all choices. Bins hold equally many items (the
estimate is steadier than with bins of equal width; Nixon et al. 2019). Needs only what multipleChoice computes anyway.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_trainer.evals.diagnostics.common import Case, Finding, beyond, items_for, required, table

BINS = 10

Sure = tuple[float, bool]
"""How probable the chosen answer was, and whether it was right."""


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """The error of the checkpoint minus that of what it started from."""
    start = required(case.reference, "checkpoint that it started from")
    axis, items = items_for(case, diagnostic, ["multipleChoice"])
    answers = [int(item.fields["answer"]) for item in items]
    sure = {
        arm.name: [confidence(row, answer) for row, answer in zip(arm.probe.choices(items, axis), answers, strict=True)]
        for arm in (start, case.subject)
    }
    errors = {name: expected_calibration_error(found) for name, found in sure.items()}
    rise = errors[case.subject.name] - errors[start.name]
    words = (
        f"calibration error {errors[case.subject.name]:.3f}, {errors[start.name]:.3f} for {start.name} "
        f"({len(items)} items of {axis.name})"
    )
    found = [
        {"id": item.id, "before": list(old), "after": list(new)}
        for item, old, new in zip(items, sure[start.name], sure[case.subject.name], strict=True)
    ]
    return beyond(rise, diagnostic.level, words, items=found, figures={"calibration": _figure(sure)})


def confidence(likelihoods: Sequence[float], answer: int) -> Sure:
    """Probability of the most likely choice, and whether it is the right one."""
    top = max(likelihoods)
    total = math.fsum(math.exp(value - top) for value in likelihoods)
    return 1 / total, likelihoods[answer] == top


def expected_calibration_error(found: Sequence[Sure]) -> float:
    """Mean distance between confidence and accuracy over bins of equally many items."""
    return math.fsum(abs(accuracy - sure) * n for n, sure, accuracy in bins(found)) / len(found)


def bins(found: Sequence[Sure]) -> list[tuple[int, float, float]]:
    """Items, mean confidence and accuracy of each bin, least sure first."""
    ordered = sorted(found)
    borders = [round(k * len(ordered) / BINS) for k in range(BINS + 1)]
    parts = [ordered[a:b] for a, b in pairwise(borders) if b > a]
    return [(len(p), math.fsum(s for s, _ in p) / len(p), sum(right for _, right in p) / len(p)) for p in parts]


def _figure(sure: dict[str, list[Sure]]) -> dict[str, object]:
    rows = [(name, n, confident, right) for name, found in sure.items() for n, confident, right in bins(found)]
    return table("How sure and how right", ["checkpoint", "items", "confidence", "accuracy"], rows)
