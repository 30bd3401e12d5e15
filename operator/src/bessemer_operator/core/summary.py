"""The status of a pipeline from a View: stages, gates, channels, conditions. Decides nothing that is done."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from bessemer_api.base import Condition
from bessemer_api.job import ChannelHead
from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import (
    AdaptationPipeline,
    ChannelSummary,
    GateSummary,
    PipelineStatus,
    StageSummary,
)
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core import conditions as c
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.lineage import Node
from bessemer_operator.core.naming import ANNOTATION_REFRESH, ANNOTATION_SUSPEND, short
from bessemer_operator.core.view import MAX_MOVES, View

ANNOTATION_GENERATION = "bessemer.dev/generation"
"""Generation of the pipeline for which a child was made."""

GATE_WORDS = {
    "Failed": "GateFailed",
    "Inconclusive": "GateInconclusive",
    "Invalid": "GateInvalid",
    "Error": "GateError",
}


def summarise(
    pipeline: AdaptationPipeline,
    view: View,
    work: Mapping[str, TrainingStage | MergeJob],
    report: WorkState | None,
    now: datetime,
) -> PipelineStatus:
    """The whole status. `work` holds observed stages and merges by input digest; `report` is the report Job's state."""
    rows = _rows(pipeline, view, work)
    gates = _gates(pipeline, view)
    problem = find_problem(pipeline, view, rows)
    at = (now, pipeline.metadata.generation)
    wanted = _conditions(pipeline, view, rows, problem, at, report)
    current = next((row for row in rows if row.phase == "Running"), None)
    done = sum(row.phase == "Succeeded" for row in rows)
    channels = _channels(pipeline, view)
    return PipelineStatus(
        observed_generation=pipeline.metadata.generation,
        conditions=c.set_conditions(pipeline.status.conditions, wanted),
        stages=rows,
        gates=gates,
        channels=channels,
        observed_refresh=pipeline.metadata.annotations.get(ANNOTATION_REFRESH, ""),
        current_stage=current.name if current else _phase_word(pipeline, view, problem),
        progress=f"{done}/{len(rows)}",
        gate=_release_gate(pipeline, gates),
        promoted=short(channels[0].digest, 12) if channels and channels[0].digest else "",
        report=report.report.url if report and report.report else pipeline.status.report,
    )


def is_suspended(pipeline: AdaptationPipeline) -> bool:
    """By its spec, or by annotation (which a GitOps tool does not revert)."""
    return pipeline.spec.suspend or pipeline.metadata.annotations.get(ANNOTATION_SUSPEND) == "true"


def find_problem(pipeline: AdaptationPipeline, view: View, rows: Iterable[StageSummary]) -> tuple[str, str] | None:
    """Reason and message of what stops the pipeline for good; None while it can go on."""
    if view.resolve.phase == "Failed":
        return view.resolve.reason, f"resolve: {view.resolve.message}"
    is_read = view.resolve.report is not None  # until then rows are what was known before
    failed = next((row for row in rows if row.phase == "Failed" and is_read), None)
    if failed is not None:
        return "StageFailed", f"{failed.name}: {failed.message}"
    enforced = {gate.name for gate in pipeline.spec.gates if gate.mode != "observe"}
    for run in view.gates.values():
        if run.summary.verdict not in GATE_WORDS or run.summary.name not in enforced:
            continue
        if run.summary.candidate == view.candidate or _holds(view, run.summary):
            return GATE_WORDS[run.summary.verdict], f"gate {run.summary.name}: {run.summary.message}"
    return _promotion_problem(view)


def _promotion_problem(view: View) -> tuple[str, str] | None:
    if view.promote is not None and view.promote.phase == "Failed":
        return "PromotionFailed", f"{view.promote.reason}: {view.promote.message}"
    if view.promotion is not None and view.promotion.outcome == "Held":
        return "Held", "a rollback left this checkpoint; it is not promoted again"
    if view.baseline_moved:
        message = f"each of {MAX_MOVES} times that the gate had passed, the channel had moved on meanwhile; "
        return "BaselineMoved", f"{message}annotate {ANNOTATION_REFRESH} with a new word to try again"
    return None


