"""Wins and losses side by side: dev items on which the candidate and the baseline differ, with what each answered.

Only dev items. An item of the gate part is never shown, nor its result: who reads the items that judge will sooner or
later train on them, and the next try would measure that.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.reporting import dev
from bessemer_trainer.reporting.facts import DevItem, Facts
from bessemer_trainer.reporting.verdict import release_gate
from bessemer_trainer.reporting.words import artifact_names, named

SHOWN = 4
"""Examples of each kind and axis."""

_LONGEST = 600
_ANSWERS = ("output", "outputs", "response", "responses", "text", "texts", "answer", "completion", "completions")
"""Fields of a result in which a generated answer may stand, in order of preference."""


def view(facts: Facts) -> dict[str, Any]:
    """Examples by axis; `missing` says why there are none."""
    names, gate = artifact_names(facts), release_gate(facts)
    ours = gate.candidate if gate else None
    theirs = _other(facts, ours, gate.baseline if gate else None)
    if ours not in facts.dev or theirs is None:
        missing = (
            "No two checkpoints of this gate were measured on dev items, so there is nothing to show side by side."
        )
        return {"missing": missing, "axes": [], "ours": "", "theirs": ""}
    axes = [found for axis in dev.axes_of(facts) if (found := _axis(facts, ours, theirs, axis))]
    return {"missing": "", "axes": axes, "ours": named(ours, names), "theirs": named(theirs, names)}


def _other(facts: Facts, ours: str | None, baseline: str | None) -> str | None:
    """The baseline where it was measured on dev items, else any other checkpoint that was."""
    if baseline in facts.dev and baseline != ours:
        return baseline
    return next((digest for digest in facts.dev if digest != ours), None)


def _axis(facts: Facts, ours: str | None, theirs: str, axis: Axis) -> dict[str, Any] | None:
    pairs = _pairs(dev.items_of(facts, ours, axis.name), dev.items_of(facts, theirs, axis.name))
    sign = -1 if dev.is_loss(axis) else 1
    by_gain = sorted(pairs, key=lambda pair: (-sign * (pair[0].score - pair[1].score), pair[0].id))
    wins = [pair for pair in by_gain if sign * (pair[0].score - pair[1].score) > 0]
    losses = [pair for pair in reversed(by_gain) if sign * (pair[0].score - pair[1].score) < 0]
    if not pairs:
        return None
    return {
        "name": axis.name,
        "items": len(pairs),
        "wins": len(wins),
        "losses": len(losses),
        "examples": [
            ("the candidate is better", "good", [_example(*pair) for pair in wins[:SHOWN]]),
            ("the baseline is better", "bad", [_example(*pair) for pair in losses[:SHOWN]]),
        ],
    }


def _pairs(ours: Sequence[DevItem], theirs: Sequence[DevItem]) -> list[tuple[DevItem, DevItem]]:
    by_id = {item.id: item for item in theirs}
    return [(item, by_id[item.id]) for item in ours if item.id in by_id]


def _example(ours: DevItem, theirs: DevItem) -> dict[str, Any]:
    return {
        "id": ours.id,
        "question": _cut(str(ours.item.get("prompt") or ours.item.get("text") or "")),
        "expected": _expected(ours.item),
        "ours": _answer(ours),
        "theirs": _answer(theirs),
        "scores": (ours.score, theirs.score),
    }


def _expected(item: Mapping[str, Any]) -> str:
    choices, answer = item.get("choices"), item.get("answer")
    if isinstance(choices, list) and isinstance(answer, int) and 0 <= answer < len(choices):
        return _cut(str(choices[answer]).strip())
    return _cut(answer) if isinstance(answer, str) else ""


def _answer(result: DevItem) -> str:
    choices, chosen = result.item.get("choices"), result.result.get("chosen")
    if isinstance(choices, list) and isinstance(chosen, int) and 0 <= chosen < len(choices):
        return _cut(str(choices[chosen]).strip())
    found = next((result.result[key] for key in _ANSWERS if key in result.result), "")
    if isinstance(found, list):
        found = found[0] if found else ""
    return _cut(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))


def _cut(words: str) -> str:
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"
