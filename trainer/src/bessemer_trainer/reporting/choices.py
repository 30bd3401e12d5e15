"""Candidates beside each other, and merges against their parents and their linear control, on dev items."""

from collections.abc import Mapping
from typing import Any

from bessemer_api.job import AxisEvidence
from bessemer_api.v1alpha1.promotion import CandidateSummary, NominationSummary
from bessemer_trainer.reporting import dev, plots
from bessemer_trainer.reporting.facts import Facts, Work
from bessemer_trainer.reporting.verdict import release_gate
from bessemer_trainer.reporting.words import artifact_names, interval, signed


def outputs(facts: Facts) -> dict[str, str]:
    """Digest of every stage and merge that is done, by name."""
    return {row.name: row.output_digest for row in facts.rows if row.output_digest}


def candidates(facts: Facts) -> dict[str, Any]:
    """Every candidate with its dev figures; which one was nominated, and why where the status says so."""
    made, axes = outputs(facts), dev.axes_of(facts)
    gate = release_gate(facts)
    told = {item.name: item for item in facts.candidates}
    names = facts.spec.promotion.candidates if facts.spec.promotion else []
    lines = [
        {
            "name": name,
            "digest": made.get(name),
            "means": [dev.mean_of(facts, made.get(name), axis.name) for axis in axes],
            "nominee": bool(gate and gate.candidate and made.get(name) == gate.candidate),
            "reason": _reason(told.get(name), facts.nomination),
        }
        for name in names
    ]
    return {"axes": axes, "losses": [dev.is_loss(axis) for axis in axes], "lines": lines, "best": _best(facts, lines)}


def _reason(told: CandidateSummary | None, nomination: NominationSummary | None) -> str:
    """Why it was chosen or not, as the status says it, with the figures that it was chosen by."""
    if told is None:
        return ""
    chosen = nomination is not None and nomination.name == told.name
    figures = f"{told.wins} axes gain, score {told.score:+.2f}" if told.axes else ""
    broken = f"loses its margin on {', '.join(told.broken)}" if told.broken else ""
    words = [nomination.message if nomination and chosen else told.message, figures, broken]
    return "; ".join(word for word in words if word)


def _best(facts: Facts, lines: list[dict[str, Any]]) -> list[float | None]:
    """The best mean of every axis."""
    found: list[float | None] = []
    for i, axis in enumerate(dev.axes_of(facts)):
        means = [line["means"][i] for line in lines if line["means"][i] is not None]
        found.append((min if dev.is_loss(axis) else max)(means) if means else None)
    return found


def merges(facts: Facts) -> list[dict[str, Any]]:
    """Every merge with its figures against each parent and against its control. A control is none of its own."""
    names, found = artifact_names(facts), [work for work in facts.works if work.merge is not None]
    controls = {f"{work.name}-linear" for work in found}
    return [_merge_view(work, facts, names) for work in found if work.name not in controls]


def _merge_view(work: Work, facts: Facts, names: Mapping[str, str]) -> dict[str, Any]:
    assert work.merge is not None  # noqa: S101 - the caller chose merges
    made = outputs(facts)
    others = [(names.get(digest, f"parent {i + 1}"), digest) for i, digest in enumerate(work.merge.parents)]
    control = made.get(f"{work.name}-linear")
    rows = [
        _merge_axis(facts, axis_number, work, [*others, *([("its linear control", control)] if control else [])])
        for axis_number in range(len(dev.axes_of(facts)))
    ]
    return {
        "name": work.name,
        "method": work.merge.method,
        "space": work.merge.space,
        "digest": work.status.output_digest,
        "parents": others,
        "control": control,
        "axes": [row for row in rows if row["lines"]],
        "health": _health(work),
    }


def _merge_axis(facts: Facts, number: int, work: Work, others: list[tuple[str, str]]) -> dict[str, Any]:
    axis, own = dev.axes_of(facts)[number], work.status.output_digest
    found = [
        (name, digest, evidence)
        for name, digest in others
        if (evidence := dev.paired(facts, own, digest, axis)) is not None
    ]
    has_control = any(name == "its linear control" for name, _, _ in found)
    return {
        "axis": axis.name,
        "mean": dev.mean_of(facts, own, axis.name),
        "lines": [_difference(name, dev.mean_of(facts, digest, axis.name), e) for name, digest, e in found],
        "synergy": synergy([evidence for _, _, evidence in found], has_control=has_control),
    }


def _difference(name: str, mean: float | None, evidence: AxisEvidence) -> dict[str, Any]:
    words = f"difference to {name} {signed(evidence.delta)}, 95 % interval {interval(evidence.low, evidence.high)}"
    plot = plots.difference_bar(evidence.delta, evidence.low, evidence.high, words)
    return {"name": name, "mean": mean, "e": evidence, "plot": plot}


def synergy(against: list[AxisEvidence], *, has_control: bool) -> str:
    """Synergy is better than the best parent and than the linear control: here, than each of them, with certainty."""
    if not has_control:
        return "not stated: no linear control was measured"
    if all(evidence.low > 0 for evidence in against):
        return "better than every parent and than the linear control (dev items)"
    return "none shown"


def _health(work: Work) -> list[tuple[str, str]]:
    """What the merge itself reported, as far as it is a plain figure."""
    figures = {**work.meta, **work.status.metrics}
    return [
        (name, f"{value:.4g}" if isinstance(value, float) else str(value))
        for name, value in sorted(figures.items())
        if isinstance(value, int | float | str) and not isinstance(value, bool) and "sha256:" not in str(value)
    ]
