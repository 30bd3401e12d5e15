"""One look at a whole pipeline: resolve, nodes, gates, promotion, as far as they are known; made anew each time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bessemer_api.base import Model
from bessemer_api.digest import input_digest
from bessemer_api.job import ChannelHead, PromoteReport, PromoteTask, ResolveTask
from bessemer_api.v1alpha1.data import Source
from bessemer_api.v1alpha1.evaluation import Axis, Evaluation
from bessemer_api.v1alpha1.gate import Baseline, Gate
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, GateSummary, PipelineSpec, Stage
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
from bessemer_operator.core.regression import SUITES, suite_axes, suite_tasks

MAX_MOVES = 10
"""How often a gate is run against one head after another because the channel's head moved under it."""


@dataclass(frozen=True, slots=True)
class View:
    """What is known. `jobs` are the states of the pipeline's own Jobs by what they are for."""

    nodes: Mapping[str, Node]
    heads: Mapping[str, ChannelHead]
    gates: Mapping[str, GateRun]
    resolve: WorkState
    promote: WorkState | None = None
    candidate: str | None = None

    @property
    def job_states(self) -> tuple[WorkState, ...]:
        """States of all Jobs of the pipeline that matter now."""
        own = (self.resolve, *((self.promote,) if self.promote else ()))
        return (*own, *(state for run in self.gates.values() for state in run.states))

    @property
    def promotion(self) -> PromoteReport | None:
        """What the promote Job reported."""
        return self.promote.report.promote if self.promote and self.promote.report else None

    @property
    def baseline_moved(self) -> bool:
        """The channel has another head than the one that was gated against: everything about it is to be read again."""
        return self.promotion is not None and self.promotion.outcome == "BaselineMoved"


@dataclass(frozen=True, slots=True)
class Scene:
    """The pipeline and what was observed of it, in the form that decisions need."""

    pipeline: AdaptationPipeline
    jobs: PipelineJobs
    outputs: Mapping[str, str]
    evaluations: Mapping[str, Evaluation]
    rerun: tuple[str, str] | None = None
    refresh: str = ""
    heads: Mapping[str, ChannelHead] = field(default_factory=dict)

    @property
    def spec(self) -> PipelineSpec:
        """The declaration."""
        return self.pipeline.spec


def look(scene: Scene, epoch: int) -> View:
    """All that is known; `epoch` counts how often the channel's head moved under a gate of this generation."""
    salt = f"{scene.pipeline.metadata.generation}/{scene.refresh}/{epoch}"
    resolve, _ = scene.jobs.run("resolve", resolve_task(scene.spec), salt)
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
    return _with_promotion(scene, View(nodes, heads, gates, resolve))


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
    return _judge(scene, heads, gate, (stage.name, output), nodes)


def _judge(
    scene: Scene,
    heads: Mapping[str, ChannelHead],
    gate: Gate,
    judged: tuple[str, str],
    nodes: Mapping[str, Node],
) -> GateRun:
    name, candidate = judged
    baseline = _baseline(scene.spec, gate.baseline, name, nodes, heads)
    bank = bank_of(scene.spec, gate)
    items = nodes[bank_node(bank)].output
    suites = nodes.get(bank_node(SUITES)) if SUITES in gate.vetoes else None
    if not candidate or baseline is None or items is None or (suites and not suites.output):
        return GateRun(pending(gate, "Waiting", "waits for the checkpoints and the bank"))
    head = heads.get(gate.baseline.channel or "", ChannelHead())
    names = {axis.name for axis in gate.axes}
    used = [nodes[item] for item in sorted(ancestors(nodes, name))]
    contest = Contest(
        gate=gate,
        axes=measures(scene.spec, gate),
        bank=items,
        candidate=candidate,
        baseline=baseline,
        anchors={axis: digest for axis, digest in head.anchors.items() if axis in names},
        training_data=tuple(node.output for node in used if node.method == "prepare" and node.output),
        suites=(suites.output or "") if suites else "",
        suite_axes=suite_axes(scene.spec.evaluation),
        channel=gate.baseline.channel,
        record=head.record,
    )
    return run_gate(contest, scene.evaluations, scene.jobs)


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


def _with_promotion(scene: Scene, view: View) -> View:
    promotion = scene.spec.promotion
    if promotion is None:
        return view
    name = promotion.candidates[0]
    node = view.nodes[name]
    gate = find_gate(scene.spec, promotion.gate)
    channel = promotion.channels[0].name
    head = view.heads.get(channel, ChannelHead())
    if node.output is None or node.held:
        waiting = GateRun(pending(gate, "Waiting", node.held or f"waits for {name}"))
        return _and(view, gate, waiting)
    if head.digest == node.output:
        run = GateRun(_already_promoted(scene, gate, channel, head))
        return _and(view, gate, run, candidate=node.output)
    run = _judge(scene, view.heads, gate, (name, node.output), view.nodes)
    promote = None
    if run.summary.verdict == "Passed" and run.summary.evidence_digest is not None:
        promote, _ = scene.jobs.run("promote", _promote_task(scene, run, channel, head))
    return _and(view, gate, run, candidate=node.output, promote=promote)


def _and(
    view: View, gate: Gate, run: GateRun, *, candidate: str | None = None, promote: WorkState | None = None
) -> View:
    return View(view.nodes, view.heads, {**view.gates, gate.name: run}, view.resolve, promote, candidate)


def _already_promoted(scene: Scene, gate: Gate, channel: str, head: ChannelHead) -> GateSummary:
    """The verdict under which the head was promoted, where the status still knows it; else just that it was."""
    for known in scene.pipeline.status.gates:
        if known.name == gate.name and known.verdict == "Passed" and known.candidate == head.digest:
            return known
    message = f"channel {channel} holds this checkpoint since record {head.record}"
    return GateSummary(
        name=gate.name, verdict="Passed", reason="AlreadyPromoted", message=message, candidate=head.digest
    )


def _promote_task(scene: Scene, run: GateRun, channel: str, head: ChannelHead) -> Model:
    metadata = scene.pipeline.metadata
    return PromoteTask(
        channel=channel,
        candidate=run.summary.candidate or "",
        record=head.record,
        gate=run.summary.name,
        evidence=run.summary.evidence_digest or "",
        wins=list(run.wins),
        pipeline=f"{metadata.namespace}/{metadata.name}",
        pipeline_uid=metadata.uid,
        by="bessemer",
    )


def evaluations_by_digest(evaluations: tuple[Evaluation, ...]) -> dict[str, Evaluation]:
    """Evaluations whose name and digest fit their inputs, by that digest; anything else is no evidence."""
    return {
        item.spec.input_digest: item for item in evaluations if input_digest(item.spec.inputs) == item.spec.input_digest
    }
