"""The status of a pipeline from a View: stages, gates, channels, conditions. Decides nothing that is done."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from bessemer_api.base import Condition
from bessemer_api.v1alpha1.evaluation import Attempt
from bessemer_api.v1alpha1.merge import MergeJob, MergeSummary
from bessemer_api.v1alpha1.pipeline import (
    AdaptationPipeline,
    ChannelSummary,
    GateSummary,
    PipelineStatus,
    StageSummary,
)
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core import conditions as c
from bessemer_operator.core.attempts import LATE, WorkState
from bessemer_operator.core.lineage import Node
from bessemer_operator.core.naming import ANNOTATION_REFRESH, ANNOTATION_SUSPEND, short
from bessemer_operator.core.standing import (
    GATE_WORDS,
    channel_summaries,
    find_candidates,
    find_nomination,
    find_rollback,
    is_decided_otherwise,
    is_going_back,
    is_promoted,
    promoted_words,
    promotion_problem,
    rollback_condition,
    wait_of,
)
from bessemer_operator.core.view import Scene, View

ANNOTATION_GENERATION = "bessemer.dev/generation"
"""Generation of the pipeline for which a child was made."""


def summarise(
    scene: Scene,
    view: View,
    work: Mapping[str, TrainingStage | MergeJob],
    report: WorkState | None,
    now: datetime,
) -> PipelineStatus:
    """The whole status. `work` holds observed stages and merges by input digest; `report` is the report Job's state."""
    pipeline = scene.pipeline
    rows = _rows(pipeline, view, work)
    gates = _gates(pipeline, view)
    problem = find_problem(pipeline, view, rows)
    at = (now, pipeline.metadata.generation)
    rollback = find_rollback(scene, view)
    channels = channel_summaries(pipeline, view, rollback)
    shown = problem or _overdue(scene, view, work)
    wanted = [
        *_conditions(pipeline, view, rows, shown, at, report),
        *_kept_milestones(pipeline, view, _milestones(pipeline, view, rows, at), channels, at),
        *rollback_condition(view, rollback, at),
    ]
    current = next((row for row in rows if row.phase == "Running"), None)
    done = sum(row.phase == "Succeeded" for row in rows)
    first = _first_channel(pipeline, channels)
    return PipelineStatus(
        observed_generation=pipeline.metadata.generation,
        conditions=c.set_conditions(pipeline.status.conditions, wanted),
        stages=rows,
        gates=gates,
        merges=_merges(pipeline, view),
        candidates=find_candidates(pipeline, view),
        nomination=find_nomination(pipeline, view),
        channels=channels,
        rollback=rollback,
        late=_late((*view.job_states, *((report,) if report else ()))),
        observed_refresh=pipeline.metadata.annotations.get(ANNOTATION_REFRESH, ""),
        current_stage=current.name if current else _phase_word(view, problem),
        progress=f"{done}/{len(rows)}",
        gate=_release_gate(pipeline, gates),
        promoted=short(first.digest, 12) if first and first.digest else "",
        report=_report_url(pipeline, report),
    )


def _overdue(scene: Scene, view: View, work: Mapping[str, TrainingStage | MergeJob]) -> tuple[str, str] | None:
    """Reason and message of the first work whose pod waits too long. It stops nothing: the pod may still be placed."""
    names = {item.metadata.name: node.name for node in view.nodes.values() if (item := work.get(node.digest or ""))}
    for child in (*work.values(), *scene.evaluations.values()):
        found = c.find(child.status.conditions, c.STALLED)
        if child.status.phase == "Running" and found is not None and found.status == "True":
            return found.reason, f"{names.get(child.metadata.name, child.metadata.name)}: {found.message}"
    late = next((state for state in view.job_states if state.is_overdue), None)
    return (late.reason, f"{late.attempts[-1].name}: {late.message}") if late else None


def _report_url(pipeline: AdaptationPipeline, report: WorkState | None) -> str:
    """While work runs, the last one; never an old one beside a decision that it does not tell of."""
    if report is None:
        return pipeline.status.report
    return report.report.url if report.report is not None else ""


def _late(states: Iterable[WorkState]) -> list[Attempt]:
    """Attempts of the pipeline's own Jobs that a deadline ended: their Jobs are gone, so this is where they count."""
    return [item for state in states for item in state.attempts if item.reason == LATE][-32:]


def _first_channel(pipeline: AdaptationPipeline, channels: list[ChannelSummary]) -> ChannelSummary | None:
    """The channel that is shown in one line: the last one that is promoted to and holds something, else any."""
    names = [channel.name for channel in pipeline.spec.promotion.channels] if pipeline.spec.promotion else []
    found = [item for name in reversed(names) for item in channels if item.name == name and item.digest]
    return next(iter([*found, *channels]), None)


