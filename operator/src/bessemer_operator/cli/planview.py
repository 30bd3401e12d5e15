"""What `bessemer plan` shows of estimates and gates: text for people and documents for programs. Pure.

Every number here is an estimate; what it rests on is printed with it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from bessemer_api.v1alpha1.gate import Gate
from bessemer_operator.core.accelerators import GIB
from bessemer_operator.core.estimate import StageEstimate, Total
from bessemer_operator.core.lint_memory import parts_text
from bessemer_operator.core.memory import HEADROOM
from bessemer_operator.core.power import POWER, Part, Truth, impossible, items_needed, parts, simulate
from bessemer_operator.core.stats import try_alpha

Json = dict[str, Any]


# --- stages -----------------------------------------------------------------------------------------------------


def stage_lines(stages: Iterable[StageEstimate]) -> list[str]:
    """A line for each training stage, then what its memory is for, then what is missing for an estimate."""
    listed = list(stages)
    rows = [_cells(stage) for stage in listed]
    head = ("stage", "method", "on", "GiB each", "tokens", "time", "GPU hours")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [_row(head, widths)]
    for stage, row in zip(listed, rows, strict=True):
        lines.append(_row(row, widths))
        if stage.memory is not None and stage.device is not None and stage.device.memory is not None:
            lines.append(f"    {parts_text(stage.memory)}; in each pod {stage.memory.host / GIB:.0f} GiB")
        lines += [f"    not known: {missing}" for missing in stage.unknown]
    return lines


def _row(cells: Iterable[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(stage: StageEstimate) -> tuple[str, ...]:
    where = f"{stage.ranks} x {stage.device.name}" if stage.device else f"{stage.ranks} x {stage.profile}"
    memory = "?" if stage.memory is None else f"{stage.memory.total / GIB:.1f}"
    limit = stage.device.memory if stage.device else None
    memory += f" of {limit / GIB:.1f}" if limit else ""
    hours = "?" if stage.gpu_hours is None else f"{stage.gpu_hours:,.1f}"
    name = f"{stage.name} (done)" if stage.is_done else stage.name
    return name, stage.method, where, memory, count_words(stage.tokens), time_words(stage.seconds), hours


def count_words(count: int | None) -> str:
    """A number of tokens in three digits: 1.23 B."""
    if count is None:
        return "?"
    for size, unit in ((10**12, " T"), (10**9, " B"), (10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def time_words(seconds: float | None) -> str:
    """A time in the unit that fits it."""
    if seconds is None:
        return "?"
    for size, unit in ((86_400 * 2, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / (86_400 if unit == 'd' else size):.1f} {unit}"
    return f"{seconds:.0f} s"


def total_line(total: Total, remaining: Total, budget: float | None) -> str:
    """Sums, beside the budget."""
    least = "" if total.is_complete else "at least "
    text = (
        f"In all {least}{total.gpu_hours:,.1f} GPU hours, {time_words(total.seconds)} where branches run side by side"
    )
    if remaining.gpu_hours != total.gpu_hours:
        text += f"; still to run {remaining.gpu_hours:,.1f} GPU hours, {time_words(remaining.seconds)}"
    return text + ("." if budget is None else f". Budget: {budget:,.1f} GPU hours.")


def assumptions(stages: Iterable[StageEstimate], guessed: Mapping[str, int]) -> list[str]:
    """What the estimates of stages rest on."""
    devices = {stage.device.name: stage.device for stage in stages if stage.device and stage.device.flops}
    found = [
        f"{device.name}: {(device.flops or 0) / 1e12:g} teraflops of dense bf16, of which training reaches "
        f"{device.utilisation:.0%}"
        for device in devices.values()
    ]
    found += [
        f"data set {name}: {count_words(count)} tokens, from the size of its files at 4 bytes a token"
        for name, count in guessed.items()
    ]
    if devices:
        found += [
            "time is that of training alone: no queue, no start, no checkpoints, no evaluation, no merge, no attempt "
            "that fails; memory is counted without fragmentation, for which "
            f"{HEADROOM:.0%} is left free"
        ]
    return found


def stage_document(stage: StageEstimate) -> Json:
    """One stage for programs: bytes and seconds."""
    memory = stage.memory
    return {
        "name": stage.name,
        "method": stage.method,
        "profile": stage.profile,
        "ranks": stage.ranks,
        "done": stage.is_done,
        "parameters": stage.shape.parameters if stage.shape else None,
        "tokens": stage.tokens,
        "seconds": None if stage.seconds is None else round(stage.seconds, 1),
        "gpuHours": None if stage.gpu_hours is None else round(stage.gpu_hours, 3),
        "device": stage.device.name if stage.device else None,
        "deviceBytes": round(stage.device.memory) if stage.device and stage.device.memory else None,
        "memory": None
        if memory is None
        else {name: round(getattr(memory, name)) for name in (*memory.__slots__, "states", "total")},
        "unknown": list(stage.unknown),
    }


def total_document(total: Total) -> Json:
    """Sums for programs."""
    return {
        "gpuHours": round(total.gpu_hours, 3),
        "seconds": round(total.seconds, 1),
        "complete": total.is_complete,
    }


# --- gates ------------------------------------------------------------------------------------------------------


def gate_document(gate: Gate, truth: Truth) -> Json:
    """The power of one gate, what it asks one by one, and how many items it would take."""
    power = simulate(gate, truth)
    needed = items_needed(gate, truth) if power[-1] < POWER else gate.looks[-1]
    return {
        "name": gate.name,
        "looks": gate.looks,
        "power": [round(chance, 4) for chance in power],
        "alphaOfThisTry": try_alpha(gate.alpha, truth.tries),
        "tries": truth.tries,
        "asks": [_part_document(part) for part in parts(gate, truth)],
        "impossible": impossible(gate, truth),
        "itemsNeeded": needed,
    }


def _part_document(part: Part) -> Json:
    return {
        "axis": part.axis,
        "asks": part.asks,
        "effect": part.effect,
        "line": part.line,
        "chance": round(part.chance, 4),
        "itemsForFourInFive": part.items,
    }


def gate_lines(document: Json) -> list[str]:
    """The same as text: the answer first, then what it hangs on."""
    looks = ", ".join(
        f"{chance:.0%} by {items:,}" for chance, items in zip(document["power"], document["looks"], strict=True)
    )
    lines = [f"Gate {document['name']}, try {document['tries']}: passes {looks} items an axis."]
    for ask in document["asks"]:
        items = "no number of items shows it" if ask["itemsForFourInFive"] is None else ""
        items = items or f"{ask['itemsForFourInFive']:,} items for 80 %"
        lines.append(
            f"    {ask['axis']} must {ask['asks']} (line {ask['line']:+g}, truth {ask['effect']:+g}): "
            f"{ask['chance']:.0%} alone; {items}"
        )
    if document["power"][-1] < POWER:
        lines.append(f"    {_why(document)}")
    return lines


def _why(document: Json) -> str:
    if document["impossible"]:
        return f"Such a candidate does not pass, whatever the number of items: {document['impossible']}."
    weakest = min((a for a in document["asks"] if a["itemsForFourInFive"] is not None), key=lambda ask: ask["chance"])
    needed = document["itemsNeeded"]
    many = "more than a million items" if needed is None else f"about {needed:,} items an axis"
    return (
        f"Underpowered for this: the weakest is that {weakest['axis']} must {weakest['asks']} "
        f"({weakest['chance']:.0%}). It would take {many} at the last look for 80 %, a larger margin, or fewer wins."
    )


def truth_lines(truth: Truth) -> list[str]:
    """What the power of gates rests on."""
    spreads = "".join(f"; on {name} a difference has a deviation of {sd:g}" for name, sd in truth.spreads.items())
    anchors = "; anchors are as good as the baseline" if not truth.anchors else ""
    return [
        f"the arms differ on {truth.discordance:.0%} of the items that are right or wrong{spreads}{anchors}; items and "
        "axes are independent of each other (items in clusters tell less)"
    ]
