"""What the pipeline used: time, nodes, attempts and tokens of everything that ran, from attempts as recorded."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bessemer_api.v1alpha1.evaluation import Attempt
from bessemer_trainer.reporting.facts import Facts, Work


def seconds_of(attempts: Sequence[Attempt]) -> float:
    """Time between the beginning and the end of each attempt, in all."""
    return sum(_seconds(attempt) for attempt in attempts)


def _seconds(attempt: Attempt) -> float:
    try:
        start, end = (datetime.fromisoformat(at) for at in (attempt.started_at, attempt.finished_at))
    except ValueError:
        return 0.0
    return max(0.0, (end - start).total_seconds())


def view(facts: Facts) -> dict[str, Any]:
    """A line for every stage and merge that ran, and their sum."""
    lines = [_line(work) for work in facts.works]
    return {
        "lines": lines,
        "node_seconds": sum(line["node_seconds"] for line in lines),
        "tokens": sum(line["tokens"] or 0 for line in lines),
        "failed": sum(line["failed"] for line in lines),
        "measured": len(facts.evaluations),
    }


def _line(work: Work) -> dict[str, Any]:
    seconds = seconds_of(work.status.attempts)
    outcomes = [attempt.outcome for attempt in work.status.attempts]
    return {
        "name": work.name,
        "attempts": len(outcomes),
        "failed": outcomes.count("Failed"),
        "preempted": outcomes.count("Preempted"),
        "seconds": seconds,
        "nodes": work.nodes,
        "node_seconds": seconds * work.nodes,
        "tokens": work.log[-1]["tokens"] if work.log else None,
        "speed": work.status.metrics.get("tokensPerSecond"),
        "reused": work.status.reused,
    }
