"""RunSpec (the operator writes, a pod reads) and RunReport (the pod writes, the operator reads).

A RunSpec reaches its pod as the file named by BESSEMER_RUN_SPEC. A RunReport is JSON of at most 4,096 bytes in the
container's termination message (the file named by BESSEMER_TERMINATION_LOG); larger evidence stays in the store.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from bessemer_api.base import Model
from bessemer_api.fields import AxisName, Digest, Name, StoreUrl, Text
from bessemer_api.v1alpha1.data import Source
from bessemer_api.v1alpha1.diagnostic import Diagnostic, DiagnosticName
from bessemer_api.v1alpha1.evaluation import Axis, BankTask, EvaluationInputs
from bessemer_api.v1alpha1.gate import GateAxis, Veto
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_api.v1alpha1.train import Checkpoint, DeepSpeed

SPEC_ENV = "BESSEMER_RUN_SPEC"
REPORT_ENV = "BESSEMER_TERMINATION_LOG"
METRICS_PORT_ENV = "BESSEMER_METRICS_PORT"
MAX_REPORT_BYTES = 4096

EXIT_DONE = 0
EXIT_PERMANENT = 64
"""Bad RunSpec or data: trying again would not help."""
EXIT_TRANSIENT = 75
"""Store or network: trying again may help."""
EXIT_PREEMPTED = 143
"""Asked to stop by SIGTERM, saved, ended."""


class ResolveTask(Model):
    """Look at the world once: pin the content of every source and read the heads of the channels."""

    base: Source | None = None
    data: dict[Name, list[Source]] = Field(default_factory=dict)
    banks: dict[Name, dict[AxisName, BankTask]] = Field(default_factory=dict)
    channels: list[Name] = Field(default_factory=list)


class ChannelHead(Model):
    """The newest record of a channel, and its anchors."""

    record: int = Field(0, ge=0, description="0 while the channel is empty.")
    digest: Digest | None = None
    at: str = ""
    anchors: dict[AxisName, Digest] = Field(
        default_factory=dict, description="Per axis the last release that won on it, else the first release."
    )
    held: list[Digest] = Field(default_factory=list, description="Digests that a rollback left.")


class ResolveReport(Model):
    """Answer to ResolveTask. Keys of `contents`: `base`, `data/<name>`, `bank/<name>`."""

    contents: dict[str, Digest] = Field(default_factory=dict)
    channels: dict[Name, ChannelHead] = Field(default_factory=dict)


class Arm(Model):
    """The results of one checkpoint on all ranges so far."""

    checkpoint: Digest
    results: list[Digest] = Field(min_length=1, description="Evaluation artifacts, one a range, in order.")


class CompareTask(Model):
    """Register the try, then read the stored items of the arms, then report paired statistics."""

    gate: Name
    gate_digest: Digest = Field(description="Of all that the gate asks and how it is measured; another is another try.")
    axes: list[GateAxis]
    measures: list[Axis] = Field(description="How each axis was measured, same names as in `axes`.")
    looks: list[int]
    look: int = Field(ge=1, description="Which look this is, counted from 1.")
    candidate: Arm
    baseline: Arm
    anchors: dict[AxisName, Arm] = Field(default_factory=dict, description="Anchors that differ from the baseline.")
    bank: Digest = Field(description="Bank artifact; tries of a channel that share gate items count together.")
    channel: Name | None = Field(None, description="Channel whose tries are counted; absent for a stage gate.")
    record: int = Field(0, description="Head of the channel when the gate started; tries count from there.")
    vetoes: list[Veto] = Field(default_factory=list)
    training_data: list[Digest] = Field(default_factory=list, description="Prepared data that the candidate saw.")
    regression: list[Digest] | None = Field(
        None, description="Evaluations of the candidate on the regression suites (veto `regression`)."
    )


class AxisEvidence(Model):
    """Paired statistics of one axis, oriented so that larger is better."""

    name: AxisName
    n: int = Field(ge=0, description="Items.")
    clusters: int = Field(ge=0, description="Independent clusters; n when items are independent.")
    largest_cluster_share: float = Field(ge=0, le=1)
    delta: float = Field(description="Mean paired difference, candidate minus baseline.")
    standard_error: float = Field(ge=0)
    low: float = Field(description="Lower end of the two-sided 95 % interval of delta.")
    high: float = Field(description="Upper end.")
    p_win: float = Field(ge=0, le=1, description="p of H0: d <= winBy; 1 when the axis has none.")
    p_hold: float = Field(ge=0, le=1, description="p of H0: d <= -notWorseThan.")
    p_worse: float = Field(ge=0, le=1, description="p of H0: d >= -notWorseThan; small proves worse.")
    p_no_win: float = Field(ge=0, le=1, description="p of H0: d >= winBy; small proves no win; 1 without winBy.")
    baseline_mean: float
    candidate_mean: float
    baseline_low: float = Field(description="One-sided 95 % lower bound of the baseline's mean.")
    chance: float | None = Field(None, description="Mean of a guesser; absent where there is none.")
    binary: bool = Field(description="Whether items are right or wrong.")


class CompareReport(Model):
    """Answer to CompareTask: all that the gate decides from."""

    look: int
    tries: int = Field(ge=0, description="This is the j-th try on these items for this channel; 1 for a stage gate.")
    bank_uses: int = Field(0, ge=0, description="How often these items judged a nominee, in all.")
    axes: list[AxisEvidence]
    anchors: list[AxisEvidence] = Field(default_factory=list)
    vetoes: list[Veto] = Field(default_factory=list, description="Vetoes that fired.")
    veto_detail: Text = ""
    settings_agree: bool = Field(description="All arms were measured by the same evaluator with the same settings.")


class DiagnoseTask(Model):
    """Look for known failure modes of one checkpoint, against the checkpoints that it was made from."""

    subject: Name = Field(description="Stage or merge that made the checkpoint.")
    checkpoint: Digest
    start: Digest | None = Field(None, description="Checkpoint that the stage started from.")
    base: Digest | None = Field(None, description="The model from before all stages.")
    parents: list[Digest] = Field(default_factory=list, max_length=16, description="Parents of a merge, in order.")
    run: Digest | None = Field(None, description="Input digest of the training run, whose log is read.")
    bank: Digest | None = Field(None, description="Bank whose dev items are read.")
    axes: list[Axis] = Field(default_factory=list, description="How the axes of the bank are measured.")
    diagnostics: list[Diagnostic] = Field(min_length=1)


class DiagnosticFinding(Model):
    """What one diagnostic found."""

    name: DiagnosticName
    state: Literal["Quiet", "Alarm", "NotMeasured"]
    value: float | None = None
    limit: float | None = None
    message: Annotated[str, Field(max_length=300)] = ""


class DiagnoseReport(Model):
    """Answer to DiagnoseTask; the results of all items are in the artifact."""

    findings: list[DiagnosticFinding]


class PromoteTask(Model):
    """Write the channel's next record, if its head is still the one that was gated against."""

    channel: Name
    candidate: Digest
    record: int = Field(description="Head of the channel when the gate started; 0 while empty.")
    gate: Name
    evidence: Digest
    wins: list[AxisName] = Field(default_factory=list)
    pipeline: str
    pipeline_uid: str = ""
    by: str = ""


