"""The kind AdaptationPipeline: the declaration of how a model is made, judged and promoted."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Conditions, Metadata, Model
from bessemer_api.fields import (
    STORE_IS_IMMUTABLE,
    AxisName,
    Commit,
    Digest,
    Name,
    ShortText,
    StoreUrl,
    Text,
    Timestamp,
    Token,
    Uri,
    Url,
    immutable,
)
from bessemer_api.v1alpha1.data import DataSet, Mixture
from bessemer_api.v1alpha1.diagnostic import DiagnosticSummary
from bessemer_api.v1alpha1.evaluation import Attempt, Phase, PipelineEvaluation
from bessemer_api.v1alpha1.gate import Gate
from bessemer_api.v1alpha1.git import MergeWait
from bessemer_api.v1alpha1.merge import Merge, MergeSummary
from bessemer_api.v1alpha1.promotion import CandidateSummary, NominationSummary, Promotion, RollbackSummary
from bessemer_api.v1alpha1.train import (
    BaseShape,
    ChatTemplate,
    Checkpoint,
    DeepSpeed,
    Limits,
    Method,
    ModelShape,
    TokenizerTraining,
    Train,
)


class Base(Model):
    """The model that the pipeline starts from."""

    model: Uri = Field(description="Folder of a model in Hugging Face layout: a path, file:// or s3://.")
    sha256: Digest | None = Field(None, description="Expected digest of the folder; other content is refused.")
    kind: Literal["base", "instruct"] = Field("base", description="Whether the model was aligned to instructions.")
    shape: BaseShape | None = Field(
        None, description="Its shape, as in its config.json: for estimates of memory and time before it is read."
    )
    chat_template: ChatTemplate = Field(
        "fromModel", description="How messages become text in every stage that names no chatTemplate."
    )


class Budget(Model):
    """What the pipeline may cost. More than that by estimate, and nothing is trained until it is raised."""

    gpu_hours: Annotated[float, Field(gt=0, le=100_000_000)] = Field(
        description="GPU hours of everything that is still to run, by estimate; what is reused costs nothing."
    )


class Profiles(Model):
    """Names of the admin's profiles; a stage may name another."""

    train: Name = Field("default", description="Training stages.")
    prepare: Name = Field("default", description="Data, banks, tokenizers, mixtures.")
    merge: Name = Field("default", description="Merges.")
    evaluate: Name = Field("default", description="Evaluations.")
    promote: Name = Field("default", description="Resolve, compare, promote, report.")


