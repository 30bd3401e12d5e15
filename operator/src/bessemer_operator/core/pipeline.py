"""reconcile(AdaptationPipeline): the children that shall be, the status that is, the events that tell the story."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Literal

from bessemer_api import API_VERSION
from bessemer_api.base import Model
from bessemer_api.digest import input_digest
from bessemer_api.job import ReportTask
from bessemer_api.v1alpha1.evaluation import Evaluation, EvaluationInputs, EvaluationSpec
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineStatus
from bessemer_api.v1alpha1.stage import StageSpec, TrainingStage
from bessemer_operator.core import conditions as c
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.jobs import PipelineJobs
from bessemer_operator.core.lineage import Node
from bessemer_operator.core.lint import errors
from bessemer_operator.core.manifests.attempt import Owner
from bessemer_operator.core.naming import (
    ANNOTATION_REFRESH,
    ANNOTATION_RERUN,
    ANNOTATION_RETRY,
    LABEL_PIPELINE,
    LABEL_STAGE,
    label_value,
    work_name,
)
from bessemer_operator.core.plan import Event, Manifest, Observed, Plan, Ref
from bessemer_operator.core.summary import ANNOTATION_GENERATION, find_problem, is_finished, is_suspended, summarise
from bessemer_operator.core.view import Scene, View, evaluations_by_digest, look

MAX_MOVES = 10
"""How often a gate is started again because the channel's head moved under it."""
_TOKEN = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def reconcile(pipeline: AdaptationPipeline, seen: Observed, now: datetime) -> Plan:
    """What to do about one pipeline, from everything that was observed of it."""
    if pipeline.metadata.deletion_timestamp is not None:
        return Plan(status=pipeline.status.wire())
    problem = find_invalid(pipeline, seen)
    if problem is not None:
        return _refuse(pipeline, *problem, now)
    scene = _scene(pipeline, seen, now)
    view = look(scene, 0)
    for epoch in range(1, MAX_MOVES):
        if not view.baseline_moved:
            break
        view = look(scene, epoch)
    return _plan(scene, view, seen, now)


def find_invalid(pipeline: AdaptationPipeline, seen: Observed) -> tuple[str, str] | None:
    """Reason and message of what makes the declaration unusable."""
    found = errors(pipeline.spec, seen.profiles)
    if found:
        return "InvalidSpec", "; ".join(str(finding) for finding in found[:5])
    return _bad_annotation(pipeline)


def _bad_annotation(pipeline: AdaptationPipeline) -> tuple[str, str] | None:
    notes = pipeline.metadata.annotations
    for key in (ANNOTATION_RETRY, ANNOTATION_REFRESH):
        if key in notes and not _TOKEN.fullmatch(notes[key]):
            return "InvalidAnnotation", f"{key}: expected a word of letters, digits, . _ : -, at most 64 characters"
    if ANNOTATION_RERUN in notes:
        name, _, token = notes[ANNOTATION_RERUN].partition("/")
        if name not in {stage.name for stage in pipeline.spec.stages}:
            return "InvalidAnnotation", f"{ANNOTATION_RERUN}: there is no stage {name[:64]!r}"
        if not _TOKEN.fullmatch(token or "1"):
            return "InvalidAnnotation", f"{ANNOTATION_RERUN}: expected <stage> or <stage>/<word>"
    return None


def _scene(pipeline: AdaptationPipeline, seen: Observed, now: datetime) -> Scene:
    notes = pipeline.metadata.annotations
    name, _, token = notes.get(ANNOTATION_RERUN, "").partition("/")
    jobs = PipelineJobs(
        metadata=pipeline.metadata,
        store=pipeline.spec.store,
        profile=seen.profiles[pipeline.spec.profiles.promote],
        seen=seen,
        now=now,
        retry=notes.get(ANNOTATION_RETRY, ""),
        suspend=is_suspended(pipeline),
    )
    outputs = {
        stage.spec.input_digest: stage.status.output_digest
        for stage in seen.stages
        if stage.status.phase == "Succeeded" and stage.status.output_digest is not None
    }
    return Scene(
        pipeline=pipeline,
        jobs=jobs,
        outputs=outputs,
        evaluations=evaluations_by_digest(seen.evaluations),
        rerun=(name, token or "1") if name else None,
        refresh=notes.get(ANNOTATION_REFRESH, ""),
    )