class PromoteReport(Model):
    """Answer to PromoteTask."""

    outcome: Literal["Promoted", "AlreadyPromoted", "BaselineMoved", "Held"]
    record: int
    digest: Digest | None = None
    at: str = ""


class MergeTask(Model):
    """Merge the parents. `names` are for messages alone; where there are none, digests name the parents."""

    inputs: MergeInputs
    names: list[Name] = Field(default_factory=list, max_length=16)


class ReportTask(Model):
    """Render the HTML report from the pipeline and what the store holds."""

    pipeline: dict[str, Any] = Field(description="The AdaptationPipeline as it is, with status.")
    stages: list[dict[str, Any]] = Field(default_factory=list, description="Its TrainingStages, with status.")
    merges: list[dict[str, Any]] = Field(default_factory=list, description="Its MergeJobs, with status.")
    evaluations: list[dict[str, Any]] = Field(default_factory=list, description="Its Evaluations, with status.")
    comparisons: list[dict[str, Any]] = Field(default_factory=list, description="CompareReports by gate.")


Verb = Literal["resolve", "stage", "merge", "evaluate", "compare", "diagnose", "promote", "report"]


class RunSpec(Model):
    """What a pod shall do. Exactly the field of its verb is set."""

    schema_version: Literal[1] = 1
    run_uid: Annotated[str, Field(max_length=128)] = Field(description="Unique to the attempt.")
    verb: Verb
    store: StoreUrl
    input_digest: Digest = Field(description="Identity of the work; names the run folder `runs/<digest>/`.")
    attempt: int = Field(1, ge=1)
    world_size: int = Field(1, ge=1, description="Ranks that were declared; the trainer refuses another number.")
    deepspeed: DeepSpeed = Field(default_factory=lambda: DeepSpeed.model_validate({}))
    checkpoint: Checkpoint = Field(default_factory=lambda: Checkpoint.model_validate({}))
    resolve: ResolveTask | None = None
    stage: StageInputs | None = None
    merge: MergeTask | None = None
    evaluate: EvaluationInputs | None = None
    compare: CompareTask | None = None
    diagnose: DiagnoseTask | None = None
    promote: PromoteTask | None = None
    report: ReportTask | None = None


class RunError(Model):
    """Why a pod gave up: what was wrong, where, what was expected, what to do."""

    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=64)]
    message: Text


class RunReport(Model):
    """What a pod tells the operator."""

    schema_version: Literal[1] = 1
    run_uid: Annotated[str, Field(max_length=128)]
    verb: Verb
    input_digest: Digest
    output_digest: Digest | None = Field(None, description="Artifact that was made (evidence, for a comparison).")
    step: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    metrics: dict[Annotated[str, Field(max_length=64)], float] = Field(default_factory=dict, max_length=24)
    reused: bool = Field(False, description="The result was already in the store; nothing was computed.")
    error: RunError | None = None
    resolve: ResolveReport | None = None
    compare: CompareReport | None = None
    diagnose: DiagnoseReport | None = None
    promote: PromoteReport | None = None
    url: Annotated[str, Field(max_length=512)] = Field("", description="Where the report was written.")
