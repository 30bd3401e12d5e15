"""Diagnostics of a pipeline: which of them look at which stage or merge, and what they found, as lines of the status.

Each runs where it is cheapest: right after the work whose failure it knows, on what that work left. Nothing here stops
a pipeline, and a diagnosis that fails is told as not measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bessemer_api.job import DiagnoseTask
from bessemer_api.v1alpha1.diagnostic import Diagnostic, DiagnosticName, DiagnosticSummary
from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.jobs import PipelineJobs
from bessemer_operator.core.lineage import BASE, Node, bank_node

_TRAINED = frozenset({"cpt", "sft"})
_PREFERENCE = frozenset({"dpo", "orpo", "kto", "grpo"})
_FROM_SCRATCH = frozenset({"pretrain"})
"""A stage that starts from a tokenizer: there is no checkpoint that it could be compared with."""

_MERGED = frozenset({"merge"})
_CANDIDATE = frozenset({"candidate"})

LOOKS_AT: Mapping[DiagnosticName, frozenset[str]] = {
    "generalLoss": _TRAINED | _PREFERENCE | _MERGED,
    "formatGap": _TRAINED | _CANDIDATE,
    "eosRate": _TRAINED | _PREFERENCE | _CANDIDATE,
    "diversity": _PREFERENCE | _CANDIDATE,
    "lengthDrift": _PREFERENCE | _CANDIDATE,
    "chosenLogProbability": _PREFERENCE - {"grpo"},
    "calibration": _PREFERENCE | _MERGED,
    "consistency": _MERGED,
    "mergeHealth": _MERGED,
    "refusalDrift": _CANDIDATE,
    "retrievalUse": _CANDIDATE,
}
"""After which work each diagnostic runs: the method of a stage, any merge, or what may be promoted."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Where the diagnosis of one stage or merge is."""

    task: DiagnoseTask
    state: WorkState

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state.phase in {"Succeeded", "Failed"}


def diagnose(spec: PipelineSpec, nodes: Mapping[str, Node], jobs: PipelineJobs) -> tuple[Diagnosis, ...]:
    """A Job for every stage and merge that is done and that a diagnostic looks at."""
    if not spec.evaluation.diagnostics:
        return ()
    tasks = [task for node in nodes.values() if (task := task_of(spec, node, nodes)) is not None]
    return tuple(Diagnosis(task, jobs.run("diagnose", task)[0]) for task in tasks)


def task_of(spec: PipelineSpec, node: Node, nodes: Mapping[str, Node]) -> DiagnoseTask | None:
    """What is asked about a node; None when it is not done or nothing looks at it."""
    wanted = [item for item in spec.evaluation.diagnostics if LOOKS_AT[item.name] & _kinds(spec, node)]
    bank = _bank(spec, wanted)
    items = nodes[bank_node(bank)].output if bank else None
    is_ready = node.output is not None and (bank is None or items is not None)
    if not wanted or not is_ready or node.output is None or node.inputs is None:
        return None
    merge = node.inputs if isinstance(node.inputs, MergeInputs) else None
    stage = node.inputs if isinstance(node.inputs, StageInputs) else None
    return DiagnoseTask(
        subject=node.name,
        checkpoint=node.output,
        start=stage.start_from if stage and stage.method not in _FROM_SCRATCH else None,
        base=nodes[BASE].output if BASE in nodes else None,
        parents=list(merge.parents) if merge else [],
        run=node.digest if stage else None,
        bank=items,
        axes=_axes(spec, bank),
        diagnostics=wanted,
    )


def _kinds(spec: PipelineSpec, node: Node) -> set[str]:
    """What a node is to diagnostics. A control is measured like anything else, but not diagnosed."""
    declared = {*(stage.name for stage in spec.stages), *(merge.name for merge in spec.merges)}
    if node.name not in declared:
        return set()
    candidates = spec.promotion.candidates if spec.promotion else []
    own = "merge" if node.merge is not None else node.method
    return {own, *(["candidate"] if node.name in candidates else [])}


def _bank(spec: PipelineSpec, wanted: Sequence[Diagnostic]) -> str | None:
    """The first bank with dev items that has the axes which diagnostics name."""
    named = {item.axis for item in wanted if item.axis}
    return next((bank.name for bank in spec.evaluation.banks if bank.dev and named <= bank.tasks.keys()), None)


def _axes(spec: PipelineSpec, bank: str | None) -> list[Axis]:
    known = {name for item in spec.evaluation.banks if item.name == bank for name in item.tasks}
    return [axis for axis in spec.evaluation.axes if axis.name in known]


def summaries(found: Sequence[Diagnosis]) -> list[DiagnosticSummary]:
    """A line for everything that is known."""
    return [line for diagnosis in found for line in _lines(diagnosis)][:256]


def _lines(diagnosis: Diagnosis) -> list[DiagnosticSummary]:
    state, subject = diagnosis.state, diagnosis.task.subject
    if state.phase == "Failed":
        message = f"{state.reason}: {state.message}"[:1024]
        return [
            DiagnosticSummary(name=item.name, subject=subject, state="NotMeasured", message=message)
            for item in diagnosis.task.diagnostics
        ]
    report = state.report
    if report is None or report.diagnose is None:
        return []
    return [
        DiagnosticSummary(**finding.model_dump(), subject=subject, evidence_digest=report.output_digest)
        for finding in report.diagnose.findings
    ]