class Stage(Model):
    """One stage of the pipeline."""

    name: Name = Field(description="Name of the stage, unique in the pipeline.")
    method: Method = Field(description="What the stage does.")
    from_: Name | None = Field(
        None, alias="from", description="Stage or merge whose output this one starts from; default: the stage before."
    )
    data: Mixture = Field(description="What the stage reads.")
    model: ModelShape | None = Field(None, description="Shape of the model (pretrain).")
    tokenizer: TokenizerTraining | None = Field(None, description="Settings of a tokenizer stage.")
    train: Train | None = Field(None, description="Hyper-parameters of a training stage.")
    chat_template: ChatTemplate | None = Field(
        None, description="How messages become text; default: base.chatTemplate, without a base the model's own."
    )
    reward: Name | None = Field(None, description="Stage of method reward whose model rewards grpo; absent: verifiers.")
    reference: Name | None = Field(
        None, description="Stage whose output is the reference policy (dpo, kto, grpo); default: where training starts."
    )
    seed: int | None = Field(None, ge=0, le=2**31, description="Seed; default: the pipeline's.")
    checkpoint: Checkpoint = Field(default_factory=lambda: Checkpoint.model_validate({}), description="Saving.")
    nodes: int = Field(1, ge=1, le=4096, description="Nodes of a training stage.")
    deepspeed: DeepSpeed = Field(default_factory=lambda: DeepSpeed.model_validate({}), description="DeepSpeed.")
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}), description="When to give up.")
    profile: Name | None = Field(None, description="Profile; default: the pipeline's for this kind of work.")
    gate: Name | None = Field(None, description="Gate that the output must pass before later stages start.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        ("(self.method == 'tokenizer') == has(self.tokenizer)", "tokenizer belongs to method tokenizer and only there"),
        ("(self.method == 'pretrain') == has(self.model)", "model belongs to method pretrain, and only there"),
        ("(self.method == 'tokenizer') != has(self.train)", "train belongs to every training method, and only there"),
        (
            "!has(self.train) || has(self.train.globalBatchExamples)"
            " || self.train.globalBatchTokens % self.data.sequenceLength == 0",
            "train.globalBatchTokens must be a multiple of data.sequenceLength",
        ),
        (
            "!has(self.train) || !has(self.train.globalBatchExamples)"
            " || self.method in ['dpo', 'orpo', 'kto', 'reward', 'grpo']"
            " || (self.method == 'sft' && !self.data.packing)",
            "train.globalBatchExamples belongs to methods on pairs or prompts, and to sft without packing",
        ),
        (
            "!has(self.train) || self.train.neftuneAlpha == 0.0 || self.method == 'sft'",
            "train.neftuneAlpha belongs to method sft",
        ),
        (
            "!has(self.train) || self.train.lossType == 'sigmoid' || self.method == 'dpo'",
            "train.lossType belongs to method dpo",
        ),
        (
            "!has(self.train) || !has(self.train.lora) || self.method != 'pretrain'",
            "train.lora needs a model that was trained before; pretrain makes a new one",
        ),
        ("!has(self.train) || !has(self.train.grpo) || self.method == 'grpo'", "train.grpo belongs to method grpo"),
        ("!has(self.reward) || self.method == 'grpo'", "reward belongs to method grpo"),
        ("!has(self.reference) || self.method in ['dpo', 'kto', 'grpo']", "reference belongs to dpo, kto and grpo"),
        (
            "!has(self.chatTemplate) || !(self.method in ['tokenizer', 'pretrain', 'cpt'])",
            "chatTemplate belongs to methods on examples, pairs and prompts",
        ),
        ("self.method != 'tokenizer' || self.nodes == 1", "a tokenizer stage has one node"),
        ("self.method != 'tokenizer' || !has(self.gate)", "a tokenizer stage has no gate"),
        ("self.method != 'reward' || !has(self.gate)", "a reward stage has no gate"),
        ("!has(self.from) || self.from != self.name", "a stage can not start from itself"),
    )

    @model_validator(mode="after")
    def _fields_of_the_method(self) -> Self:
        if (self.method == "tokenizer") != (self.tokenizer is not None):
            raise ValueError("tokenizer belongs to method tokenizer and only there")
        if (self.method == "pretrain") != (self.model is not None):
            raise ValueError("model belongs to method pretrain, and only there")
        if (self.method == "tokenizer") == (self.train is not None):
            raise ValueError("train belongs to every training method, and only there")
        if self.reward is not None and self.method != "grpo":
            raise ValueError("reward belongs to method grpo")
        if self.reference is not None and self.method not in {"dpo", "kto", "grpo"}:
            raise ValueError("reference belongs to dpo, kto and grpo")
        if self.chat_template is not None and self.method in {"tokenizer", "pretrain", "cpt"}:
            raise ValueError("chatTemplate belongs to methods on examples, pairs and prompts")
        return self

    @model_validator(mode="after")
    def _batch(self) -> Self:
        if self.train is None:
            return self
        if self.train.global_batch_examples is None:
            if self.train.global_batch_tokens % self.data.sequence_length:
                raise ValueError("train.globalBatchTokens must be a multiple of data.sequenceLength")
        elif self.method in {"pretrain", "cpt"} or (self.method == "sft" and self.data.packing):
            raise ValueError(
                "train.globalBatchExamples belongs to methods on pairs or prompts, and to sft without packing"
            )
        return self

    @model_validator(mode="after")
    def _train_fields_of_the_method(self) -> Self:
        if self.train is None:
            return self
        if self.train.neftune_alpha and self.method != "sft":
            raise ValueError("train.neftuneAlpha belongs to method sft")
        if self.train.loss_type != "sigmoid" and self.method != "dpo":
            raise ValueError("train.lossType belongs to method dpo")
        if self.train.lora is not None and self.method == "pretrain":
            raise ValueError("train.lora needs a model that was trained before; pretrain makes a new one")
        if self.train.grpo is not None and self.method != "grpo":
            raise ValueError("train.grpo belongs to method grpo")
        return self

    @model_validator(mode="after")
    def _limits_of_the_method(self) -> Self:
        if self.method == "tokenizer" and self.nodes != 1:
            raise ValueError("a tokenizer stage has one node")
        if self.method == "tokenizer" and self.gate is not None:
            raise ValueError("a tokenizer stage has no gate")
        if self.method == "reward" and self.gate is not None:
            raise ValueError("a reward stage has no gate")
        if self.from_ == self.name:
            raise ValueError("a stage can not start from itself")
        return self


