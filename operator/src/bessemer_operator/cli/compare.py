"""`bessemer compare A B ...`: strategies side by side. Reads what the pipelines left; prints text or a document.

What may be said is decided in core/strategies.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import AxisSummary
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.cli.place import Place
from bessemer_operator.cli.planview import count_words
from bessemer_operator.cli.problems import EXIT_USAGE, UserError, as_yaml, printable, printable_json
from bessemer_operator.cli.target import Target, as_pipeline, find_target, opened
from bessemer_operator.core.naming import short
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.strategies import (
    Strategy,
    axes_shown,
    axis_of,
    differences,
    direct,
    scenarios,
    seeds_sentence,
    share_a_baseline,
    strategies_of,
)
from bessemer_operator.local import local_profiles

Json = dict[str, Any]


async def show_comparison(names: Iterable[str], place: Place, profiles: Mapping[str, Profile], output: str) -> None:
    """Print the candidates of these pipelines side by side. Raises UserError where there is only one."""
    found = [strategy for name in names for strategy in await read(find_target(name, place), profiles)]
    if len(found) < 2:
        message = f"there is one candidate only ({', '.join(s.name for s in found) or 'none'}); name another pipeline"
        raise UserError(message, EXIT_USAGE)
    form = {"json": printable_json, "yaml": as_yaml}.get(output)
    print(form(document(found)) if form else "\n".join(map(printable, text_of(found))))


async def read(target: Target, profiles: Mapping[str, Profile]) -> tuple[Strategy, ...]:
    """The strategies of one pipeline, from its status and the objects of its work."""
    async with opened(target) as cluster:
        pipeline = as_pipeline(await cluster.get(target.ref))
        stages = await cluster.list("TrainingStage", target.ref.namespace)
        merges = await cluster.list("MergeJob", target.ref.namespace)
    work: list[TrainingStage | MergeJob] = [
        *(TrainingStage.model_validate(item) for item in stages.items),
        *(MergeJob.model_validate(item) for item in merges.items),
    ]
    return strategies_of(pipeline, work, profiles or (local_profiles(pipeline.spec) if target.run else {}))


# --- as a document ----------------------------------------------------------------------------------------------


def document(strategies: Sequence[Strategy]) -> Json:
    """Everything for programs."""
    return {
        "strategies": [_strategy(item) for item in strategies],
        "differences": {name: list(values) for name, values in differences(strategies).items()},
        "sameBaseline": share_a_baseline(strategies),
        "direct": [
            {"candidate": one.name, "against": other.name, "gate": gate.wire()}
            for one in strategies
            for other in strategies
            if (gate := direct(one, other)) is not None
        ],
        "seeds": seeds_sentence(strategies),
    }


def _strategy(strategy: Strategy) -> Json:
    took = strategy.resources
    return {
        "name": strategy.name,
        "digest": strategy.digest,
        "seed": strategy.seed,
        "approach": list(strategy.approach),
        "gates": [gate.wire() for gate in strategy.gates],
        "dev": strategy.dev.wire() if strategy.dev else None,
        "alarms": [alarm.wire() for alarm in strategy.alarms],
        "unmeasured": list(strategy.unmeasured),
        "resources": {
            "gpuHours": round(took.gpu_hours, 4),
            "processorHours": round(took.processor_hours, 4),
            "tokens": took.tokens,
            "steps": took.steps,
            "attempts": took.attempts,
            "reused": list(took.reused),
            "unknown": list(took.unknown),
        },
        "scenarios": list(scenarios(strategy)),
    }


# --- as text ----------------------------------------------------------------------------------------------------


def text_of(strategies: Sequence[Strategy]) -> list[str]:
    """Everything for people: approach, differences, benefits, risks, resources, scenarios, seeds."""
    names = [item.name for item in strategies]
    lines = ["Approach"]
    lines += [f"  {item.name}: {' -> '.join(item.approach)} ({_digest(item.digest)})" for item in strategies]
    lines += ["", "What differs", *_table([("", *names), *((k, *v) for k, v in differences(strategies).items())])]
    lines += ["", "Measured by gates, candidate minus its baseline (larger is better, 95 % interval)"]
    lines += _table([("", *names), *_benefits(strategies)])
    lines += _notes(strategies)
    lines += ["", "Risks that showed", *(f"  {line}" for item in strategies for line in _risks(item))]
    lines += ["", "Resources used", *_table([("", *names), *_took(strategies)])]
    lines += ["", "Suits", *(f"  {item.name}: {line}" for item in strategies for line in scenarios(item))]
    return [*lines, "", seeds_sentence(strategies)]


def _digest(digest: str | None) -> str:
    return f"sha256:{short(digest, 12)}" if digest else "not made yet"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _benefits(strategies: Sequence[Strategy]) -> list[tuple[str, ...]]:
    rows = [(name, *(_axis(axis_of(item, name)) for item in strategies)) for name in axes_shown(strategies)]
    rows.append(("verdict", *(_verdict(item) for item in strategies)))
    rows.append(("baseline", *(", ".join(sorted({_digest(g.baseline) for g in s.gates})) or "-" for s in strategies)))
    dev = list(dict.fromkeys(axis.name for item in strategies if item.dev for axis in item.dev.axes))
    for name in dev:
        deltas = [
            next((a.delta for a in item.dev.axes if a.name == name), None) if item.dev else None for item in strategies
        ]
        rows.append((f"{name} (dev items)", *("-" if delta is None else f"{delta:+.4f}" for delta in deltas)))
    return rows


def _axis(axis: AxisSummary | None) -> str:
    if axis is None:
        return "-"
    low, high = axis.interval
    return f"{axis.delta:+.4f} [{low:+.4f}, {high:+.4f}] {axis.state}, n {axis.n}"


def _verdict(strategy: Strategy) -> str:
    found = [f"{gate.name}: {gate.verdict}, try {gate.tries}" for gate in strategy.gates]
    return "; ".join(found) or "not judged"


def _notes(strategies: Sequence[Strategy]) -> list[str]:
    pairs = [(one, other) for one in strategies for other in strategies if direct(one, other) is not None]
    lines = [f"  {one.name} was compared with {other.name} itself." for one, other in pairs]
    if not pairs and share_a_baseline(strategies):
        lines.append(
            "  All against one baseline; no gate compared them with each other, so which is better is not said."
        )
    elif not pairs:
        lines.append("  Not all against one baseline: these numbers say nothing about which is better.")
    return lines


def _risks(strategy: Strategy) -> list[str]:
    lines = [f"{item.name} of {item.subject}: {item.message}" for item in strategy.alarms]
    for gate in strategy.gates:
        lines += [f"{axis.name} was shown to be worse" for axis in gate.axes if axis.state == "Worse"]
        lines += [f"{axis.name} was not shown to hold" for axis in gate.axes if axis.state == "NotShown"]
        lines += [f"{gate.name}: {gate.reason}"] if gate.verdict in {"Failed", "Invalid", "Error"} else []
    lines += [f"not measured: {', '.join(strategy.unmeasured)}"] if strategy.unmeasured else []
    return [f"{strategy.name}: {line}" for line in lines or ["none that was looked for"]]


def _took(strategies: Sequence[Strategy]) -> list[tuple[str, ...]]:
    took = [item.resources for item in strategies]
    return [
        ("GPU hours", *(f"{item.gpu_hours:.2f}" for item in took)),
        ("process hours", *(f"{item.processor_hours:.3f}" for item in took)),
        ("trained tokens", *(count_words(item.tokens) for item in took)),
        ("steps", *(str(item.steps) for item in took)),
        ("attempts", *(str(item.attempts) for item in took)),
        ("reused", *(", ".join(item.reused) or "-" for item in took)),
        *(
            [("no record of", *(", ".join(item.unknown) or "-" for item in took))]
            if any(i.unknown for i in took)
            else []
        ),
    ]
