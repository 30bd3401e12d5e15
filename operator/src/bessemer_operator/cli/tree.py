"""What `bessemer watch` draws: a pipeline as a tree of its work, with attempts, evaluations, gates, channels. Pure.

Text of users and pods is shown as it is, never as markup.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text
from rich.tree import Tree

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, StageSummary
from bessemer_operator.cli.board import channel_line, gate_block, stage_mark
from bessemer_operator.cli.problems import printable
from bessemer_operator.cli.story import outcome, row_words, span

Json = dict[str, Any]
BAR = 20


def tree(pipeline: AdaptationPipeline, children: Sequence[Json]) -> Tree:
    """The whole pipeline. `children` are its TrainingStages, MergeJobs and Evaluations."""
    status, by_name = pipeline.status, {item["metadata"]["name"]: item for item in children}
    head = Text(f"{pipeline.metadata.namespace}/{pipeline.metadata.name}", style="bold")
    head.append(f"  {outcome(pipeline).sentence}", "not bold")
    root = Tree(head, guide_style="dim")
    stages = root.add(Text(f"stages {status.progress}"))
    for row in status.stages:
        _add_stage(stages, row, by_name.get(row.object))
    _add_evaluations(root, children)
    for gate in status.gates:
        root.add(gate_block(gate))
    for channel in status.channels:
        root.add(channel_line(channel))
    if status.report:
        root.add(Text(printable(f"report {status.report}")))
    return root


def _add_stage(parent: Tree, row: StageSummary, child: Json | None) -> None:
    mark, style = stage_mark(row.phase)
    metrics = _progress(child).get("metrics") or {}
    words = ", ".join(row_words(row, metrics.get("loss")))
    line = Text.assemble((f"{mark} ", style), row.name, (f" {row.method} ", "dim"))
    line.append(bar(row.progress_percentage) + " " if row.phase == "Running" else "", "cyan")
    branch = parent.add(line.append(words, style))
    for item in _attempts(child):
        branch.add(_attempt(item))


def bar(percentage: int) -> str:
    """A bar of progress in characters, which every terminal and log has."""
    done = round(BAR * percentage / 100)
    return "█" * done + "░" * (BAR - done)


def _attempts(child: Json | None) -> list[Json]:
    """Attempts that say more than the line of their stage: several, or one that goes on or went wrong."""
    found: list[Json] = ((child or {}).get("status") or {}).get("attempts") or []
    return found if len(found) > 1 or any(item["outcome"] != "Succeeded" for item in found) else []


def _attempt(item: Json) -> Text:
    style = {"Running": "cyan", "Failed": "red", "Preempted": "yellow"}.get(item["outcome"], "dim")
    reason = item.get("reason") if item.get("reason") != item["outcome"] else ""
    why = " ".join(filter(None, (reason, item.get("message"))))
    return Text(printable(f"{item['name']} {item['outcome'].lower()} {why}".strip()), style)


def _progress(child: Json | None) -> Json:
    return ((child or {}).get("status") or {}).get("progress") or {}


def _add_evaluations(root: Tree, children: Sequence[Json]) -> None:
    found = [item for item in children if item["kind"] == "Evaluation"]
    if not found:
        return
    phases = [(item.get("status") or {}).get("phase") or "Pending" for item in found]
    branch = root.add(Text(f"evaluations {phases.count('Succeeded')}/{len(found)}"))
    for item, phase in zip(found, phases, strict=True):
        if phase == "Succeeded":
            continue
        mark, style = stage_mark(phase)
        progress, inputs = _progress(item), item["spec"]["inputs"]
        line = Text.assemble((f"{mark} ", style), printable(item["metadata"]["name"]))
        line.append(f" {inputs['part']} items {inputs['start']}-{inputs['end']} ", "dim")
        branch.add(line.append(_how_far(progress) if phase == "Running" else phase.lower(), style))


def _how_far(progress: Mapping[str, Any]) -> str:
    share, left = int(progress.get("progressPercentage") or 0), progress.get("estimatedRemainingSeconds")
    return f"{bar(share)} {share} %" + (f", {span(left)} left" if left is not None else "")