class PipelineSpec(Model):
    """What is made, how it is judged, and where it is promoted to."""

    suspend: bool = Field(False, description="Stop: running stages save and end; nothing new starts.")
    store: StoreUrl = Field(
        description="Artifact store. Immutable.",
        json_schema_extra=immutable(STORE_IS_IMMUTABLE),
    )
    profiles: Profiles = Field(default_factory=lambda: Profiles.model_validate({}), description="Profiles of pods.")
    seed: int = Field(0, ge=0, le=2**31, description="Seed of every stage that names none.")
    base: Base | None = Field(None, description="Model to start from; absent when a stage pretrains from scratch.")
    data: dict[Name, DataSet] = Field(default_factory=dict, max_length=64, description="Data sets by name.")
    stages: list[Stage] = Field(
        default_factory=list,
        max_length=64,
        description="Stages: a DAG by `from`.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    merges: list[Merge] = Field(
        default_factory=list,
        max_length=32,
        description="Merges; their names stand beside those of the stages.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    evaluation: PipelineEvaluation = Field(
        default_factory=lambda: PipelineEvaluation.model_validate({}), description="What is measured."
    )
    gates: list[Gate] = Field(
        default_factory=list,
        max_length=8,
        description="Gates.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    promotion: Promotion | None = Field(None, description="What may be promoted, and where to.")
    budget: Budget | None = Field(None, description="What the pipeline may cost; absent: anything.")
    revision_history_limit: int = Field(10, ge=0, le=1000, description="Superseded children that are kept, by kind.")


class StageSummary(Model):
    """One line of status.stages; data sets, banks and mixtures are listed as stages too."""

    name: Annotated[str, Field(max_length=63)] = Field(description="Name of the stage, data set or bank.")
    method: Annotated[str, Field(max_length=20)] = Field(description="What is done.")
    object: Annotated[str, Field(max_length=63)] = Field("", description="Name of the TrainingStage or MergeJob.")
    phase: Phase = Field(description="Where it is.")
    attempt: int = Field(0, ge=0, description="Number of the newest attempt.")
    input_digest: Digest | None = Field(None, description="Identity; absent while inputs are not known yet.")
    output_digest: Digest | None = Field(None, description="Artifact that was made.")
    progress_percentage: int = Field(0, ge=0, le=100, description="Share of the work that is done.")
    estimated_remaining_seconds: int | None = Field(None, ge=0, description="Estimated time left.")
    reused: bool = Field(False, description="Found by its input digest; nothing ran for this generation.")
    message: Text = Field("", description="Why it failed or waits.")


class AxisSummary(Model):
    """One axis of a verdict."""

    name: AxisName = Field(description="Axis.")
    n: int = Field(ge=0, description="Items.")
    delta: float = Field(description="Mean paired difference, candidate minus baseline; larger is better.")
    standard_error: float = Field(ge=0, description="Standard error of delta.")
    interval: list[float] = Field(min_length=2, max_length=2, description="95 % confidence interval of delta.")
    state: Annotated[str, Field(max_length=20)] = Field(description="Won, Holds, Worse, NotShown.")


class GateSummary(Model):
    """One verdict."""

    name: Name = Field(description="Gate.")
    verdict: Literal["Pending", "Passed", "Failed", "Inconclusive", "Invalid", "Error"] = Field(
        description="Error: something broke while measuring; neither a pass nor a failed gate."
    )
    reason: Annotated[str, Field(max_length=64)] = Field(description="One PascalCase word.")
    message: Text = Field("", description="One sentence with the numbers.")
    candidate: Digest | None = Field(None, description="Checkpoint that was judged.")
    baseline: Digest | None = Field(None, description="Checkpoint that it was compared with.")
    look: int = Field(0, ge=0, description="Looks taken.")
    alpha_spent: float = Field(0.0, ge=0, le=1, description="Alpha spent by the looks so far, for this try.")
    tries: int = Field(0, ge=0, description="Nominees judged on this bank for this channel since its last promotion.")
    evidence_digest: Digest | None = Field(None, description="Evidence in the store.")
    axes: list[AxisSummary] = Field(default_factory=list, max_length=16, description="Axes against the baseline.")


class ChannelSummary(Model):
    """What a channel holds."""

    name: Name = Field(description="Channel.")
    digest: Digest | None = Field(None, description="Promoted checkpoint; absent while the channel is empty.")
    record: int = Field(0, ge=0, description="Number of the newest record.")
    at: Annotated[str, Field(max_length=40)] = Field("", description="When it was written.")
    kind: Annotated[str, Field(max_length=20)] | None = Field(
        None, description="How it came there: promotion, override or rollback."
    )
    by: ShortText | None = Field(None, description="Who asked for it: a person, or bessemer.")
    previous: Digest | None = Field(None, description="What the channel held before.")
    held: list[Digest] | None = Field(
        None, max_length=8, description="Newest digests that a rollback left; they are not promoted again."
    )
    soaks_until: Timestamp | None = Field(None, description="When it is to follow the channel before.")
    merge: MergeWait | None = Field(None, description="The change in git, while it waits to be merged.")
    commit: Commit | None = Field(None, description="Commit by which git has it.")
    release: Digest | None = Field(
        None,
        description="Folder that is handed over, `<store>/artifacts/<release>`: the checkpoint with its model card.",
    )


class PipelineStatus(Model):
    """What was observed."""

    observed_generation: int = Field(0, ge=0, description="Generation that this status was decided for.")
    conditions: Conditions = Field(
        default_factory=list,
        description="Ready, Reconciling, Stalled, Suspended, Prepared, Trained, Evaluated, GatePassed, Promoted, "
        "and RolledBack once a rollback was asked for.",
    )
    stages: list[StageSummary] = Field(default_factory=list, max_length=256, description="Stages in order.")
    gates: list[GateSummary] = Field(default_factory=list, max_length=16, description="Verdicts.")
    merges: list[MergeSummary] = Field(
        default_factory=list, max_length=32, description="Whether merges with a control show synergy, on dev items."
    )
    candidates: list[CandidateSummary] = Field(
        default_factory=list, max_length=16, description="Candidates and their dev figures, where there are several."
    )
    nomination: NominationSummary | None = Field(None, description="Which of several candidates the gate judges.")
    channels: list[ChannelSummary] = Field(default_factory=list, max_length=16, description="Channels.")
    rollback: RollbackSummary | None = Field(None, description="The last rollback.")
    late: list[Attempt] = Field(
        default_factory=list,
        max_length=32,
        description="Attempts of the pipeline's own Jobs that were ended by their deadline.",
    )
    diagnostics: list[DiagnosticSummary] = Field(
        default_factory=list, max_length=256, description="What the diagnostics found."
    )
    observed_refresh: Token = Field("", description="Value of the refresh annotation that was acted on.")
    current_stage: Annotated[str, Field(max_length=63)] = Field("", description="For kubectl get: what runs now.")
    progress: Annotated[str, Field(max_length=20)] = Field("", description="For kubectl get: stages done of all.")
    gate: Annotated[str, Field(max_length=20)] = Field("", description="For kubectl get: the release gate's verdict.")
    promoted: Annotated[str, Field(max_length=20)] = Field("", description="For kubectl get: short promoted digest.")
    report: Url = Field("", description="URL of the HTML report; empty while that of a new decision is written.")


class AdaptationPipeline(Model):
    """How a model is made, judged and promoted: a declaration, not a run.

    What changed in it is done again, and only that.
    """

    api_version: Literal["bessemer.dev/v1alpha1"] = "bessemer.dev/v1alpha1"
    kind: Literal["AdaptationPipeline"] = "AdaptationPipeline"
    metadata: Metadata
    spec: PipelineSpec
    status: PipelineStatus = Field(default_factory=lambda: PipelineStatus.model_validate({}))