def _refuse(pipeline: AdaptationPipeline, reason: str, message: str, now: datetime) -> Plan:
    at = (now, pipeline.metadata.generation)
    wanted = [
        c.condition(c.READY, False, reason, message, at),
        c.condition(c.RECONCILING, False, reason, "", at),
        c.condition(c.STALLED, True, reason, message, at),
    ]
    others = [item for item in pipeline.status.conditions if item.type not in {c.READY, c.RECONCILING, c.STALLED}]
    status = pipeline.status.model_copy(
        update={
            "observed_generation": pipeline.metadata.generation,
            "conditions": [*c.set_conditions(pipeline.status.conditions, wanted), *others],
            "current_stage": reason,
            "observed_refresh": _refresh_of(pipeline),
        }
    )
    return Plan(status=status.wire(), events=_events(pipeline.status, status))


def _refresh_of(pipeline: AdaptationPipeline) -> str:
    token = pipeline.metadata.annotations.get(ANNOTATION_REFRESH, "")
    return token if _TOKEN.fullmatch(token) else ""


def _plan(scene: Scene, view: View, seen: Observed, now: datetime) -> Plan:
    stages = {item.spec.input_digest: item for item in seen.stages}
    before = summarise(scene.pipeline, view, stages, None, now)
    report = _report(scene, view, before, seen)
    status = summarise(scene.pipeline, view, stages, report, now) if report else before
    states = (*view.job_states, *((report,) if report else ()))
    wanted_stages = [_stage_manifest(scene, node) for node in view.nodes.values() if node.inputs is not None]
    wanted_evaluations = [
        _evaluation_manifest(scene, item) for item in _unique(i for run in view.gates.values() for i in run.wanted)
    ]
    is_known = view.resolve.report is not None
    return Plan(
        status=status.wire(),
        create=tuple(item for state in states for item in state.create),
        apply=(
            *_changed(wanted_stages, seen.stages, TrainingStage),
            *_changed(wanted_evaluations, seen.evaluations, Evaluation),
            *(_suspended(scene, stages.values(), wanted_stages) if is_known else ()),
        ),
        delete=(
            *(ref for state in states for ref in state.delete),
            *(_outdated(scene, seen, [*wanted_stages, *wanted_evaluations], states) if is_known else ()),
        ),
        events=_events(scene.pipeline.status, status),
        requeue=_soonest(states),
    )


def _unique(inputs: Iterable[EvaluationInputs]) -> list[EvaluationInputs]:
    return list({input_digest(item): item for item in inputs}.values())


def _soonest(states: Iterable[WorkState]) -> timedelta | None:
    return min((state.requeue for state in states if state.requeue is not None), default=None)


def _owner(pipeline: AdaptationPipeline) -> Owner:
    metadata = pipeline.metadata
    return Owner(API_VERSION, "AdaptationPipeline", metadata.namespace, metadata.name, metadata.uid)


def _child(scene: Scene, kind: str, part: str, digest: str, spec: Model) -> Manifest:
    metadata = scene.pipeline.metadata
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": work_name(metadata.name, part, digest),
            "namespace": metadata.namespace,
            "labels": {LABEL_PIPELINE: label_value(metadata.name), LABEL_STAGE: part},
            "annotations": {ANNOTATION_GENERATION: str(metadata.generation)},
            "ownerReferences": [_owner(scene.pipeline).reference()],
        },
        "spec": spec.wire(),
    }


