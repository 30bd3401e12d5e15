"""From a ReportTask and the store to facts. Reads artifacts and logs; judges nothing.

What is missing in the store is left out. Of evaluations only those of dev items are opened: the results of gate items
stay with `compare`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bessemer_api.job import CompareReport, CompareTask, ReportTask
from bessemer_api.v1alpha1.diagnostic import DiagnosticSummary
from bessemer_api.v1alpha1.evaluation import WorkStatus
from bessemer_api.v1alpha1.merge import MergeSpec
from bessemer_api.v1alpha1.pipeline import ChannelSummary, GateSummary, PipelineSpec, StageSummary
from bessemer_api.v1alpha1.promotion import CandidateSummary, NominationSummary
from bessemer_api.v1alpha1.stage import StageSpec
from bessemer_trainer.channels import read_tries, try_identity
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.reporting.facts import Comparison, DevItem, Diagnosis, Facts, Work
from bessemer_trainer.store import Store, run_key


def gather(store: Store, task: ReportTask) -> Facts:
    """The task and what the store knows about it. Raises what pydantic raises for a pipeline that can not be read."""
    metadata, status = task.pipeline["metadata"], task.pipeline["status"]
    rows = TypeAdapter(list[StageSummary]).validate_python(status.get("stages", []))
    comparisons = [found for report in task.comparisons if (found := _comparison(store, report))]
    works = [*(_stage(store, item, rows) for item in task.stages), *(_merge(store, item, rows) for item in task.merges)]
    diagnostics = TypeAdapter(list[DiagnosticSummary]).validate_python(status.get("diagnostics", []))
    return Facts(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        spec=PipelineSpec.model_validate(task.pipeline["spec"]),
        rows=rows,
        gates=TypeAdapter(list[GateSummary]).validate_python(status.get("gates", [])),
        channels=TypeAdapter(list[ChannelSummary]).validate_python(status.get("channels", [])),
        conditions=status.get("conditions", []),
        works=_in_order(works, rows),
        comparisons=comparisons,
        evaluations=[_evaluation(item) for item in task.evaluations],
        tries={
            item.digest: read_tries(store, item.task.channel, try_identity(item.task))
            for item in comparisons
            if item.task.channel is not None
        },
        candidates=TypeAdapter(list[CandidateSummary]).validate_python(status.get("candidates", [])),
        nomination=TypeAdapter(NominationSummary | None).validate_python(status.get("nomination")),
        diagnostics=diagnostics,
        diagnoses=_diagnoses(store, diagnostics),
        dev=_dev_results(store, task.evaluations),
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


def _name_of(item: Mapping[str, Any], rows: Sequence[StageSummary]) -> tuple[str, str]:
    """Name in the pipeline, and name of the object."""
    name = item["metadata"]["name"]
    return next((row.name for row in rows if row.object == name), name), name


def _stage(store: Store, item: Mapping[str, Any], rows: Sequence[StageSummary]) -> Work:
    spec, status = StageSpec.model_validate(item["spec"]), WorkStatus.model_validate(item.get("status") or {})
    name, object_name = _name_of(item, rows)
    log = _log(store.read(f"{run_key(spec.input_digest)}/metrics.jsonl"))
    return Work(
        name=name,
        object=object_name,
        input_digest=spec.input_digest,
        inputs=spec.inputs,
        status=status,
        nodes=spec.nodes,
        meta=_meta(store, status.output_digest),
        log=log,
    )


def _merge(store: Store, item: Mapping[str, Any], rows: Sequence[StageSummary]) -> Work:
    spec, status = MergeSpec.model_validate(item["spec"]), WorkStatus.model_validate(item.get("status") or {})
    name, object_name = _name_of(item, rows)
    meta = _meta(store, status.output_digest)
    return Work(name, object_name, spec.input_digest, spec.inputs, status, meta=meta)


def _meta(store: Store, digest: str | None) -> Mapping[str, Any]:
    try:
        return store.manifest(digest).meta if digest else {}
    except PermanentError:
        return {}


def _log(data: bytes | None) -> list[dict[str, float]]:
    """The numbers of every logged step; lines that can not be read, or without tokens and loss, are left out."""
    found = []
    for line in (data or b"").splitlines():
        try:
            document = json.loads(line)
            entry = {key: float(value) for key, value in document.items() if _is_number(value)}
        except (ValueError, AttributeError):
            continue
        if {"tokens", "loss"} <= entry.keys():
            found.append(entry)
    return found


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < float("inf")  # type: ignore[arg-type] # NaN and infinities are no points


def _evaluation(item: Mapping[str, Any]) -> dict[str, Any]:
    inputs, status = item["spec"]["inputs"], item.get("status") or {}
    return {
        "inputs": inputs,
        "phase": status.get("phase", "Pending"),
        "output": status.get("outputDigest"),
        "metrics": status.get("metrics", {}),
    }


# --- dev items ------------------------------------------------------------------------------------------------------


def _dev_results(store: Store, evaluations: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[DevItem]]]:
    """Results on dev items by checkpoint and axis. An evaluation of gate items is never opened."""
    found: dict[str, dict[str, list[DevItem]]] = {}
    for item in sorted(evaluations, key=lambda item: int(item["spec"]["inputs"].get("start", 0))):
        inputs, output = item["spec"]["inputs"], (item.get("status") or {}).get("outputDigest")
        if inputs.get("part") != "dev" or output is None:
            continue
        axes = found.setdefault(inputs["checkpoint"], {})
        for axis in inputs["axes"]:
            axes.setdefault(axis["name"], []).extend(_dev_items(store, output, inputs["bank"], axis["name"]))
    return found


def _dev_items(store: Store, evaluation: str, bank: str, axis: str) -> list[DevItem]:
    try:
        results = _lines(store.fetch(evaluation) / f"samples_{axis}.jsonl")
        items = {item["id"]: item for item in _lines(store.fetch(bank) / f"{axis}.dev.jsonl")}
    except PermanentError:
        return []
    return [
        DevItem(str(r["id"]), float(r["score"]), r.get("cluster"), r, items.get(r["id"], {}))
        for r in results
        if "id" in r
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]


def _diagnoses(store: Store, diagnostics: Sequence[DiagnosticSummary]) -> list[Diagnosis]:
    """The stored figures behind the findings, each artifact once."""
    subjects = {item.evidence_digest: item.subject for item in diagnostics if item.evidence_digest}
    found = []
    for digest, subject in subjects.items():
        try:
            document = json.loads((store.fetch(digest) / "diagnosis.json").read_bytes())
        except (PermanentError, OSError):
            continue
        found.append(Diagnosis(digest, subject, document.get("figures", {})))
    return found
