"""RunSpec (the operator writes, a pod reads) and RunReport (the pod writes, the operator reads).

A RunSpec reaches its pod as the file named by BESSEMER_RUN_SPEC. A RunReport is JSON of at most 4,096 bytes in the
container's termination message (the file named by BESSEMER_TERMINATION_LOG); larger evidence stays in the store.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from bessemer_api.base import Model
from bessemer_api.fields import AxisName, Commit, Digest, Name, ShortText, StoreUrl, Text, Url
from bessemer_api.v1alpha1.data import Source
from bessemer_api.v1alpha1.diagnostic import Diagnostic, DiagnosticName
from bessemer_api.v1alpha1.evaluation import Axis, BankTask, EvaluationInputs
from bessemer_api.v1alpha1.gate import GateAxis, Veto
from bessemer_api.v1alpha1.git import GitTarget
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_api.v1alpha1.train import Checkpoint, DeepSpeed

SPEC_ENV = "BESSEMER_RUN_SPEC"
REPORT_ENV = "BESSEMER_TERMINATION_LOG"
METRICS_PORT_ENV = "BESSEMER_METRICS_PORT"
GIT_CREDENTIALS_ENV = "BESSEMER_GIT_CREDENTIALS"
"""Names a folder: `username` and `password` (or `token` alone), `ssh-privatekey` with `known_hosts`, `ca.crt`."""
SIGNING_ENV = "BESSEMER_SIGNING"
"""Names a folder: `public.pem`, one public key or several, and in promotion pods `private.pem`."""
MAX_REPORT_BYTES = 4096

EXIT_DONE = 0
EXIT_PERMANENT = 64
"""Bad RunSpec or data: trying again would not help."""
EXIT_TRANSIENT = 75
"""Store or network: trying again may help."""
EXIT_PREEMPTED = 143
"""Asked to stop by SIGTERM, saved, ended."""


def log_key(input_digest: str, run_uid: str, node: int = 0) -> str:
    """Key in the store of what an attempt's pod wrote; a gang has a pod a node."""
    suffix = f".{node}" if node else ""
    return f"runs/{input_digest.removeprefix('sha256:')}/logs/{run_uid}{suffix}.log"


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
    held: list[Digest] = Field(default_factory=list, description="Newest digests that a rollback left, at most 8.")
    kind: Literal["promotion", "override", "rollback"] | None = Field(None, description="Kind of the newest record.")
    origin: Literal["promotion", "override"] | None = Field(
        None, description="How the digest first came there: kind of the last record of it that is no rollback."
    )
    gate: Name | None = Field(None, description="Gate under which the digest was promoted.")
    evidence: Digest | None = Field(None, description="Evidence of that gate.")
    wins: list[AxisName] | None = Field(None, description="Axes that it won then.")
    by: ShortText | None = Field(None, description="Who asked for the newest record.")
    previous: Digest | None = Field(None, description="What the channel held before.")
    commit: Commit | None = Field(None, description="Commit by which git has it, where a deploy repository says so.")
    release: Digest | None = Field(None, description="Folder that is handed over: the checkpoint with its card.")


class ResolveReport(Model):
    """Answer to ResolveTask. Keys of `contents`: `base`, `data/<name>`, `bank/<name>`."""

    contents: dict[str, Digest] = Field(default_factory=dict)
    channels: dict[Name, ChannelHead] = Field(default_factory=dict)


class Arm(Model):
    """The results of one checkpoint on all ranges so far."""

    checkpoint: Digest
    results: list[Digest] = Field(min_length=1, description="Evaluation artifacts, one a range, in order.")


class AlsoArm(Model):
    """A further checkpoint that the candidate is compared with, on some of the axes."""

    axes: list[AxisName] = Field(min_length=1, max_length=16)
    arm: Arm


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
    also: dict[Name, AlsoArm] | None = Field(None, description="Further comparisons that must hold.")
    part: Literal["dev"] | None = Field(
        None, description="Dev items, which compare merges with their parents and count no try; else gate items."
    )
    vetoes: list[Veto] = Field(default_factory=list)
    training_data: list[Digest] = Field(default_factory=list, description="Prepared data that the candidate saw.")
    regression: list[Digest] | None = Field(
        None, description="Evaluations of the candidate on the regression suites (veto `regression`)."
    )


class HoldEvidence(Model):
    """Paired statistics of one axis of which is asked only whether it holds; oriented so that larger is better."""

    name: AxisName
    n: int = Field(ge=0, description="Items.")
    clusters: int = Field(ge=0, description="Independent clusters; n when items are independent.")
    largest_cluster_share: float = Field(ge=0, le=1)
    delta: float = Field(description="Mean paired difference, candidate minus the other arm.")
    standard_error: float = Field(ge=0)
    low: float = Field(description="Lower end of the two-sided 95 % interval of delta.")
    high: float = Field(description="Upper end.")
    p_hold: float = Field(ge=0, le=1, description="p of H0: d <= -notWorseThan.")
    p_worse: float = Field(ge=0, le=1, description="p of H0: d >= -notWorseThan; small proves worse.")
    baseline_mean: float = Field(description="Mean of the other arm.")
    candidate_mean: float
    binary: bool = Field(description="Whether items are right or wrong.")