def _stage_manifest(scene: Scene, node: Node) -> Manifest:
    spec = StageSpec.model_validate(
        {
            "store": scene.spec.store,
            "inputs": node.inputs,
            "input_digest": node.digest,
            "profile": node.profile,
            "suspend": scene.jobs.suspend,
            "retry": scene.jobs.retry,
            **node.settings,
        }
    )
    return _child(scene, "TrainingStage", node.name, node.digest or "", spec)


def _evaluation_manifest(scene: Scene, inputs: EvaluationInputs) -> Manifest:
    digest = input_digest(inputs)
    spec = EvaluationSpec(
        store=scene.spec.store,
        inputs=inputs,
        input_digest=digest,
        profile=scene.spec.profiles.evaluate,
        suspend=scene.jobs.suspend,
        retry=scene.jobs.retry,
    )
    return _child(scene, "Evaluation", "eval", digest, spec)


def _changed(
    wanted: list[Manifest], seen: Iterable[TrainingStage | Evaluation], model: type[TrainingStage] | type[Evaluation]
) -> list[Manifest]:
    """What is missing or differs; the generation under which a child was made stays as it was."""
    known = {item.metadata.name: item for item in seen}
    found = []
    for manifest in wanted:
        old = known.get(manifest["metadata"]["name"])
        if old is None:
            found.append(manifest)
        elif model.model_validate(manifest).spec != old.spec:
            found.append(_with_generation_of(manifest, old))
    return found


def _with_generation_of(manifest: Manifest, old: TrainingStage | Evaluation) -> Manifest:
    generation = old.metadata.annotations.get(ANNOTATION_GENERATION, "0")
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": {ANNOTATION_GENERATION: generation}}}


def _suspended(scene: Scene, seen: Iterable[TrainingStage], wanted: list[Manifest]) -> list[Manifest]:
    """Unfinished stages that the declaration no longer asks for: they save and end, and go on if it asks again."""
    names = {manifest["metadata"]["name"] for manifest in wanted}
    superseded = [
        item
        for item in seen
        if item.metadata.name not in names
        and not item.spec.suspend
        and item.status.phase not in {"Succeeded", "Failed"}
    ]
    return [_restate(scene, item) for item in superseded]


def _restate(scene: Scene, stage: TrainingStage) -> Manifest:
    """The child as it is, suspended. Server-side apply needs all of it: what is left out would be removed."""
    part = stage.metadata.labels.get(LABEL_STAGE, "")
    spec = stage.spec.model_copy(update={"suspend": True})
    manifest = _child(scene, "TrainingStage", part, stage.spec.input_digest, spec)
    return _with_generation_of({**manifest, "metadata": {**manifest["metadata"], "name": stage.metadata.name}}, stage)


def _outdated(scene: Scene, seen: Observed, wanted: list[Manifest], states: Iterable[WorkState]) -> list[Ref]:
    """Superseded children beyond the history limit, oldest first to go; artifacts in the store stay."""
    limit = scene.spec.revision_history_limit
    names = {manifest["metadata"]["name"] for manifest in wanted}
    found: list[Ref] = []
    groups: list[tuple[str, Iterable[TrainingStage | Evaluation]]] = [
        ("TrainingStage", seen.stages),
        ("Evaluation", seen.evaluations),
    ]
    for kind, items in groups:
        old = [i.metadata for i in items if i.metadata.name not in names and i.status.phase in {"Succeeded", "Failed"}]
        old.sort(key=lambda item: (item.creation_timestamp, item.name), reverse=True)
        found += [Ref(kind, item.namespace, item.name, item.uid) for item in old[limit * len(names) :]]
    return [*found, *_outdated_jobs(scene, seen, {item.name for state in states for item in state.attempts})]


def _outdated_jobs(scene: Scene, seen: Observed, used: set[str]) -> list[Ref]:
    uid, limit = scene.pipeline.metadata.uid, scene.spec.revision_history_limit
    old = [
        job["metadata"]
        for job in seen.jobs
        if job["metadata"]["name"] not in used
        and any(owner.get("uid") == uid for owner in job["metadata"].get("ownerReferences") or [])
    ]
    old.sort(key=lambda item: (item.get("creationTimestamp", ""), item["name"]), reverse=True)
    keep = limit * 4  # resolve, compare, promote and report of each revision
    return [Ref("Job", item["namespace"], item["name"], item.get("uid", "")) for item in old[keep:]]


