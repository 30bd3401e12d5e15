"""Data sets and mixtures: what was kept, what each rule rejected, and how much of what was trained on."""

from typing import Any

from bessemer_trainer.reporting import plots
from bessemer_trainer.reporting.facts import Facts, Work

MANY_PASSES = 4.0
"""More passes over the same text than this gain little (Muennighoff et al. 2023, arXiv 2305.16264)."""


def data_sets(facts: Facts) -> list[dict[str, Any]]:
    """Counts of every prepared data set."""
    return [_data_view(work) for work in facts.works if work.stage and work.stage.method == "prepare" and work.meta]


def mixtures(facts: Facts) -> list[dict[str, Any]]:
    """Parts of every mixture."""
    return [_mixture_view(work) for work in facts.works if work.stage and work.stage.method == "mixture" and work.meta]


def _data_view(work: Work) -> dict[str, Any]:
    """Counts by the reason of rejection; what a rule would have rejected beside it."""
    meta = work.meta
    kept, held, rejected = (int(meta.get(key, 0)) for key in ("documents", "holdout", "rejected"))
    total = kept + held + rejected
    rules = sorted(meta.get("rules", {}).items(), key=lambda item: (-item[1], item[0]))
    return {
        "name": work.name,
        "kept": kept,
        "held": held,
        "rejected": rejected,
        "bytes": int(meta.get("bytes", 0)),
        "stayed": (kept + held) / total if total else 0.0,
        "rules": [
            (rule, count, plots.bar(count / total if total else 0.0, f"{rule}: {count} of {total} documents"))
            for rule, count in rules
        ],
        "reported": sorted(meta.get("reported", {}).items(), key=lambda item: (-item[1], item[0])),
        "digest": work.status.output_digest,
    }


def _mixture_view(work: Work) -> dict[str, Any]:
    parts = [
        {**part, "bar": plots.bar(float(part["share"]), f"{part['name']}: {part['share']:.1%} of the tokens")}
        for part in work.meta.get("parts", [])
    ]
    units = [(name, work.meta[name]) for name in ("sequences", "rows", "pairs", "prompts") if name in work.meta]
    return {
        "name": work.name,
        "format": work.meta.get("format", "text"),
        "units": units,
        "tokens": work.meta.get("tokens", 0),
        "targets": work.meta.get("targets"),
        "length": work.meta.get("sequenceLength"),
        "parts": parts,
        "repeated": [part["name"] for part in parts if float(part.get("repeats", 0)) > MANY_PASSES],
        "digest": work.status.output_digest,
    }
