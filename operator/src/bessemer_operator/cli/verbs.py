"""Commands about a pipeline that is there: status, report, retry, rerun-from, suspend, resume.

The verbs are annotations, as docs/contract.md says; what they mean is decided by reconcile.
"""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from bessemer_operator.cli.board import board
from bessemer_operator.cli.problems import EXIT_NOT_FOUND, EXIT_USAGE, UserError, printable, printable_json
from bessemer_operator.cli.story import newest_losses, outcome
from bessemer_operator.cli.target import KIND, Target, as_pipeline, opened
from bessemer_operator.cluster.clock import utc_now
from bessemer_operator.cluster.protocol import Cluster, Ref
from bessemer_operator.core.merges import all_merges
from bessemer_operator.core.naming import ANNOTATION_RERUN, ANNOTATION_RETRY, ANNOTATION_SUSPEND

Json = dict[str, Any]


async def show_status(target: Target, output: str) -> None:
    """Print one pipeline."""
    async with opened(target) as cluster:
        obj = await cluster.get(target.ref)
        pipeline = as_pipeline(obj)
        losses = await find_losses(cluster, pipeline)
    if output == "json":
        print(printable_json(obj))
    else:
        Console().print(board(pipeline, losses))


async def find_losses(cluster: Cluster, pipeline: AdaptationPipeline) -> dict[str, float]:
    """The newest loss of each running stage, by the stage's name."""
    running = {row.object: row.name for row in pipeline.status.stages if row.phase == "Running"}
    if not running:
        return {}
    listing = await cluster.list("TrainingStage", pipeline.metadata.namespace)
    found = [(running.get(item["metadata"]["name"]), _metrics(item)) for item in listing.items]
    return newest_losses((name, metrics) for name, metrics in found if name is not None)


def _metrics(stage: Json) -> dict[str, float]:
    metrics: dict[str, float] = ((stage.get("status") or {}).get("progress") or {}).get("metrics") or {}
    return metrics


async def show_all(target: Target, output: str) -> None:
    """Print every pipeline of the target's namespace, a line each."""
    async with opened(target) as cluster:
        listing = await cluster.list(KIND, target.ref.namespace)
    if output == "json":
        print(printable_json(list(listing.items)))
        return
    table = Table(box=None, pad_edge=False, header_style="")
    for title in ("NAME", "STAGE", "PROGRESS", "GATE", "PROMOTED"):
        table.add_column(title, no_wrap=True)
    for obj in listing.items:
        status = obj.get("status") or {}
        words = [status.get(key) or "" for key in ("currentStage", "progress", "gate", "promoted")]
        table.add_row(Text(printable(obj["metadata"]["name"])), *(Text(printable(word)) for word in words))
    Console().print(table)


async def show_report(target: Target) -> None:
    """Print where the report is."""
    async with opened(target) as cluster:
        pipeline = as_pipeline(await cluster.get(target.ref))
    if not pipeline.status.report:
        message = f"{target.ref.name} has no report yet. {outcome(pipeline).sentence}"
        raise UserError(message, EXIT_NOT_FOUND)
    print(printable(pipeline.status.report))


async def retry(target: Target) -> None:
    """A fresh count of attempts for whatever failed."""
    await _annotate(target, {ANNOTATION_RETRY: new_token()}, "is tried again")


async def rerun_from(target: Target, stage: str) -> None:
    """Do a stage and everything after it again, even where a result is known."""
    async with opened(target) as cluster:
        pipeline = as_pipeline(await cluster.get(target.ref))
    names = [*(stage.name for stage in pipeline.spec.stages), *(merge.name for merge in all_merges(pipeline.spec))]
    if stage not in names:
        known = ", ".join(names) or "none"
        raise UserError(f"{target.ref.name} has no stage {printable(stage)}; its stages: {known}", EXIT_USAGE)
    await _annotate(target, {ANNOTATION_RERUN: f"{stage}/{new_token()}"}, f"is done again from {stage}")


async def suspend(target: Target) -> None:
    """Let running stages save and end; nothing new starts."""
    await _annotate(target, {ANNOTATION_SUSPEND: "true"}, "is suspended")


async def resume(target: Target) -> None:
    """Take the suspension by annotation back."""
    obj = await _annotate(target, {ANNOTATION_SUSPEND: None}, "goes on")
    if (obj.get("spec") or {}).get("suspend"):
        message = f"{target.ref.name} declares suspend: true itself; change that in its file and apply it"
        raise UserError(message, EXIT_USAGE)


def new_token() -> str:
    """A word that no earlier call gave."""
    return utc_now().strftime("%Y%m%dT%H%M%S.%f")


async def _annotate(target: Target, annotations: dict[str, str | None], done: str) -> Json:
    ref: Ref = target.ref
    async with opened(target) as cluster:
        obj = await cluster.patch_annotations(ref, annotations)
    then = f"; continue with: bessemer run {target.file}" if target.file else ""
    print(f"{ref.name} {done}{then}")
    return obj