def is_suspended(pipeline: AdaptationPipeline) -> bool:
    """By its spec, or by annotation (which a GitOps tool does not revert)."""
    return pipeline.spec.suspend or pipeline.metadata.annotations.get(ANNOTATION_SUSPEND) == "true"


def find_problem(pipeline: AdaptationPipeline, view: View, rows: Iterable[StageSummary]) -> tuple[str, str] | None:
    """Reason and message of what stops the pipeline for good; None while it can go on."""
    if view.resolve.phase == "Failed":
        return view.resolve.reason, f"resolve: {view.resolve.message}"
    spared = view.release.choice.spared if view.release else frozenset()
    # until the world is read, rows are what was known before
    failed = next((row for row in rows if row.phase == "Failed" and view.is_read and row.name not in spared), None)
    if failed is not None:
        return "StageFailed", f"{failed.name}: {failed.message}"
    enforced = {gate.name for gate in pipeline.spec.gates if gate.mode != "observe"}
    for run in view.gates.values():
        if run.summary.verdict not in GATE_WORDS or run.summary.name not in enforced:
            continue
        if is_decided_otherwise(view, run.summary) or is_promoted(view):
            continue
        is_judged = view.release is not None and run.summary.candidate == view.candidate
        if is_judged or _holds(view, run.summary, spared):
            return GATE_WORDS[run.summary.verdict], f"gate {run.summary.name}: {run.summary.message}"
    return promotion_problem(view)


def _holds(view: View, summary: GateSummary, spared: frozenset[str]) -> bool:
    """Whether an enforced stage gate keeps later stages from starting."""
    held = [node for node in view.nodes.values() if node.held and node.name not in spared]
    return any(node.output == summary.candidate for node in held)


def is_finished(pipeline: AdaptationPipeline, view: View, rows: Iterable[StageSummary]) -> bool:
    """Whether everything that was declared has been done."""
    if not all(run.is_over for run in view.merges.values()):
        return False
    if pipeline.spec.promotion is not None:
        return is_promoted(view)
    gates_over = all(run.is_over for run in view.gates.values())
    return view.resolve.report is not None and gates_over and all(row.phase == "Succeeded" for row in rows)


def _rows(pipeline: AdaptationPipeline, view: View, work: Mapping[str, TrainingStage | MergeJob]) -> list[StageSummary]:
    """A line a node; while the world is read again, what was known of the same nodes stays in sight."""
    before = pipeline.status.stages
    if view.resolve.report is None and [row.name for row in before] == list(view.nodes):
        return list(before)
    return [_row(pipeline, node, work) for node in view.nodes.values()]


def _gates(pipeline: AdaptationPipeline, view: View) -> list[GateSummary]:
    """A verdict a gate; while the world is read again, the verdicts that were known stay, with their numbers."""
    before = pipeline.status.gates
    if view.resolve.report is None and [gate.name for gate in before] == list(view.gates):
        return list(before)
    return [run.summary for run in view.gates.values()]


def _merges(pipeline: AdaptationPipeline, view: View) -> list[MergeSummary]:
    """A statement a merge with a control; while the world is read again, what was stated stays in sight."""
    before = pipeline.status.merges
    if view.resolve.report is None and [item.name for item in before] == list(view.merges):
        return list(before)
    return [run.summary for run in view.merges.values()]


def _row(pipeline: AdaptationPipeline, node: Node, work: Mapping[str, TrainingStage | MergeJob]) -> StageSummary:
    seen = work.get(node.digest or "")
    if seen is None:
        return StageSummary(name=node.name, method=node.method, phase="Pending", input_digest=node.digest)
    status, generation = seen.status, str(pipeline.metadata.generation)
    is_older = seen.metadata.annotations.get(ANNOTATION_GENERATION, generation) != generation
    condition = c.find(status.conditions, c.READY)
    waits = condition is not None and condition.status != "True" and condition.reason != "Running"
    progress = status.progress
    return StageSummary(
        name=node.name,
        method=node.method,
        object=seen.metadata.name,
        phase=status.phase,
        attempt=status.attempts[-1].number if status.attempts else 0,
        input_digest=node.digest,
        output_digest=status.output_digest,
        progress_percentage=100 if status.phase == "Succeeded" else progress.progress_percentage if progress else 0,
        estimated_remaining_seconds=progress.estimated_remaining_seconds if progress else None,
        reused=status.phase == "Succeeded" and (is_older or status.reused),
        message=(f"{condition.reason}: {condition.message}" if condition and waits else node.held)[:1024],
    )


def _release_gate(pipeline: AdaptationPipeline, gates: list[GateSummary]) -> str:
    name = _release_name(pipeline)
    return next((gate.verdict for gate in gates if gate.name == name), "")


