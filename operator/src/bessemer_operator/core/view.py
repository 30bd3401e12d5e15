"""One look at a whole pipeline: resolve, nodes, gates, as far as they are known; made anew each time.

What becomes of the candidates is for release.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from bessemer_api.digest import input_digest
from bessemer_api.job import ChannelHead, PromoteReport, ResolveTask, RollbackTask
from bessemer_api.v1alpha1.data import Source
from bessemer_api.v1alpha1.evaluation import Axis, Evaluation, EvaluationInputs
from bessemer_api.v1alpha1.gate import Baseline, Gate
from bessemer_api.v1alpha1.git import MergeWait
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineSpec, Stage
from bessemer_api.v1alpha1.promotion import CandidateSummary, NominationSummary
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.gating import Contest, GateRun, pending, run_gate
from bessemer_operator.core.jobs import PipelineJobs
from bessemer_operator.core.lineage import (
    BASE,
    Facts,
    Node,
    ancestors,
    bank_node,
    build_nodes,
    origin,
)
from bessemer_operator.core.merging import Merging, run_until_merged
from bessemer_operator.core.regression import SUITES, suite_axes, suite_tasks
from bessemer_operator.core.rollback import rollback_summary
from bessemer_operator.core.synergy import SynergyRun, synergy_runs

MAX_MOVES = 10
"""How often a gate is run against one head after another because the channel's head moved under it."""


@dataclass(frozen=True, slots=True)
class Step:
    """The candidate on its way into one channel: there, or waiting until `due`, or promoted by the Job of `state`."""

    channel: str
    is_there: bool = False
    record: int = 0
    at: str = ""
    due: datetime | None = None
    state: WorkState | None = None
    kind: str = ""
    by: str = ""
    merge: MergeWait | None = None
    requeue: timedelta | None = None
    """Until the merge is looked at again."""

    @property
    def report(self) -> PromoteReport | None:
        """What the promotion Job reported."""
        return self.state.report.promote if self.state and self.state.report else None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which candidate the gate judges. `nominee` is empty while it is not known; `message` says why."""

    nominee: str
    message: str
    rows: tuple[CandidateSummary, ...] = ()
    nomination: NominationSummary | None = None
    wanted: tuple[EvaluationInputs, ...] = ()
    spared: frozenset[str] = frozenset()
    """Nodes that only candidates need which can not be judged any more: the others go on without them."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """How far the nominee is on its way into the channels."""

    choice: Choice
    candidate: str | None = None
    steps: tuple[Step, ...] = ()
    waits: tuple[str, str] | None = None
    """Reason and message, while a person or a time is waited for."""
    refused: tuple[str, str] | None = None
    """Reason and message why it is not promoted although its gate does not forbid it."""
    is_override: bool = False
    requeue: timedelta | None = None

    @property
    def is_done(self) -> bool:
        """Whether every channel holds the candidate."""
        return bool(self.steps) and all(step.is_there for step in self.steps)

    @property
    def last(self) -> Step | None:
        """The step that is being taken, or was taken last."""
        return self.steps[-1] if self.steps else None


@dataclass(frozen=True, slots=True)
class View:
    """What is known. `resolve` and `rollback` are the states of the pipeline's Jobs of these verbs."""

    nodes: Mapping[str, Node]
    heads: Mapping[str, ChannelHead]
    gates: Mapping[str, GateRun]
    resolve: WorkState
    rollback: WorkState | None = None
    release: Release | None = None
    undoing: Merging | None = None
    """The rollback, where a person has to merge it."""
    merges: Mapping[str, SynergyRun] = field(default_factory=dict)

    @property
    def candidate(self) -> str | None:
        """The checkpoint that is judged for promotion."""
        return self.release.candidate if self.release else None

    @property
    def job_states(self) -> tuple[WorkState, ...]:
        """States of all Jobs of the pipeline that matter now."""
        own = (self.resolve, *((self.rollback,) if self.rollback else ()))
        steps = tuple(step.state for step in self.release.steps if step.state) if self.release else ()
        merges = tuple(state for run in self.merges.values() for state in run.states)
        return (*own, *steps, *merges, *(state for run in self.gates.values() for state in run.states))

    @property
    def measurements(self) -> tuple[EvaluationInputs, ...]:
        """Every evaluation that is needed: of gates, of the choice between candidates, and of merges."""
        dev = self.release.choice.wanted if self.release else ()
        merges = tuple(item for run in self.merges.values() for item in run.wanted)
        return (*(item for run in self.gates.values() for item in run.wanted), *dev, *merges)

    @property
    def promotion(self) -> PromoteReport | None:
        """What the last promotion Job reported."""
        return self.release.last.report if self.release and self.release.last else None

    @property
    def baseline_moved(self) -> bool:
        """The channel has another head than the one that was gated against: everything about it is to be read again."""
        return self.promotion is not None and self.promotion.outcome == "BaselineMoved"

    @property
    def is_read(self) -> bool:
        """Whether the world has been read; before that nodes and gates are unknown, not absent."""
        return self.resolve.report is not None


