"""report: read what the store holds about a pipeline and write its HTML report. Judges nothing, changes no artifact.

What is missing in the store is left out of the report, which says so: a report of a failed pipeline is worth having.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bessemer_api.digest import sha256_digest
from bessemer_api.job import CompareReport, CompareTask, ReportTask
from bessemer_api.v1alpha1.evaluation import WorkStatus
from bessemer_api.v1alpha1.pipeline import ChannelSummary, GateSummary, PipelineSpec, StageSummary
from bessemer_api.v1alpha1.stage import StageSpec
from bessemer_trainer.channels import read_tries, try_identity
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.plots import Point
from bessemer_trainer.report import Comparison, Facts, Work, render
from bessemer_trainer.store import Store, run_key


def run(context: Context) -> Outcome:
    """Writes `reports/<pipeline>/<digest12>.html`. Raises PermanentError for a pipeline that can not be read."""
    task = context.spec.report
    assert task is not None  # noqa: S101 - __main__ has checked that the field of the verb is set
    try:
        facts = gather(context.store, task)
    except (ValidationError, KeyError, TypeError) as error:
        raise PermanentError("TaskInvalid", f"the pipeline can not be reported: {error}") from error
    page = render(facts).encode()
    key = f"reports/{facts.name}/{sha256_digest(page).removeprefix('sha256:')[:12]}.html"
    context.store.write(key, page)
    return Outcome(url=context.store.url(key))


def gather(store: Store, task: ReportTask) -> Facts:
    """The task and what the store knows about it."""
    metadata, status = task.pipeline["metadata"], task.pipeline["status"]
    rows = TypeAdapter(list[StageSummary]).validate_python(status.get("stages", []))
    comparisons = [found for report in task.comparisons if (found := _comparison(store, report))]
    return Facts(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        spec=PipelineSpec.model_validate(task.pipeline["spec"]),
        rows=rows,
        gates=TypeAdapter(list[GateSummary]).validate_python(status.get("gates", [])),
        channels=TypeAdapter(list[ChannelSummary]).validate_python(status.get("channels", [])),
        conditions=status.get("conditions", []),
        works=_in_order([_work(store, item, rows) for item in task.stages], rows),
        comparisons=comparisons,
        evaluations=[_evaluation(item) for item in task.evaluations],
        tries={
            item.digest: read_tries(store, item.task.channel, try_identity(item.task))
            for item in comparisons
            if item.task.channel is not None
        },
    )


def _in_order(works: Sequence[Work], rows: Sequence[StageSummary]) -> list[Work]:
    """In the order of the pipeline's status; what is not in it comes last."""
    places = {row.object: place for place, row in enumerate(rows)}
    return sorted(works, key=lambda work: (places.get(work.object, len(places)), work.object))


def _comparison(store: Store, report: Mapping[str, Any]) -> Comparison | None:
    """The stored evidence of one look; None when it is gone."""
    digest = report.get("outputDigest")
    if digest is None:
        return None
    try:
        document = json.loads((store.fetch(digest) / "evidence.json").read_bytes())
    except PermanentError:
        return None
    return Comparison(
        digest, CompareTask.model_validate(document["task"]), CompareReport.model_validate(document["report"])
    )


def _work(store: Store, item: Mapping[str, Any], rows: Sequence[StageSummary]) -> Work:
    spec, status = StageSpec.model_validate(item["spec"]), WorkStatus.model_validate(item.get("status") or {})
    name = item["metadata"]["name"]
    return Work(
        name=next((row.name for row in rows if row.object == name), name),
        object=name,
        input_digest=spec.input_digest,
        inputs=spec.inputs,
        status=status,
        meta=_meta(store, status.output_digest),
        losses=_losses(store.read(f"{run_key(spec.input_digest)}/metrics.jsonl")),
    )


def _meta(store: Store, digest: str | None) -> Mapping[str, Any]:
    try:
        return store.manifest(digest).meta if digest else {}
    except PermanentError:
        return {}


def _losses(data: bytes | None) -> list[Point]:
    """(tokens, loss) of every logged step; lines that can not be read are left out."""
    points = []
    for line in (data or b"").splitlines():
        try:
            document = json.loads(line)
            points.append((float(document["tokens"]), float(document["loss"])))
        except (ValueError, KeyError, TypeError):
            continue
    return points


def _evaluation(item: Mapping[str, Any]) -> dict[str, Any]:
    inputs, status = item["spec"]["inputs"], item.get("status") or {}
    return {
        "inputs": inputs,
        "phase": status.get("phase", "Pending"),
        "output": status.get("outputDigest"),
        "metrics": status.get("metrics", {}),
    }
