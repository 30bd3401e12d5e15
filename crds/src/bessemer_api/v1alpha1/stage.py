"""The kind TrainingStage: one stage with every input pinned by digest. Data preparation is a stage too."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Metadata, Model
from bessemer_api.fields import STORE_IS_IMMUTABLE, AxisName, Digest, Name, StoreUrl, Token, immutable
from bessemer_api.v1alpha1.data import DataKind, Derive, Prepare, Source
from bessemer_api.v1alpha1.evaluation import BankTask, WorkStatus
from bessemer_api.v1alpha1.tasks import TaskName
from bessemer_api.v1alpha1.train import (
    ChatTemplate,
    Checkpoint,
    DeepSpeed,
    Limits,
    LossOn,
    ModelShape,
    TokenizerTraining,
    Train,
)

StageMethod = Literal[
    "import", "bank", "prepare", "tokenizer", "mixture",
    "pretrain", "cpt", "sft", "dpo", "orpo", "kto", "reward", "grpo",
]  # fmt: skip
"""import: a base model into the store; bank: item bank; prepare: one data set, cleaned; mixture: tokenised shards."""

MixtureFormat = Literal["text", "examples", "pairs", "prompts"]

FORMATS: Mapping[str, MixtureFormat] = {
    "pretrain": "text",
    "cpt": "text",
    "sft": "examples",
    "dpo": "pairs",
    "orpo": "pairs",
    "kto": "pairs",
    "reward": "pairs",
    "grpo": "prompts",
}
"""What each training method reads."""

TRAINING_METHODS: frozenset[str] = frozenset(FORMATS)
"""Methods that run as a PyTorchJob under torchrun; all others run as a Job of one pod."""


class BaseInputs(Model):
    """Inputs of `import`."""

    source: Source = Field(description="Folder of a model with its tokenizer (Hugging Face layout, safetensors).")
    content: Digest = Field(description="Digest of the content that was found when the pipeline was resolved.")


class PrepareInputs(Model):
    """Inputs of `prepare`."""

    sources: list[Source] = Field(default_factory=list, max_length=64, description="Sources, in order.")
    content: Digest = Field(
        description="Digest of the content that was found when the pipeline was resolved; of a derived set the "
        "prepared data that it is made from."
    )
    kind: DataKind = Field("text", description="Shape of a row.")
    derive: Derive | None = Field(None, description="Make the rows from `content` by rule; there are no sources then.")
    rules: Prepare = Field(description="Preparation rules.")
    banks: list[Digest] = Field(default_factory=list, max_length=16, description="Banks to decontaminate against.")
    holdout: Annotated[float, Field(ge=0, le=0.5)] = Field(0.0, description="Share of documents that is set aside.")


class BankInputs(Model):
    """Inputs of `bank`."""

    tasks: dict[AxisName, BankTask] = Field(min_length=1, max_length=16, description="Items by axis.")
    content: Digest = Field(description="Digest of the content that was found when the pipeline was resolved.")
    dev: int = Field(ge=0, le=1_000_000, description="Items per axis for choosing.")
    gate: int = Field(ge=1, le=1_000_000, description="Items per axis for gating.")
    cluster_by: dict[AxisName, Annotated[str, Field(max_length=64)]] = Field(
        default_factory=dict, max_length=16, description="Cluster field by axis; a cluster is never split over parts."
    )
    measures: dict[AxisName, TaskName] = Field(
        default_factory=dict,
        max_length=16,
        description="Task by axis; absent for multipleChoice and bitsPerByte, which the items tell.",
    )
    stratify_by: dict[AxisName, Annotated[str, Field(max_length=64)]] = Field(
        default_factory=dict, max_length=16, description="Stratum field by axis; every item must have it."
    )
    whole: bool = Field(False, description="A regression suite: all items, in the order of their files, in no part.")


class MixturePart(Model):
    """One prepared data set and its share."""

    name: Name = Field(description="Name of the data set, for reports.")
    digest: Digest = Field(description="Prepared data artifact.")
    weight: Annotated[float, Field(gt=0, le=1000)] = Field(1.0, description="Relative share of the tokens.")


class MixtureInputs(Model):
    """Inputs of `mixture` and of `tokenizer`."""

    parts: list[MixturePart] = Field(min_length=1, max_length=32, description="Prepared data sets.")
    sequence_length: int = Field(1024, ge=8, le=1_048_576, description="Tokens in one sequence.")
    packing: bool = Field(True, description="Pack several documents in a sequence.")
    tokenizer: Digest | None = Field(None, description="Artifact that holds the tokenizer (mixture only).")
    format: MixtureFormat = Field("text", description="text, examples (sft), pairs (preferences) or prompts (grpo).")
    loss_on: LossOn = Field("completion", description="Which tokens of an example are targets (examples only).")
    chat_template: ChatTemplate = Field("none", description="How messages become text.")


class StageInputs(Model):
    """Everything that determines the result. Its digest is the identity of the stage."""

    method: StageMethod = Field(description="What is done.")
    recipe: int = Field(1, ge=1, le=1000, description="Version of the method's code; changed when results change.")
    seed: int = Field(0, ge=0, le=2**31, description="Seed of anything random.")
    rerun: Token = Field("", description="Set by rerun-from: makes the same work count as new.")
    base: BaseInputs | None = Field(None, description="Inputs of import.")
    bank: BankInputs | None = Field(None, description="Inputs of bank.")
    prepare: PrepareInputs | None = Field(None, description="Inputs of prepare.")
    tokenizer: TokenizerTraining | None = Field(None, description="Inputs of tokenizer, beside mixture.")
    mixture: MixtureInputs | None = Field(None, description="Inputs of mixture and tokenizer.")
    model: ModelShape | None = Field(None, description="Shape of the model (pretrain).")
    train: Train | None = Field(None, description="Hyper-parameters of a training method.")
    start_from: Digest | None = Field(
        None,
        description="Artifact that the work starts from: a tokenizer (pretrain), else a checkpoint; for the method "
        "tokenizer the checkpoint that is extended.",
    )
    data: Digest | None = Field(None, description="Mixture that is trained on.")
    reward_from: Digest | None = Field(None, description="Reward model of grpo; absent: verifiers reward.")
    reference_from: Digest | None = Field(
        None, description="Reference policy of dpo, kto and grpo; absent: the checkpoint that training starts from."
    )


class StageSpec(Model):
    """The work and how it is run. Only inputs determine the result."""

    store: StoreUrl = Field(
        description="Artifact store. Immutable.",
        json_schema_extra=immutable(STORE_IS_IMMUTABLE),
    )
    inputs: StageInputs = Field(
        description="Everything that determines the result. Immutable.",
        json_schema_extra=immutable("spec.inputs is immutable"),
    )
    input_digest: Digest = Field(
        description="Digest of inputs. Immutable.",
        json_schema_extra=immutable("spec.inputDigest is immutable"),
    )
    profile: Name = Field("default", description="Profile of the pods.")
    nodes: int = Field(1, ge=1, le=4096, description="Nodes of a training stage.")
    deepspeed: DeepSpeed = Field(default_factory=lambda: DeepSpeed.model_validate({}), description="DeepSpeed.")
    checkpoint: Checkpoint = Field(default_factory=lambda: Checkpoint.model_validate({}), description="Saving.")
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}), description="When to give up.")
    suspend: bool = Field(False, description="Stop: a running attempt saves and ends; it counts as no failure.")
    retry: Token = Field("", description="Another value starts a fresh count of attempts.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            f"self.inputs.method in {sorted(TRAINING_METHODS)} || self.nodes == 1",
            "only training stages have several nodes",
        ),
    )

    @model_validator(mode="after")
    def _nodes_only_for_training(self) -> Self:
        if self.nodes != 1 and self.inputs.method not in TRAINING_METHODS:
            raise ValueError("only training stages have several nodes")
        return self


class TrainingStage(Model):
    """One stage of work with every input pinned by digest. Preparing data or a bank is a stage too."""

    api_version: Literal["bessemer.dev/v1alpha1"] = "bessemer.dev/v1alpha1"
    kind: Literal["TrainingStage"] = "TrainingStage"
    metadata: Metadata
    spec: StageSpec
    status: WorkStatus = Field(default_factory=lambda: WorkStatus.model_validate({}))
