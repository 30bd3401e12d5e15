"""Synergy of a merge: better than its linear control and than each of its parents, on dev items, or none.

Pure. A merge that has a control is measured on the dev items of a bank, as are its control and its parents (the same
Evaluations from which candidates are chosen); a compare Job for each of the others gives paired statistics. They have
no channel, so no try of a gate is counted, and nothing that is promoted depends on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bessemer_api.digest import canonical_json, input_digest, sha256_digest
from bessemer_api.job import Arm, AxisEvidence, CompareTask
from bessemer_api.v1alpha1.evaluation import Axis, Evaluation, EvaluationInputs
from bessemer_api.v1alpha1.gate import GateAxis
from bessemer_api.v1alpha1.merge import Merge, MergeSummary, SynergyAxis
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.jobs import PipelineJobs
from bessemer_operator.core.lineage import Node, bank_node
from bessemer_operator.core.merges import control_name, parents_of

ALPHA = 0.05
"""Level of a statement about one merge: shared by its axes; each axis must be won against every other checkpoint."""
LEAST = 1e-6
"""Differences below this are rounding, however regular they are."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What merges are measured on: the dev items of a bank, by these axes."""

    bank: str
    items: int
    axes: tuple[Axis, ...]

    def measurement(self, bank: str, checkpoint: str) -> EvaluationInputs:
        """All dev items of the bank artifact."""
        return EvaluationInputs(
            checkpoint=checkpoint, bank=bank, axes=list(self.axes), part="dev", start=0, end=self.items
        )


