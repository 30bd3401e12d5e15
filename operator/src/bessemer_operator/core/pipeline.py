"""reconcile(AdaptationPipeline): the children that shall be, the status that is, the events that tell the story."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineStatus
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core import conditions as c
from bessemer_operator.core.approval import bad_approval
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.budget import over_budget
from bessemer_operator.core.children import (
    changed_children,
    outdated_children,
    outdated_jobs,
    suspended_children,
    unfinished_jobs,
    wanted_children,
    with_its_config,
    work_by_digest,
)
from bessemer_operator.core.diagnosing import Diagnosis, diagnose, summaries
from bessemer_operator.core.events import find_events
from bessemer_operator.core.jobs import PipelineJobs
from bessemer_operator.core.lineage import names_of_work
from bessemer_operator.core.lint import errors
from bessemer_operator.core.naming import ANNOTATION_REFRESH, ANNOTATION_RERUN, ANNOTATION_RETRY, ANNOTATION_SUSPEND
from bessemer_operator.core.plan import Annotation, Observed, Plan
from bessemer_operator.core.release import with_release
from bessemer_operator.core.rollback import bad_rollback, rollback_task
from bessemer_operator.core.summary import is_suspended, summarise
from bessemer_operator.core.told import report_state
from bessemer_operator.core.view import MAX_MOVES, Scene, View, evaluations_by_digest, look

_TOKEN = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def reconcile(pipeline: AdaptationPipeline, seen: Observed, now: datetime) -> Plan:
    """What to do about one pipeline, from everything that was observed of it."""
    if pipeline.metadata.deletion_timestamp is not None:
        return Plan(status=pipeline.status.wire())
    problem = find_invalid(pipeline, seen)
    if problem is not None:
        return _refuse(pipeline, seen, problem, now)
    scene = _scene(pipeline, seen, now)
    view, kept = with_release(scene, look(scene, 0)), _kept(())
    for epoch in range(1, MAX_MOVES):
        if not view.baseline_moved:
            break
        kept += _kept(view.job_states)
        view = with_release(scene, look(scene, epoch))
    dear = over_budget(pipeline.spec, seen.profiles, view.nodes, seen.stages) if view.resolve.report else ""
    if dear:
        return replace(_refuse(pipeline, seen, ("BudgetExceeded", dear), now), annotate=kept + _kept(view.job_states))
    plan = _plan(scene, view, seen, now)
    return replace(plan, annotate=kept + plan.annotate)


def _kept(states: Iterable[WorkState]) -> tuple[Annotation, ...]:
    return tuple(item for state in states for item in state.annotate)


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
    if notes.get(ANNOTATION_SUSPEND, "false") not in {"true", "false"}:
        return "InvalidAnnotation", f'{ANNOTATION_SUSPEND}: expected "true" or "false"'
    spoken = bad_approval(notes) or bad_rollback(notes, pipeline.spec)
    if spoken is not None:
        return "InvalidAnnotation", spoken
    if ANNOTATION_RERUN in notes:
        name, _, token = notes[ANNOTATION_RERUN].partition("/")
        if name not in names_of_work(pipeline.spec):
            return "InvalidAnnotation", f"{ANNOTATION_RERUN}: there is no stage or merge {name[:64]!r}"
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
        late=tuple(pipeline.status.late),
    )
    outputs = {
        stage.spec.input_digest: stage.status.output_digest
        for stage in seen.work
        if stage.status.phase == "Succeeded" and stage.status.output_digest is not None
    }
    return Scene(
        pipeline=pipeline,
        jobs=jobs,
        outputs=outputs,
        evaluations=evaluations_by_digest(seen.evaluations),
        rerun=(name, token or "1") if name else None,
        refresh=notes.get(ANNOTATION_REFRESH, ""),
        failed={item.spec.input_digest: _said(item) for item in seen.work if item.status.phase == "Failed"},
        rollback=rollback_task(pipeline),
    )


def _said(item: TrainingStage | MergeJob) -> str:
    ready = c.find(item.status.conditions, c.READY)
    return f"{ready.reason}: {ready.message}" if ready is not None else "it failed"


def _refuse(pipeline: AdaptationPipeline, seen: Observed, why: tuple[str, str], now: datetime) -> Plan:
    """Says so, and ends what the pipeline still runs itself: a promotion must not outlive what declared it."""
    reason, message = why
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
    gone = tuple(unfinished_jobs(pipeline, seen, ()))
    return Plan(status=status.wire(), delete=gone, events=find_events(pipeline.status, status))


def _refresh_of(pipeline: AdaptationPipeline) -> str:
    token = pipeline.metadata.annotations.get(ANNOTATION_REFRESH, "")
    return token if _TOKEN.fullmatch(token) else ""


def _plan(scene: Scene, view: View, seen: Observed, now: datetime) -> Plan:
    wanted = wanted_children(scene, view)
    work = work_by_digest(wanted, seen)
    found = _diagnoses(scene, view, seen)
    before = _with_findings(scene, view, summarise(scene, view, work, None, now), found)
    report = report_state(scene, view, before, seen) if all(item.is_over for item in found) else None
    status = before
    if report is not None:
        status = _with_findings(scene, view, summarise(scene, view, work, report, now), found)
    states = (*view.job_states, *(item.state for item in found), *((report,) if report else ()))
    is_known = view.resolve.report is not None
    stop = suspended_children(scene, wanted, seen) if is_known or scene.jobs.suspend else ()
    return Plan(
        status=status.wire(),
        create=tuple(item for state in states for item in state.create),
        annotate=_kept(states),
        apply=(*changed_children(wanted, seen), *stop),
        delete=(
            *(ref for state in states for job in state.delete for ref in with_its_config(job)),
            *unfinished_jobs(scene.pipeline, seen, states),
            *(outdated_children(scene, wanted, seen) if is_known else ()),
            *(outdated_jobs(scene.pipeline, seen, states) if is_known else ()),
        ),
        events=find_events(scene.pipeline.status, status),
        requeue=_soonest(states, view),
    )


def _diagnoses(scene: Scene, view: View, seen: Observed) -> tuple[Diagnosis, ...]:
    """Diagnoses run where checkpoints are measured."""
    profile = seen.profiles[scene.spec.profiles.evaluate]
    return diagnose(scene.spec, view.nodes, replace(scene.jobs, profile=profile))


def _with_findings(scene: Scene, view: View, status: PipelineStatus, found: Sequence[Diagnosis]) -> PipelineStatus:
    """With what the diagnoses found; while the world is read again, with what was known."""
    is_known = view.resolve.report is not None
    lines = summaries(found) if is_known else scene.pipeline.status.diagnostics
    return status.model_copy(update={"diagnostics": lines})


def _soonest(states: Iterable[WorkState], view: View) -> timedelta | None:
    waits = [state.requeue for state in states]
    waits += [item.requeue for item in (view.release,) if item] + [item.due for item in (view.undoing,) if item]
    return min((wait for wait in waits if wait is not None), default=None)