@dataclass(frozen=True, slots=True)
class Scene:
    """The pipeline and what was observed of it, in the form that decisions need."""

    pipeline: AdaptationPipeline
    jobs: PipelineJobs
    outputs: Mapping[str, str]
    evaluations: Mapping[str, Evaluation]
    rerun: tuple[str, str] | None = None
    refresh: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)
    """What was said of work that failed for good, by input digest."""
    rollback: RollbackTask | None = None

    @property
    def spec(self) -> PipelineSpec:
        """The declaration."""
        return self.pipeline.spec


def look(scene: Scene, epoch: int) -> View:
    """All that is known but the promotion; `epoch` counts how often the head moved under a gate of this generation."""
    going_back = replace(scene.jobs, suspend=False)  # a rollback does not wait for a pipeline that is suspended
    undoing = _undo(scene, going_back)
    rollback = undoing.state if undoing is not None else None
    resolve, _ = scene.jobs.run("resolve", resolve_task(scene.spec), _salt(scene, undoing, epoch))
    report = resolve.report.resolve if resolve.report else None
    contents = report.contents if report else {}
    heads = report.channels if report else {}

    def hold(stage: Stage, output: str, nodes: Mapping[str, Node]) -> str:
        return _why_held(scene, heads, stage, output, nodes)

    nodes = build_nodes(scene.spec, Facts(contents, scene.outputs, hold, scene.rerun))
    gates = {
        run.summary.name: run
        for stage in scene.spec.stages
        if (run := _stage_gate(scene, heads, stage, nodes[stage.name].output or "", nodes)) is not None
    }
    merges = synergy_runs(scene.spec, nodes, scene.evaluations, scene.jobs)
    return View(nodes, heads, gates, resolve, rollback, undoing=undoing, merges=merges)


def _undo(scene: Scene, jobs: PipelineJobs) -> Merging | None:
    if scene.rollback is None:
        return None
    known = scene.pipeline.status.rollback
    is_same = known is not None and known.request == scene.rollback.request
    return run_until_merged(jobs, "rollback", scene.rollback, known.merge if known is not None and is_same else None)


def _salt(scene: Scene, undoing: Merging | None, epoch: int) -> str:
    """What makes a look at the world a new one. After a rollback the heads are others than before."""
    summary = rollback_summary(scene.rollback, undoing, scene.pipeline.status.rollback)
    known = summary if summary is not None and summary.record else scene.pipeline.status.rollback
    after = f"/{known.channel}-{known.record}" if known is not None and known.record else ""
    return f"{scene.pipeline.metadata.generation}/{scene.refresh}/{epoch}{after}"


def resolve_task(spec: PipelineSpec) -> ResolveTask:
    """Everything in the world that the pipeline depends on."""
    channels = {gate.baseline.channel for gate in spec.gates if gate.baseline.channel}
    if spec.promotion is not None:
        channels |= {channel.name for channel in spec.promotion.channels}
    suites = {SUITES: suite_tasks(spec.evaluation)} if spec.evaluation.regression else {}
    return ResolveTask(
        base=Source(uri=spec.base.model, sha256=spec.base.sha256) if spec.base else None,
        data={name: data.sources for name, data in spec.data.items() if data.sources},
        banks={bank.name: bank.tasks for bank in spec.evaluation.banks} | suites,
        channels=sorted(channels),
    )


