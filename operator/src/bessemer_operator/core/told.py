"""The HTML report of a pipeline: when there is something final to tell, and what its Job is told.

Pure. The task is the identity of the report's Job, so it holds nothing that changes by itself: no progress, no numbers
of attempts under way, no sentences about waiting. An unchanged pipeline has one report.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from bessemer_api.digest import input_digest
from bessemer_api.job import ReportTask
from bessemer_api.v1alpha1.evaluation import Evaluation
from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineStatus, StageSummary
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core import conditions as c
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.plan import Manifest, Observed
from bessemer_operator.core.standing import wait_of
from bessemer_operator.core.summary import find_problem, is_finished
from bessemer_operator.core.view import Scene, View

_Child = TypeVar("_Child", TrainingStage, MergeJob, Evaluation)
_OVER = {"Succeeded", "Failed"}
_ROW = {"name", "method", "object", "inputDigest", "outputDigest"}
_WHERE_GIVEN = ("candidates", "nomination", "diagnostics")
_CONDITIONS = {c.GATE_PASSED, c.PROMOTED, c.STALLED}


def report_state(scene: Scene, view: View, status: PipelineStatus, seen: Observed) -> WorkState | None:
    """State of the report's Job, once all is done or, after a problem, nothing runs any more; else None."""
    if view.resolve.report is None or scene.jobs.suspend or _is_told(scene, view):
        return None
    is_over = find_problem(scene.pipeline, view, status.stages) is not None or wait_of(view) is not None
    is_stuck = is_over and _is_quiet(scene, view, status.stages)
    if not is_stuck and not is_finished(scene.pipeline, view, status.stages):
        return None
    names = {row.object for row in status.stages}
    wanted = {input_digest(item) for item in view.measurements}
    compared = [state.report for run in view.gates.values() for state in run.states if state.report is not None]
    compared += [report for run in view.gates.values() for report in run.kept]
    task = ReportTask(
        pipeline=_document(scene.pipeline, status),
        stages=[_told(item) for item in _over(seen.stages) if item.metadata.name in names],
        merges=[_told(item) for item in _over(seen.merges) if item.metadata.name in names],
        evaluations=[
            _told(item)
            for item in _over(seen.evaluations)
            if item.spec.input_digest in wanted or _is_of_dev_items(item, status.stages)
        ],
        comparisons=[report.wire() for report in compared],
    )
    state, _ = scene.jobs.run("report", task)
    return state


def _is_told(scene: Scene, view: View) -> bool:
    """Whether the report of an earlier promotion still says all: a new one would lack its evidence, which is not
    looked up again.
    """
    promotion = scene.spec.promotion
    run = view.gates.get(promotion.gate) if promotion else None
    is_kept = run is not None and run.summary.evidence_digest is not None and not run.states and not run.kept
    return is_kept and bool(scene.pipeline.status.report)


def _is_of_dev_items(item: Evaluation, rows: Iterable[StageSummary]) -> bool:
    """Whether it measured dev items of a bank of this pipeline: what candidates are shown side by side by."""
    inputs = item.spec.inputs
    return inputs.part == "dev" and inputs.bank in {row.output_digest for row in rows if row.method == "bank"}


def _is_quiet(scene: Scene, view: View, rows: Iterable[StageSummary]) -> bool:
    """Whether nothing runs or is about to: other branches go on after a stage of one has failed."""
    found = [scene.evaluations.get(input_digest(item)) for item in view.measurements]
    return (
        all(row.phase in _OVER for row in rows if row.input_digest is not None)
        and all(item is not None and item.status.phase in _OVER for item in found)
        and all(state.phase in _OVER for state in view.job_states)
    )


def _over(items: Iterable[_Child]) -> list[_Child]:
    return [item for item in items if item.status.phase in _OVER]


def _document(pipeline: AdaptationPipeline, status: PipelineStatus) -> Manifest:
    document = status.wire()
    conditions = [item for item in document["conditions"] if item["type"] in _CONDITIONS]
    return {
        "metadata": {"name": pipeline.metadata.name, "namespace": pipeline.metadata.namespace},
        "spec": pipeline.spec.wire(),
        "status": {
            "conditions": [{key: item[key] for key in ("type", "status", "reason", "message")} for item in conditions],
            "stages": [_row(row) for row in document["stages"]],
            "gates": [_gate(gate) for gate in document["gates"]],
            "channels": document["channels"],
            **{key: document[key] for key in _WHERE_GIVEN if document.get(key)},
        },
    }


def _row(row: Manifest) -> Manifest:
    """A line of status.stages; of one that is not over only that it is not."""
    told = {key: value for key, value in row.items() if key in _ROW}
    if row["phase"] not in _OVER:
        return {**told, "phase": "Pending"}
    return {**told, "phase": row["phase"], "message": row["message"] if row["phase"] == "Failed" else ""}


def _gate(gate: Manifest) -> Manifest:
    if gate["verdict"] != "Pending":
        return gate
    return {"name": gate["name"], "verdict": "Pending", "reason": "Pending"}


def _told(item: TrainingStage | MergeJob | Evaluation) -> Manifest:
    status = item.status.model_copy(update={"conditions": [], "observed_generation": 0, "progress": None})
    spec: Mapping[str, object] = item.spec.wire()
    return {"metadata": {"name": item.metadata.name}, "spec": dict(spec), "status": status.wire()}