def _phase_word(view: View, problem: tuple[str, str] | None) -> str:
    if problem is not None:
        return problem[0]
    if not view.is_read:
        return "resolve"
    wait = wait_of(view)
    if wait is not None:
        return {"WaitingForApproval": "approval", "Soaking": "soak", "WaitingForMerge": "merge"}[wait[0]]
    is_choosing = view.release is not None and bool(view.release.choice.wanted) and view.candidate is None
    return "done" if is_promoted(view) else "gate" if view.candidate else "candidates" if is_choosing else ""


def _conditions(
    pipeline: AdaptationPipeline,
    view: View,
    rows: list[StageSummary],
    problem: tuple[str, str] | None,
    at: tuple[datetime, int],
    report: WorkState | None,
) -> list[Condition]:
    finished = is_finished(pipeline, view, rows)
    suspended = is_suspended(pipeline)
    reporting = report is not None and report.phase in {"Pending", "Running"}
    wait = wait_of(view) if problem is None and not suspended else None
    going_back = is_going_back(view)
    busy = (not finished and problem is None and not suspended and wait is None) or reporting or going_back
    reason, message = problem or _state(suspended, finished, wait)
    reason = "RollingBack" if going_back else reason
    return [
        c.condition(c.READY, finished and problem is None and not going_back, reason, message, at),
        c.condition(c.RECONCILING, busy, "Reporting" if finished and reporting and not going_back else reason, "", at),
        c.condition(c.STALLED, problem is not None, reason, message if problem else "", at),
        c.condition(c.SUSPENDED, suspended, "Suspended" if suspended else "NotSuspended", "", at),
    ]


def _state(suspended: bool, finished: bool, wait: tuple[str, str] | None) -> tuple[str, str]:
    if suspended or finished:
        return "Suspended" if suspended else "Finished", ""
    return wait or ("Working", "")


def _kept_milestones(
    pipeline: AdaptationPipeline,
    view: View,
    found: list[Condition],
    channels: list[ChannelSummary],
    at: tuple[datetime, int],
) -> list[Condition]:
    """While the world is only read again, for a declaration that did not change, what was known stays known."""
    status = pipeline.status
    is_unknown = not view.is_read and view.resolve.phase != "Failed"
    if not is_unknown or status.observed_generation != pipeline.metadata.generation:
        return found
    candidate = next((gate.candidate for gate in status.gates if gate.name == _release_name(pipeline)), None)
    names = {channel.name for channel in pipeline.spec.promotion.channels} if pipeline.spec.promotion else set()
    still_there = all(item.digest == candidate for item in channels if item.name in names)
    kept = []
    for item in found:
        old = c.find(status.conditions, item.type)
        is_stale = old is None or (item.type == c.PROMOTED and old.status == "True" and not still_there)
        kept.append(item if old is None or is_stale else old.model_copy(update={"observed_generation": at[1]}))
    return kept


def _release_name(pipeline: AdaptationPipeline) -> str | None:
    return pipeline.spec.promotion.gate if pipeline.spec.promotion else None


def _milestones(
    pipeline: AdaptationPipeline, view: View, rows: list[StageSummary], at: tuple[datetime, int]
) -> list[Condition]:
    spared = view.release.choice.spared if view.release else frozenset()
    data = [row for row in rows if row.method in {"bank", "prepare", "import"}]
    work = [row for row in rows if row.method not in {"bank", "prepare", "import"} and row.name not in spared]
    known = view.is_read
    found = [_all_done(c.PREPARED, data, known, at), _all_done(c.TRAINED, work, known, at)]
    name = _release_name(pipeline)
    run = view.gates.get(name) if name else None
    if run is None:
        return found
    summary = run.summary
    measured = summary.verdict in {"Passed", "Failed", "Inconclusive", "Invalid"}
    passed = None if summary.verdict == "Pending" else summary.verdict == "Passed"
    promoted = is_promoted(view)
    why, message = promoted_words(view, summary)
    return [
        *found,
        c.condition(c.EVALUATED, measured, summary.reason, "", at),
        c.condition(c.GATE_PASSED, passed, summary.reason, summary.message, at),
        c.condition(c.PROMOTED, promoted, why, message, at),
    ]


def _all_done(kind: str, rows: list[StageSummary], known: bool, at: tuple[datetime, int]) -> Condition:
    missing = [row.name for row in rows if row.phase != "Succeeded"]
    is_done = known and not missing
    message = "" if is_done else f"waits for {', '.join(missing[:8])}" if known else "waits for resolve"
    return c.condition(kind, is_done, "Done" if is_done else "Waiting", message, at)