def _report(scene: Scene, view: View, status: PipelineStatus, seen: Observed) -> WorkState | None:
    """The HTML report, once there is something final to tell."""
    is_over = find_problem(view, status.stages) is not None or is_finished(scene.pipeline, view, status.stages)
    if _is_told(scene, view):
        return None
    if not is_over or view.resolve.report is None or scene.jobs.suspend:
        return None
    digests = {node.digest for node in view.nodes.values()}
    wanted = {input_digest(item) for run in view.gates.values() for item in run.wanted}
    compared = [state.report for run in view.gates.values() for state in run.states if state.report is not None]
    task = ReportTask(
        pipeline=_report_document(scene.pipeline, status),
        stages=[_told(item) for item in seen.stages if item.spec.input_digest in digests],
        evaluations=[_told(item) for item in seen.evaluations if item.spec.input_digest in wanted],
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
    is_kept = run is not None and run.summary.evidence_digest is not None and not run.states
    return is_kept and bool(scene.pipeline.status.report)


def _report_document(pipeline: AdaptationPipeline, status: PipelineStatus) -> Manifest:
    """The pipeline without what changes by itself, so that an unchanged pipeline has an unchanged report."""
    document = status.wire()
    told = [item for item in document["conditions"] if item["type"] in {c.GATE_PASSED, c.PROMOTED, c.STALLED}]
    shown = {key: value for key, value in document.items() if key not in {"report", "observedGeneration"}}
    conditions = [{k: v for k, v in item.items() if k in {"type", "status", "reason", "message"}} for item in told]
    rows = [{k: v for k, v in row.items() if k != "reused"} for row in document["stages"]]
    metadata = {"name": pipeline.metadata.name, "namespace": pipeline.metadata.namespace}
    return {
        "metadata": metadata,
        "spec": pipeline.spec.wire(),
        "status": {**shown, "conditions": conditions, "stages": rows},
    }


def _told(item: TrainingStage | Evaluation) -> Manifest:
    status = item.status.model_copy(update={"conditions": [], "observed_generation": 0, "progress": None})
    spec: Mapping[str, object] = item.spec.wire()
    return {"metadata": {"name": item.metadata.name}, "spec": dict(spec), "status": status.wire()}


def _events(before: PipelineStatus, after: PipelineStatus) -> tuple[Event, ...]:
    """What changed since the last status, as a story."""
    old_rows = {row.name: row for row in before.stages}
    told = []
    for row in after.stages:
        known = old_rows.get(row.name)
        if row.phase in {"Succeeded", "Failed"} and (known is None or known.phase != row.phase):
            kind = _level(row.phase == "Succeeded")
            text = f"{row.name}: {'reused' if row.reused else row.phase.lower()} {row.message}"
            told.append(Event(kind, f"Stage{row.phase}", text.strip()))
    verdicts = {gate.name: (gate.verdict, gate.look) for gate in before.gates}
    for gate in after.gates:
        if gate.verdict != "Pending" and verdicts.get(gate.name) != (gate.verdict, gate.look):
            kind = _level(gate.verdict == "Passed")
            told.append(Event(kind, f"Gate{gate.verdict}", f"{gate.name}: {gate.message}"))
    return (*told, *_condition_events(before, after))


def _level(is_good: bool) -> Literal["Normal", "Warning"]:
    return "Normal" if is_good else "Warning"


def _condition_events(before: PipelineStatus, after: PipelineStatus) -> list[Event]:
    told = []
    for name in (c.PROMOTED, c.STALLED):
        old, new = c.find(before.conditions, name), c.find(after.conditions, name)
        if new is not None and new.status == "True" and (old is None or old.status != "True"):
            told.append(Event(_level(name == c.PROMOTED), new.reason, new.message or new.reason))
    return told