def _why_held(
    scene: Scene, heads: Mapping[str, ChannelHead], stage: Stage, output: str, nodes: Mapping[str, Node]
) -> str:
    """Why later stages may not use the output yet; empty when they may."""
    run = _stage_gate(scene, heads, stage, output, nodes)
    if run is None or find_gate(scene.spec, run.summary.name).mode == "observe" or run.summary.verdict == "Passed":
        return ""
    return f"gate {run.summary.name}: {run.summary.verdict}: {run.summary.message}"


def _stage_gate(
    scene: Scene, heads: Mapping[str, ChannelHead], stage: Stage, output: str, nodes: Mapping[str, Node]
) -> GateRun | None:
    if stage.gate is None:
        return None
    gate = find_gate(scene.spec, stage.gate)
    return judge(scene, heads, gate, (stage.name, output), nodes)


def judge(
    scene: Scene, heads: Mapping[str, ChannelHead], gate: Gate, judged: tuple[str, str], nodes: Mapping[str, Node]
) -> GateRun:
    """Run a gate about (name, checkpoint), as far as it can be run."""
    contest = find_contest(scene.spec, heads, gate, judged, nodes)
    if contest is None:
        return GateRun(pending(gate, "Waiting", "waits for the checkpoints and the bank"))
    return run_gate(contest, scene.evaluations, scene.jobs)


def find_contest(
    spec: PipelineSpec,
    heads: Mapping[str, ChannelHead],
    gate: Gate,
    judged: tuple[str, str],
    nodes: Mapping[str, Node],
) -> Contest | None:
    """Who is compared with whom; None while a checkpoint or the bank is missing."""
    name, candidate = judged
    baseline = _baseline(spec, gate.baseline, name, nodes, heads)
    items = nodes[bank_node(bank_of(spec, gate))].output
    suites = nodes.get(bank_node(SUITES)) if SUITES in gate.vetoes else None
    also = {other: nodes[other].output for other in gate.also_against}
    known = {other: output for other, output in also.items() if output is not None}
    is_waiting = len(known) < len(also) or (suites is not None and not suites.output)
    if not candidate or baseline is None or items is None or is_waiting:
        return None
    head = heads.get(gate.baseline.channel or "", ChannelHead())
    names = {axis.name for axis in gate.axes}
    used = [nodes[item] for item in sorted(ancestors(nodes, name))]
    return Contest(
        gate=gate,
        axes=measures(spec, gate),
        bank=items,
        candidate=candidate,
        baseline=baseline,
        anchors={axis: digest for axis, digest in head.anchors.items() if axis in names},
        training_data=tuple(node.output for node in used if node.method == "prepare" and node.output),
        suites=(suites.output or "") if suites else "",
        suite_axes=suite_axes(spec.evaluation),
        also=known,
        channel=gate.baseline.channel,
        record=head.record,
    )


def find_gate(spec: PipelineSpec, name: str) -> Gate:
    """The gate of this name; the lint has checked that it is there."""
    return next(gate for gate in spec.gates if gate.name == name)


def bank_of(spec: PipelineSpec, gate: Gate) -> str:
    """Name of the bank that has items for all axes of the gate; the lint has checked that there is one."""
    names = {axis.name for axis in gate.axes}
    return next(bank.name for bank in spec.evaluation.banks if names <= bank.tasks.keys())


def measures(spec: PipelineSpec, gate: Gate) -> tuple[Axis, ...]:
    """How the axes of a gate are measured, in the gate's order."""
    by_name = {axis.name: axis for axis in spec.evaluation.axes}
    return tuple(by_name[axis.name] for axis in gate.axes)


def _baseline(
    spec: PipelineSpec,
    baseline: Baseline,
    name: str,
    nodes: Mapping[str, Node],
    heads: Mapping[str, ChannelHead],
) -> str | None:
    if baseline.stage_input:
        start = origin(spec, next(stage for stage in spec.stages if stage.name == name))
        return nodes[start].output if start else None
    if baseline.channel is None:
        return nodes[baseline.stage or BASE].output
    head = heads.get(baseline.channel)
    if head is None:
        return None
    other = baseline.or_else
    return head.digest or (nodes[other.stage or BASE].output if other else None)


def evaluations_by_digest(evaluations: tuple[Evaluation, ...]) -> dict[str, Evaluation]:
    """Evaluations whose name and digest fit their inputs, by that digest; anything else is no evidence."""
    return {
        item.spec.input_digest: item for item in evaluations if input_digest(item.spec.inputs) == item.spec.input_digest
    }
