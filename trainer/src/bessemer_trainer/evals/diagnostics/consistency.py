"""consistency: does the model answer a question alike, however it is worded and in whatever order choices are listed?

A merge can be good on each kind of query that a parent was good at, and waver between them. Wordings: the item's field
`paraphrases`. Orders: the listed choices rotated, answered by the likelihood of each letter. An item flips when any of
its variants leads to another choice. Alarm: flips above those of the worst parent by more than the level, or a slice
(`stratifyBy`) in which the merge is proven worse than its best parent there (exact McNemar test, Holm over slices).
Cochran's Q says whether accuracy differs between the checkpoints at all.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from scipy.special import chdtrc

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.diagnostics.common import (
    Arm,
    Case,
    Finding,
    NotThereError,
    items_for,
    table,
)
from bessemer_trainer.evals.diagnostics.format_gap import choose, right_by_likelihood
from bessemer_trainer.evals.diagnostics.probe import changed
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.multiple_choice_letters import LETTERS, listed
from bessemer_trainer.refusals import binomial_tail


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """Flips and slices of a merge against its parents (of a stage against what it started from)."""
    others = list(case.parents) or [arm for arm in (case.reference,) if arm is not None]
    if not others:
        raise NotThereError("there is no parent to compare it with")
    axis, items = items_for(case, diagnostic, ["multipleChoice"])
    arms = [*others, case.subject]
    flips = {arm.name: flipped(arm, items, axis) for arm in arms}
    right = {arm.name: right_by_likelihood(arm, items, axis) for arm in arms}
    worst = max(fmean(flips[arm.name]) for arm in others)
    rise = fmean(flips[case.subject.name]) - worst
    slices = worse_slices(items, axis, right, case.subject.name)
    broken = [name for name, p in slices if p <= diagnostic.alpha]
    q, p = cochran_q([right[arm.name] for arm in arms])
    words = (
        f"{fmean(flips[case.subject.name]):.0%} of answers flip, at most {worst:.0%} of a parent's"
        + (f"; proven worse than its best parent on {', '.join(broken)}" if broken else "")
        + f" ({len(items)} items of {axis.name}; Cochran Q {q:.1f}, p {p:.2g})"
    )
    rows = [(arm.name, fmean(right[arm.name]), fmean(flips[arm.name])) for arm in arms]
    figures = {"consistency": table("Answers that flip", ["checkpoint", "accuracy", "flips"], rows)}
    if slices:
        figures["slices"] = table("Worse than the best parent, by slice", ["slice", "p (Holm)"], slices)
    found = [
        {"id": item.id, **{name: {"flips": flips[name][i], "right": right[name][i]} for name in flips}}
        for i, item in enumerate(items)
    ]
    is_alarm = rise > diagnostic.level or bool(broken)
    return Finding("Alarm" if is_alarm else "Quiet", words, rise, diagnostic.level, found, figures)


def flipped(arm: Arm, items: Sequence[Item], axis: Axis) -> list[bool]:
    """Whether any variant of an item leads to another choice than the item itself does in its own kind."""
    worded = _by_wording(arm, items, axis)
    ordered = _by_order(arm, items, axis)
    return [
        any(choice != found[0] for found in (w, o) for choice in found) for w, o in zip(worded, ordered, strict=True)
    ]


def _by_wording(arm: Arm, items: Sequence[Item], axis: Axis) -> list[list[int]]:
    """The choice by log-likelihood for the prompt and for each of its paraphrases."""
    asked = [
        changed(item, {"prompt": prompt})
        for item in items
        for prompt in (item.fields["prompt"], *(item.fields.get("paraphrases") or ()))
    ]
    chosen = iter([choose(item, row) for item, row in zip(asked, arm.probe.choices(asked, axis), strict=True)])
    return [[next(chosen) for _ in range(1 + len(item.fields.get("paraphrases") or ()))] for item in items]


def _by_order(arm: Arm, items: Sequence[Item], axis: Axis) -> list[list[int]]:
    """The choice, as a number of the item, for the listed choices as they are and turned by one and by two."""
    turns = (0, 1, 2)
    asked = [_turned(item, turn) for item in items for turn in turns]
    rows = iter(arm.probe.choices(asked, axis))
    found = []
    for item in items:
        count = len(item.fields["choices"])
        found.append([(_top(next(rows)) + turn) % count for turn in turns])
    return found


def _turned(item: Item, turn: int) -> Item:
    choices = item.fields["choices"]
    turned = [choices[(k + turn) % len(choices)] for k in range(len(choices))]
    prompt = listed(changed(item, {"choices": turned}), item.fields["prompt"])
    return changed(
        item, {"prompt": prompt, "choices": [f" {letter}" for letter in LETTERS[: len(choices)]], "answer": 0}
    )


def _top(likelihoods: Sequence[float]) -> int:
    return max(range(len(likelihoods)), key=likelihoods.__getitem__)


def cochran_q(arms: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """Cochran's Q and its p: do any of k checkpoints differ in accuracy on the same items? (Cochran 1950.)"""
    k = len(arms)
    totals = [sum(arm) for arm in arms]
    rows = [sum(column) for column in zip(*arms, strict=True)]
    spread = k * sum(rows) - sum(row * row for row in rows)
    if not spread:
        return 0.0, 1.0
    q = (k - 1) * (k * sum(t * t for t in totals) - sum(totals) ** 2) / spread
    return q, float(chdtrc(k - 1, q))


def worse_slices(
    items: Sequence[Item], axis: Axis, right: Mapping[str, Sequence[bool]], subject: str
) -> list[tuple[str, float]]:
    """Slices by their adjusted p that the subject is worse there than its best parent there, smallest first."""
    if axis.stratify_by is None:
        return []
    slices: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        slices.setdefault(str(item.fields.get(axis.stratify_by)), []).append(i)
    raw = [(name, _worse(rows, right, subject)) for name, rows in sorted(slices.items())]
    return holm(raw)


def _worse(rows: Sequence[int], right: Mapping[str, Sequence[bool]], subject: str) -> float:
    best = max((name for name in right if name != subject), key=lambda name: (sum(right[name][i] for i in rows), name))
    lost = sum(right[best][i] and not right[subject][i] for i in rows)
    won = sum(right[subject][i] and not right[best][i] for i in rows)
    return binomial_tail(lost, lost + won)


def holm(raw: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Each p adjusted by Holm's method (1979), smallest first."""
    adjusted, largest = [], 0.0
    for k, (name, p) in enumerate(sorted(raw, key=lambda pair: (pair[1], pair[0]))):
        largest = max(largest, min(1.0, (len(raw) - k) * p))
        adjusted.append((name, largest))
    return adjusted
