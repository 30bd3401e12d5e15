"""The table of retrieval: base or tuned, with or without passages. From a gate's evidence; judges nothing.

Two axes on the same items make one: with `passages`, and the same without. It answers whether training the facts in was
worth it, or whether passages in the prompt would do; and whether the tuned model still reads what it is given.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.pipeline import PipelineSpec


def tables(spec: PipelineSpec, views: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One table for each pair of axes that a gate has measured; `views` are its axes by name."""
    found = [(closed, opened) for closed, opened in pairs(spec) if closed.name in views and opened.name in views]
    return [_table(views[closed.name], views[opened.name]) for closed, opened in found]


def pairs(spec: PipelineSpec) -> Iterator[tuple[Axis, Axis]]:
    """(closed book, open book): axes that differ in `passages` and name alone, and have the same items."""
    for opened in spec.evaluation.axes:
        closed = opened.model_copy(update={"passages": None})
        for axis in spec.evaluation.axes:
            if opened.passages and closed.model_copy(update={"name": axis.name}) == axis and _share(spec, axis, opened):
                yield axis, opened


def _share(spec: PipelineSpec, one: Axis, other: Axis) -> bool:
    """Whether some bank takes the items of both from the same place."""
    missing = object()
    return any(bank.tasks.get(one.name, missing) == bank.tasks.get(other.name) for bank in spec.evaluation.banks)


def _table(closed: Mapping[str, Any], opened: Mapping[str, Any]) -> dict[str, Any]:
    arms = (("baseline", "baseline"), ("candidate", "candidate"))
    return {
        "closed": closed["evidence"].name,
        "opened": opened["evidence"].name,
        "unit": closed["unit"],
        "items": closed["evidence"].n,
        "rows": [(name, closed[arm], opened[arm]) for name, arm in arms],
    }
