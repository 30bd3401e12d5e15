"""What a terminal shows of a pipeline: stages with progress, gates with their axes, channels. Pure.

Text of users and pods is shown as it is, never as markup.
"""

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, AxisSummary, ChannelSummary, GateSummary, StageSummary
from bessemer_api.v1alpha1.promotion import CandidateSummary
from bessemer_operator.cli.problems import printable
from bessemer_operator.cli.story import outcome, row_words

_MARKS = {"Pending": ("·", "dim"), "Running": ("▶", "cyan"), "Succeeded": ("✓", "green"), "Failed": ("✗", "red")}
_VERDICTS = {"Passed": "green", "Failed": "red", "Invalid": "red", "Error": "red", "Inconclusive": "yellow"}
_STATES = {"Won": "green", "Holds": "green", "Worse": "red", "NotShown": "yellow"}


def board(pipeline: AdaptationPipeline, losses: Mapping[str, float] | None = None) -> RenderableType:
    """Everything about a pipeline on one screen. `losses`: newest loss by stage."""
    status = pipeline.status
    head = Text(f"{pipeline.metadata.namespace}/{pipeline.metadata.name}", style="bold")
    parts: list[RenderableType] = [head, _stages(status.stages, losses or {})]
    parts += [_candidates(status.candidates)] if status.candidates else []
    parts += [gate_block(gate) for gate in status.gates]
    parts += [channel_line(channel) for channel in status.channels]
    parts.append(Text(outcome(pipeline).sentence))
    if status.report:
        parts.append(Text(printable(f"Report: {status.report}")))
    return Group(*parts)


def condition_lines(pipeline: AdaptationPipeline) -> Table:
    """The conditions, for whoever wants to see all."""
    table = Table.grid(padding=(0, 2))
    for item in pipeline.status.conditions:
        table.add_row(Text(item.type), Text(item.status), Text(item.reason), Text(printable(item.message)))
    return table


def stage_mark(phase: str) -> tuple[str, str]:
    """Sign and style of a phase."""
    return _MARKS.get(phase, ("‖", "yellow"))


def _stages(rows: list[StageSummary], losses: Mapping[str, float]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, width=16)
    table.add_column(overflow="fold")
    for row in rows:
        mark, style = stage_mark(row.phase)
        bar: RenderableType = ""
        if row.phase == "Running":
            bar = ProgressBar(total=100, completed=row.progress_percentage, width=16)
        words = ", ".join(row_words(row, losses.get(row.name)))
        table.add_row(
            Text(mark, style), Text(printable(row.name)), Text(printable(row.method), "dim"), bar, Text(words, style)
        )
    return table


def _candidates(rows: list[CandidateSummary]) -> Table:
    """Candidates with their differences on the dev items."""
    table = Table.grid(padding=(0, 2))
    for row in rows:
        style = {"Nominee": "green", "Failed": "red", "Held": "yellow"}.get(row.state, "dim")
        deltas = ", ".join(f"{axis.name} {axis.delta:+.4f}" for axis in row.axes)
        table.add_row(Text(f"Candidate {row.name}"), Text(row.state, style), Text(printable(row.message or deltas)))
    return table


def gate_block(gate: GateSummary) -> RenderableType:
    """A verdict, and under it its axes."""
    look = f" at look {gate.look}, try {gate.tries}" if gate.look else ""
    head = Text.assemble(f"Gate {gate.name}: ", (gate.verdict, _VERDICTS.get(gate.verdict, "cyan")), f"{look}. ")
    head.append(printable(gate.message), "dim")
    return Group(head, _axes(gate.axes)) if gate.axes else head


def _axes(axes: list[AxisSummary]) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(5):
        table.add_column(no_wrap=True)
    for axis in axes:
        low, high = axis.interval
        table.add_row(
            Text(f"  {axis.name}"),
            Text(f"n {axis.n}", "dim"),
            Text(f"{axis.delta:+.4f}"),
            Text(f"[{low:+.4f}, {high:+.4f}]", "dim"),
            Text(axis.state, _STATES.get(axis.state, "")),
        )
    return table


def channel_line(channel: ChannelSummary) -> Text:
    """What a channel holds."""
    words = f"record {channel.record}, {channel.digest}, {channel.at}" if channel.digest else "empty"
    by = f", {channel.kind} by {channel.by}" if channel.kind and channel.by else ""
    soak = f"; next at {channel.soaks_until}" if channel.soaks_until else ""
    held = f"; held: {', '.join(channel.held)}" if channel.held else ""
    return Text(printable(f"Channel {channel.name}: {words}{by}{soak}{held}"))