class AxisEvidence(HoldEvidence):
    """Paired statistics of one axis against the baseline."""

    p_win: float = Field(ge=0, le=1, description="p of H0: d <= winBy; 1 when the axis has none.")
    p_no_win: float = Field(ge=0, le=1, description="p of H0: d >= winBy; small proves no win; 1 without winBy.")
    baseline_low: float = Field(description="One-sided 95 % lower bound of the baseline's mean.")
    chance: float | None = Field(None, description="Mean of a guesser; absent where there is none.")


class CompareReport(Model):
    """Answer to CompareTask: all that the gate decides from."""

    look: int
    tries: int = Field(ge=0, description="This is the j-th try on these items for this channel; 1 for a stage gate.")
    bank_uses: int = Field(0, ge=0, description="How often these items judged a nominee, in all.")
    axes: list[AxisEvidence]
    anchors: list[HoldEvidence] = Field(default_factory=list)
    also: dict[Name, list[HoldEvidence]] | None = Field(None, description="By what the candidate was compared with.")
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


class Made(Model):
    """A piece of work that a candidate was made by; exactly one of `stage` and `merge` is set."""

    name: Annotated[str, Field(min_length=1, max_length=63)] = Field(description="Name of its node in the pipeline.")
    output: Digest
    stage: StageInputs | None = None
    merge: MergeInputs | None = None


class PromoteTask(Model):
    """Write the channel's next record, if its head is still the one that the operator saw."""

    channel: Name
    candidate: Digest
    record: int = Field(description="Head of the channel when the gate started; 0 while empty.")
    gate: Name
    evidence: Digest
    wins: list[AxisName] = Field(default_factory=list)
    pipeline: str
    pipeline_uid: str = ""
    by: str = Field("", description="Who approved it; bessemer where nobody had to.")
    override: Literal[True] | None = Field(None, description="Approved although the gate was not passed.")
    after: Name | None = Field(None, description="The channel before, which must still hold the candidate.")
    lineage: list[Made] | None = Field(None, description="All that the candidate was made by, for its card; in order.")
    git: GitTarget | None = Field(None, description="What must say so before the record is written.")


class PromoteReport(Model):
    """Answer to PromoteTask."""

    outcome: Literal["Promoted", "AlreadyPromoted", "BaselineMoved", "Held", "LeftBefore", "WaitingForMerge"] = Field(
        description="LeftBefore: the channel before no longer holds the candidate. WaitingForMerge: it is proposed."
    )
    record: int
    digest: Digest | None = None
    at: str = ""
    url: Url = Field("", description="The pull request.")
    commit: Commit | None = Field(None, description="Commit by which git has it.")
    release: Digest | None = Field(None, description="Folder that is handed over; absent in old records.")


class MergeTask(Model):
    """Merge the parents. `names` (of the parents, then of the base) are for messages alone; else digests name them."""

    inputs: MergeInputs
    names: list[Name] = Field(default_factory=list, max_length=17)


class RollbackTask(Model):
    """Write a record of kind rollback, by which the channel holds an earlier digest of its own again."""

    channel: Name
    digest: Digest = Field(description="What the channel shall hold.")
    request: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="Value of the annotation: the same request is done once, however often it is run."
    )
    pipeline: str
    pipeline_uid: str = ""
    by: str
    git: GitTarget | None = Field(None, description="What must say so before the record is written.")


class RollbackReport(Model):
    """Answer to RollbackTask."""

    outcome: Literal["RolledBack", "AlreadyThere", "WaitingForMerge"] = Field(
        description="AlreadyThere: nothing had to be written."
    )
    record: int
    digest: Digest
    left: Digest | None = Field(None, description="What the channel held before; it is on the list of held digests.")
    at: str = ""
    url: Url = Field("", description="The pull request.")
    commit: Commit | None = Field(None, description="Commit by which git has it.")
    release: Digest | None = Field(None, description="Folder that is handed over; absent in old records.")


class ReportTask(Model):
    """Render the HTML report from the pipeline and what the store holds."""

    pipeline: dict[str, Any] = Field(description="The AdaptationPipeline as it is, with status.")
    stages: list[dict[str, Any]] = Field(default_factory=list, description="Its TrainingStages, with status.")
    merges: list[dict[str, Any]] = Field(default_factory=list, description="Its MergeJobs, with status.")
    evaluations: list[dict[str, Any]] = Field(default_factory=list, description="Its Evaluations, with status.")
    comparisons: list[dict[str, Any]] = Field(default_factory=list, description="CompareReports by gate.")


Verb = Literal["resolve", "stage", "merge", "evaluate", "compare", "diagnose", "promote", "rollback", "report"]


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
    rollback: RollbackTask | None = None
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
    rollback: RollbackReport | None = None
    url: Url = Field("", description="Where the report was written.")
