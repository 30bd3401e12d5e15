"""What a report is made of, as plain values. Nothing here reads, judges or draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bessemer_api.job import CompareReport, CompareTask
from bessemer_api.v1alpha1.diagnostic import DiagnosticSummary
from bessemer_api.v1alpha1.evaluation import WorkStatus
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.pipeline import ChannelSummary, GateSummary, PipelineSpec, StageSummary
from bessemer_api.v1alpha1.promotion import CandidateSummary, NominationSummary
from bessemer_api.v1alpha1.stage import StageInputs


@dataclass(frozen=True, slots=True)
class Comparison:
    """One look of a gate as it was stored."""

    digest: str
    task: CompareTask
    report: CompareReport


@dataclass(frozen=True, slots=True)
class Work:
    """One stage or merge with what it was made from and what came of it; `meta` is its artifact's.

    `log` holds the lines of its training log, each with `tokens` and `loss` at least.
    """

    name: str
    object: str
    input_digest: str
    inputs: StageInputs | MergeInputs
    status: WorkStatus
    nodes: int = 1
    meta: Mapping[str, Any] = field(default_factory=dict)
    log: Sequence[Mapping[str, float]] = ()

    @property
    def stage(self) -> StageInputs | None:
        """Its inputs when it is a stage."""
        return self.inputs if isinstance(self.inputs, StageInputs) else None

    @property
    def merge(self) -> MergeInputs | None:
        """Its inputs when it is a merge."""
        return self.inputs if isinstance(self.inputs, MergeInputs) else None


@dataclass(frozen=True, slots=True)
class DevItem:
    """The stored result of one dev item, with the item itself. Items of the gate part never become one."""

    id: str
    score: float
    cluster: str | None
    result: Mapping[str, Any]
    item: Mapping[str, Any]


DevResults = Mapping[str, Mapping[str, Sequence[DevItem]]]
"""By checkpoint digest, then by axis: results on dev items in the order of the bank."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a diagnose run stored: its findings with tables of figures by name."""

    digest: str
    subject: str
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a report is made of."""

    name: str
    namespace: str
    spec: PipelineSpec
    rows: Sequence[StageSummary]
    gates: Sequence[GateSummary]
    channels: Sequence[ChannelSummary]
    conditions: Sequence[Mapping[str, Any]]
    works: Sequence[Work]
    comparisons: Sequence[Comparison]
    evaluations: Sequence[Mapping[str, Any]]
    tries: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    candidates: Sequence[CandidateSummary] = ()
    nomination: NominationSummary | None = None
    diagnostics: Sequence[DiagnosticSummary] = ()
    diagnoses: Sequence[Diagnosis] = ()
    dev: DevResults = field(default_factory=dict)