@dataclass(frozen=True, slots=True)
class SynergyRun:
    """Where the statement about one merge is."""

    summary: MergeSummary
    wanted: tuple[EvaluationInputs, ...] = ()
    states: tuple[WorkState, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether the statement is made, or will never be."""
        return self.summary.synergy != "pending"


def find_scope(spec: PipelineSpec) -> Scope | None:
    """The axes of the release gate, else of the first gate, else all that a bank has items for; None without dev items.

    So a candidate and a merge are measured by the same Evaluations.
    """
    names = [spec.promotion.gate] if spec.promotion else []
    gates = sorted(spec.gates, key=lambda gate: gate.name not in names)
    asked = [[axis.name for axis in gate.axes] for gate in gates]
    every = [axis.name for axis in spec.evaluation.axes]
    by_name = {axis.name: axis for axis in spec.evaluation.axes}
    for bank in spec.evaluation.banks:
        choices = [*asked, [name for name in every if name in bank.tasks]]
        fitting = next((axes for axes in choices if axes and set(axes) <= bank.tasks.keys() & by_name.keys()), None)
        if bank.dev and fitting:
            return Scope(bank.name, bank.dev, tuple(by_name[name] for name in fitting))
    return None


def synergy_runs(
    spec: PipelineSpec, nodes: Mapping[str, Node], evaluations: Mapping[str, Evaluation], jobs: PipelineJobs
) -> dict[str, SynergyRun]:
    """The statement about every merge that has a control, by its name."""
    scope = find_scope(spec)
    return {merge.name: _run(merge, scope, nodes, evaluations, jobs) for merge in spec.merges if merge.controls}


def _run(
    merge: Merge,
    scope: Scope | None,
    nodes: Mapping[str, Node],
    evaluations: Mapping[str, Evaluation],
    jobs: PipelineJobs,
) -> SynergyRun:
    if scope is None:
        return SynergyRun(_told(merge, "notMeasured", "no bank has dev items for the axes"))
    control = control_name(merge) or ""
    outputs = {name: nodes[name].output for name in (merge.name, control, *parents_of(merge))}
    known = {name: output for name, output in outputs.items() if output is not None}
    items = nodes[bank_node(scope.bank)].output
    if len(known) < len(outputs) or items is None:
        return SynergyRun(_told(merge, "pending", "waits for the merge, its control and its parents"))
    if len({known[name] for name in parents_of(merge)}) == 1:
        return SynergyRun(_told(merge, "none", "the parents are one and the same checkpoint"))
    measured = {name: scope.measurement(items, output) for name, output in known.items()}
    wanted = tuple({input_digest(item): item for item in measured.values()}.values())
    found = {name: evaluations.get(input_digest(item)) for name, item in measured.items()}
    failed = next((name for name, item in found.items() if item is not None and item.status.phase == "Failed"), None)
    if failed is not None:
        return SynergyRun(_told(merge, "error", f"{failed} could not be measured"), wanted)
    arms = {
        name: Arm(checkpoint=known[name], results=[item.status.output_digest])
        for name, item in found.items()
        if item is not None and item.status.output_digest
    }
    if len(arms) < len(found):
        return SynergyRun(_told(merge, "pending", "waits for evaluations on dev items"), wanted)
    return _compared(merge, scope, arms, (wanted, items), jobs)


def _compared(
    merge: Merge,
    scope: Scope,
    arms: Mapping[str, Arm],
    known: tuple[tuple[EvaluationInputs, ...], str],
    jobs: PipelineJobs,
) -> SynergyRun:
    """One comparison with each of the others; the statement once all are there."""
    wanted, items = known
    others = [name for name in arms if name != merge.name]
    states = {name: jobs.run("compare", _task(merge, scope, arms[merge.name], arms[name], items))[0] for name in others}
    made = tuple(states.values())
    failed = next((f"{name}: {state.message}" for name, state in states.items() if state.phase == "Failed"), None)
    if failed is not None:
        return SynergyRun(_told(merge, "error", f"the comparison with {failed}"), wanted, made)
    reports = {name: state.report.compare for name, state in states.items() if state.report and state.report.compare}
    if len(reports) < len(others):
        return SynergyRun(_told(merge, "pending", "waits for comparisons"), wanted, made)
    if not all(report.settings_agree for report in reports.values()):
        return SynergyRun(_told(merge, "error", "the checkpoints were measured with different settings"), wanted, made)
    evidence = {name: {item.name: item for item in report.axes} for name, report in reports.items()}
    return SynergyRun(state(merge, [axis.name for axis in scope.axes], evidence), wanted, made)


def _task(merge: Merge, scope: Scope, ours: Arm, theirs: Arm, bank: str) -> CompareTask:
    # Only wins are read. The margin has to be there; of items that are 0 or 1 it has to be under 1.
    axes = [GateAxis(name=axis.name, win_by=0.0, not_worse_than=0.5) for axis in scope.axes]
    return CompareTask(
        gate=merge.name,
        gate_digest=sha256_digest(canonical_json([input_digest(part) for part in (*axes, *scope.axes)])),
        axes=axes,
        measures=list(scope.axes),
        looks=[scope.items],
        look=1,
        candidate=ours,
        baseline=theirs,
        bank=bank,
        part="dev",
    )


def state(merge: Merge, axes: list[str], evidence: Mapping[str, Mapping[str, AxisEvidence]]) -> MergeSummary:
    """The statement: an axis shows synergy when it is won against the control and against every parent.

    `evidence` holds, by the name of the other checkpoint, the figures of the merge against it by axis. Whatever is
    missing is not won.
    """
    control = control_name(merge) or ""
    rows = [row for axis in axes if (row := _axis(axis, control, evidence, ALPHA / len(axes))) is not None]
    won = [row.name for row in rows if row.synergy]
    if not won or len(rows) < len(axes):
        return _told(merge, "none", "on no axis better than the control and than every parent", rows)
    return _told(merge, "shown", f"better than the control and than every parent on {', '.join(won)}", rows)


def _axis(
    axis: str, control: str, evidence: Mapping[str, Mapping[str, AxisEvidence]], alpha: float
) -> SynergyAxis | None:
    found = {name: figures[axis] for name, figures in evidence.items() if axis in figures}
    parents = {name: item for name, item in found.items() if name != control}
    if len(found) < len(evidence) or control not in found or not parents:
        return None
    best = min(parents, key=lambda name: parents[name].delta)
    return SynergyAxis(
        name=axis,
        n=found[control].n,
        control=found[control].delta,
        control_low=found[control].low,
        best_parent=best,
        parent=parents[best].delta,
        parent_low=parents[best].low,
        synergy=all(item.p_win <= alpha and item.delta > LEAST for item in found.values()),
    )


def _told(merge: Merge, synergy: str, message: str, axes: list[SynergyAxis] | None = None) -> MergeSummary:
    return MergeSummary.model_validate(
        {
            "name": merge.name,
            "control": control_name(merge),
            "synergy": synergy,
            "axes": axes or [],
            "message": message[:1024],
        }
    )
