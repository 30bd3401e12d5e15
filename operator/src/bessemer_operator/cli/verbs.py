"""Commands about a pipeline that is there: status, report, retry, rerun-from, suspend, resume.

The verbs are annotations, as docs/contract.md says; what they mean is decided by reconcile.
"""

import tempfile
import webbrowser
from pathlib import Path
from typing import Any

from rich.console import Console

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from bessemer_operator.cli.board import board, condition_lines
from bessemer_operator.cli.listing import name_of
from bessemer_operator.cli.listing import show as listing_of
from bessemer_operator.cli.problems import EXIT_NOT_FOUND, EXIT_USAGE, UserError, as_yaml, printable, printable_json
from bessemer_operator.cli.storefile import read_file
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
    if output in {"json", "yaml"}:
        print(printable_json(obj) if output == "json" else as_yaml(obj))
    elif output == "name":
        print(name_of(obj))
    else:
        Console().print(board(pipeline, losses))
        if output == "wide":
            Console().print(condition_lines(pipeline))


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


async def show_all(target: Target, output: str, *, is_everywhere: bool) -> None:
    """Print every pipeline of the target's namespace, or of all, a line each."""
    async with opened(target) as cluster:
        listing = await cluster.list(KIND, None if is_everywhere else target.ref.namespace)
    listing_of(listing.items, output, is_everywhere=is_everywhere)


async def show_report(target: Target, save: str, *, is_opened: bool) -> None:
    """Print where the report is; save it to a file, or open it in a browser, where that is asked for."""
    async with opened(target) as cluster:
        pipeline = as_pipeline(await cluster.get(target.ref))
    url = pipeline.status.report
    if not url:
        message = f"{target.ref.name} has no report yet. {outcome(pipeline).sentence}"
        raise UserError(message, EXIT_NOT_FOUND)
    if not save and not is_opened:
        print(printable(url))
        return
    data = read_file(url)
    if data is None:
        raise UserError(printable(f"{url} is not there, as seen from here"), EXIT_NOT_FOUND)
    path = Path(save or Path(tempfile.mkdtemp(prefix="bessemer-")) / f"{target.ref.name}.html")
    path.write_bytes(data)
    print(printable(str(path)))
    if is_opened:
        webbrowser.open(path.resolve().as_uri())


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
