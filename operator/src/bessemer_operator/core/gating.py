"""Running a gate look by look: which evaluations and which comparison are needed next, and what the verdict is.

The verdict itself is `core/gate.py`'s, from the report of a comparison alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from bessemer_api.digest import canonical_json, input_digest, sha256_digest
from bessemer_api.job import AlsoArm, Arm, CompareTask, RunReport
from bessemer_api.v1alpha1.evaluation import Axis, Evaluation, EvaluationInputs, Part
from bessemer_api.v1alpha1.gate import Gate, OnInconclusive
from bessemer_api.v1alpha1.pipeline import GateSummary
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.gate import decide
from bessemer_operator.core.jobs import PipelineJobs
from bessemer_operator.core.regression import SUITES, suite_measurement
from bessemer_operator.core.verdict import Asked, Decision


@dataclass(frozen=True, slots=True)
class Contest:
    """What a gate judges: a candidate against a baseline (and anchors) on one bank."""

    gate: Gate
    axes: tuple[Axis, ...]
    bank: str
    candidate: str
    baseline: str
    anchors: Mapping[str, str]
    training_data: tuple[str, ...]
    also: Mapping[str, str] = field(default_factory=dict)
    """Checkpoints of the further comparisons that the gate asks for, by name."""
    suites: str = ""
    """Bank of the regression suites; empty where the gate does not ask for them."""
    suite_axes: tuple[Axis, ...] = ()
    channel: str | None = None
    record: int = 0

    @property
    def checkpoints(self) -> list[str]:
        """Every checkpoint that must be measured, each once."""
        return list(dict.fromkeys([self.candidate, self.baseline, *self.anchors.values(), *self.also.values()]))


@dataclass(frozen=True, slots=True)
class GateRun:
    """Where a gate is. `wanted` are the evaluations it needs, looked up or to be made."""

    summary: GateSummary
    wanted: tuple[EvaluationInputs, ...] = ()
    states: tuple[WorkState, ...] = ()
    wins: tuple[str, ...] = ()
    requeue: timedelta | None = None
    kept: tuple[RunReport, ...] = ()
    """Reports of earlier comparisons from which the verdict is known, where none was run for it."""
    judged_at: str = ""
    """When the comparison that decided had ended."""

    @property
    def is_over(self) -> bool:
        """Whether a verdict was reached that nothing pending can change."""
        return self.summary.verdict != "Pending"


def run_gate(contest: Contest, evaluations: Mapping[str, Evaluation], jobs: PipelineJobs) -> GateRun:
    """Take looks until the gate decides or something has to be waited for."""
    run = GateRun(pending(contest.gate, "Evaluating", "waits for evaluations", contest))
    for look in range(1, len(contest.gate.looks) + 1):
        run = _look(contest, look, run, evaluations, jobs)
        if run.summary.reason != "NextLook" or run.is_over:
            return run
    return run


def pending(gate: Gate, reason: str, message: str, contest: Contest | None = None) -> GateSummary:
    """A gate without a verdict yet."""
    return GateSummary(
        name=gate.name,
        verdict="Pending",
        reason=reason,
        message=message,
        candidate=contest.candidate if contest else None,
        baseline=contest.baseline if contest else None,
    )


def _ranges(gate: Gate, look: int) -> list[tuple[int, int]]:
    return list(zip([0, *gate.looks[: look - 1]], gate.looks[:look], strict=True))


def measurement(contest: Contest, checkpoint: str, span: tuple[int, int], part: Part = "gate") -> EvaluationInputs:
    """The measurement of one checkpoint on one range of items.

    All arms are held against the candidate's training data: "novel" must mean the same for each.
    """
    asks_novelty = any(axis.needs_training_data for axis in contest.axes)
    return EvaluationInputs(
        checkpoint=checkpoint,
        bank=contest.bank,
        axes=list(contest.axes),
        part=part,
        start=span[0],
        end=span[1],
        training_data=sorted(contest.training_data) if asks_novelty else None,
    )


def _look(
    contest: Contest, look: int, run: GateRun, evaluations: Mapping[str, Evaluation], jobs: PipelineJobs
) -> GateRun:
    span = _ranges(contest.gate, look)[-1]
    needed = tuple(measurement(contest, checkpoint, span) for checkpoint in contest.checkpoints)
    needed += _of_suites(contest)
    run = replace(run, wanted=(*run.wanted, *needed))
    seen = [evaluations.get(input_digest(item)) for item in needed]
    failed = next((item for item in seen if item is not None and item.status.phase == "Failed"), None)
    if failed is not None:
        message = failed.status.conditions[0].message if failed.status.conditions else ""
        return replace(run, summary=_error(contest, look, f"evaluation {failed.metadata.name} failed: {message}"))
    if not all(item is not None and item.status.output_digest for item in seen):
        waiting = pending(contest.gate, "Evaluating", f"look {look}: waits for evaluations", contest)
        return replace(run, summary=waiting.model_copy(update={"look": look - 1}))
    return _compare(contest, look, run, _results(contest, look, evaluations), jobs)


def _of_suites(contest: Contest) -> tuple[EvaluationInputs, ...]:
    """The candidate on every regression case, where the gate asks for it."""
    return (suite_measurement(contest.candidate, contest.suites, contest.suite_axes),) if contest.suites else ()


def _results(contest: Contest, look: int, evaluations: Mapping[str, Evaluation]) -> dict[str, list[str]]:
    """Artifacts of the evaluations of every checkpoint, range by range."""
    found: dict[str, list[str]] = {}
    for checkpoint in contest.checkpoints:
        spans = [measurement(contest, checkpoint, span) for span in _ranges(contest.gate, look)]
        outputs = [evaluations[input_digest(item)].status.output_digest for item in spans]
        found[checkpoint] = [output for output in outputs if output is not None]
    suites = [evaluations[input_digest(item)].status.output_digest for item in _of_suites(contest)]
    return {**found, SUITES: [output for output in suites if output is not None]}


def _compare(
    contest: Contest, look: int, run: GateRun, results: Mapping[str, list[str]], jobs: PipelineJobs
) -> GateRun:
    task = _task(contest, look, results)
    state, digest = jobs.run("compare", task)
    run = replace(run, states=(*run.states, state))
    if state.phase == "Failed":
        return replace(run, summary=_error(contest, look, f"the comparison failed: {state.reason}: {state.message}"))
    if state.report is None:
        waiting = pending(contest.gate, "Comparing", f"look {look}: waits for the comparison", contest)
        return replace(run, summary=waiting.model_copy(update={"look": look - 1}), requeue=state.requeue)
    also = {name: frozenset(other.axes) for name, other in (task.also or {}).items()}
    decision = decide(contest.gate, state.report, Asked(digest, look, frozenset(task.anchors), also))
    summary = _summary(contest, decision, state.report.output_digest)
    ended = [item.finished_at for item in state.attempts if item.finished_at]
    return replace(run, summary=summary, wins=decision.wins, judged_at=max(ended, default=""))


def gate_digest(gate: Gate, measures: Sequence[Axis]) -> str:
    """Of everything that a verdict depends on but the evidence. An edited gate is another try (see docs/gate.md).

    `mode` changes no verdict, and what follows an inconclusive one makes none pass, so both are left out; so are
    defaults, as in every digest of inputs.
    """
    asked = gate.model_copy(update={"mode": "enforce", "on_inconclusive": OnInconclusive.model_validate({})})
    return sha256_digest(canonical_json([input_digest(part) for part in (asked, *measures)]))


def _task(contest: Contest, look: int, results: Mapping[str, list[str]]) -> CompareTask:
    def arm(checkpoint: str) -> Arm:
        return Arm(checkpoint=checkpoint, results=results[checkpoint])

    also = {
        name: AlsoArm(axes=axes, arm=arm(contest.also[name]))
        for name, axes in contest.gate.also_against.items()
        if contest.also[name] != contest.baseline
    }
    return CompareTask(
        gate=contest.gate.name,
        gate_digest=gate_digest(contest.gate, contest.axes),
        axes=list(contest.gate.axes),
        measures=list(contest.axes),
        looks=list(contest.gate.looks),
        look=look,
        candidate=arm(contest.candidate),
        baseline=arm(contest.baseline),
        anchors={axis: arm(digest) for axis, digest in contest.anchors.items() if digest != contest.baseline},
        bank=contest.bank,
        channel=contest.channel,
        record=contest.record,
        also=also or None,
        vetoes=list(contest.gate.vetoes),
        training_data=list(contest.training_data),
        regression=results[SUITES] or None,
    )


def _summary(contest: Contest, decision: Decision, evidence: str | None) -> GateSummary:
    goes_on = decision.next_look is not None
    return GateSummary(
        name=contest.gate.name,
        verdict="Pending" if goes_on else decision.verdict,
        reason=decision.reason,
        message=decision.message,
        candidate=contest.candidate,
        baseline=contest.baseline,
        look=decision.look,
        alpha_spent=decision.alpha_spent,
        tries=decision.tries,
        evidence_digest=evidence,
        axes=list(decision.axes),
    )


def _error(contest: Contest, look: int, message: str) -> GateSummary:
    waiting = pending(contest.gate, "MeasurementFailed", message[:1024], contest)
    return waiting.model_copy(update={"verdict": "Error", "look": look - 1})