def _holds(view: View, summary: GateSummary) -> bool:
    """Whether an enforced stage gate keeps later stages from starting."""
    return any(node.held and node.output == summary.candidate for node in view.nodes.values())


def is_promoted(view: View, pipeline: AdaptationPipeline) -> bool:
    """Whether the channel holds the candidate of this generation."""
    if pipeline.spec.promotion is None or view.candidate is None:
        return False
    head = view.heads.get(pipeline.spec.promotion.channels[0].name, ChannelHead())
    outcome = view.promotion.outcome if view.promotion else ""
    return head.digest == view.candidate or outcome in {"Promoted", "AlreadyPromoted"}


def is_finished(pipeline: AdaptationPipeline, view: View, rows: Iterable[StageSummary]) -> bool:
    """Whether everything that was declared has been done."""
    if pipeline.spec.promotion is not None:
        return is_promoted(view, pipeline)
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


def _channels(pipeline: AdaptationPipeline, view: View) -> list[ChannelSummary]:
    promoted_to = pipeline.spec.promotion.channels[0].name if pipeline.spec.promotion else None
    found = []
    for name, head in sorted(view.heads.items()):
        report = view.promotion if name == promoted_to else None
        if report is not None and report.outcome in {"Promoted", "AlreadyPromoted"} and report.record >= head.record:
            found.append(ChannelSummary(name=name, digest=report.digest, record=report.record, at=report.at))
        else:
            found.append(ChannelSummary(name=name, digest=head.digest, record=head.record, at=head.at))
    return found


def _release_gate(pipeline: AdaptationPipeline, gates: list[GateSummary]) -> str:
    name = pipeline.spec.promotion.gate if pipeline.spec.promotion else None
    return next((gate.verdict for gate in gates if gate.name == name), "")


def _phase_word(pipeline: AdaptationPipeline, view: View, problem: tuple[str, str] | None) -> str:
    if problem is not None:
        return problem[0]
    if view.resolve.report is None:
        return "resolve"
    return "done" if is_promoted(view, pipeline) else "gate" if view.candidate else ""


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
    busy = (not finished and problem is None and not suspended) or reporting
    reason, message = problem or ("Suspended" if suspended else "Finished" if finished else "Working", "")
    return [
        c.condition(c.READY, finished and problem is None, reason, message, at),
        c.condition(c.RECONCILING, busy, "Reporting" if finished and reporting else reason, "", at),
        c.condition(c.STALLED, problem is not None, reason, message, at),
        c.condition(c.SUSPENDED, suspended, "Suspended" if suspended else "NotSuspended", "", at),
        *_milestones(pipeline, view, rows, at),
    ]


def _milestones(
    pipeline: AdaptationPipeline, view: View, rows: list[StageSummary], at: tuple[datetime, int]
) -> list[Condition]:
    data = [row for row in rows if row.method in {"bank", "prepare", "import"}]
    work = [row for row in rows if row.method not in {"bank", "prepare", "import"}]
    known = view.resolve.report is not None
    found = [_all_done(c.PREPARED, data, known, at), _all_done(c.TRAINED, work, known, at)]
    name = pipeline.spec.promotion.gate if pipeline.spec.promotion else None
    run = view.gates.get(name) if name else None
    if run is None:
        return found
    summary = run.summary
    measured = summary.verdict in {"Passed", "Failed", "Inconclusive", "Invalid"}
    passed = None if summary.verdict == "Pending" else summary.verdict == "Passed"
    promoted = is_promoted(view, pipeline)
    why, message = _promotion_words(view, summary, promoted)
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


def _promotion_words(view: View, summary: GateSummary, promoted: bool) -> tuple[str, str]:
    if promoted:
        report = view.promotion
        return ("Promoted", f"record {report.record}") if report else ("AlreadyPromoted", "the channel holds it")
    if view.promotion is not None:
        return view.promotion.outcome, "the promotion was refused"
    if view.promote is not None:
        return ("Promoting" if view.promote.phase != "Failed" else "PromotionFailed"), view.promote.message
    return GATE_WORDS.get(summary.verdict, "Waiting"), "" if summary.verdict == "Pending" else summary.message
