"""The kind Evaluation, item banks and axes.

An Evaluation measures one checkpoint on one range of one bank. It is named by the digest of what it measures, so the
same measurement is never made twice; its result is immutable once written.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Conditions, Metadata, Model
from bessemer_api.fields import (
    STORE_IS_IMMUTABLE,
    AxisName,
    Digest,
    Name,
    ShortText,
    StoreUrl,
    Text,
    Token,
    Uri,
    immutable,
)
from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_api.v1alpha1.train import Limits

TaskName = Literal["multipleChoice", "bitsPerByte"]
Part = Literal["dev", "gate"]


class BankTask(Model):
    """Where the items of one axis come from."""

    uri: Uri = Field(description="JSONL file of items; its fields depend on the task of the axis of the same name.")
    sha256: Digest | None = Field(None, description="Expected digest of the file; a different content is refused.")


class Bank(Model):
    """A pool of items, pinned by digest when data is prepared: a part for choosing, a part for gating."""

    name: Name = Field(description="Name of the bank.")
    dev: int = Field(ge=0, le=1_000_000, description="Items per axis for choosing (epochs, candidates).")
    gate: int = Field(ge=1, le=1_000_000, description="Items per axis for gating.")
    seed: int = Field(0, ge=0, le=2**31, description="Seed of the order of items, fixed before the first gate run.")
    tasks: dict[AxisName, BankTask] = Field(
        min_length=1, max_length=16, description="Items by the name of the axis that they measure."
    )


class Axis(Model):
    """One axis on which checkpoints are measured."""

    name: AxisName = Field(description="Name of the axis; the bank has items under the same name.")
    task: TaskName = Field(
        description="multipleChoice: accuracy by log-likelihood; bitsPerByte: loss on text, smaller is better."
    )
    cluster_by: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Field of an item that names its cluster (a document, a fact): items in it are dependent."
    )


class PipelineEvaluation(Model):
    """What is measured."""

    banks: list[Bank] = Field(
        default_factory=list,
        max_length=8,
        description="Item banks.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    axes: list[Axis] = Field(
        default_factory=list,
        max_length=16,
        description="Axes.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    diagnostics: list[Diagnostic] = Field(
        default_factory=list,
        max_length=16,
        description="Detectors of known failure modes, each run where it is cheapest.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )


class EvaluationInputs(Model):
    """What determines the result; its digest names the object."""

    checkpoint: Digest = Field(description="Checkpoint artifact that is measured.")
    bank: Digest = Field(description="Bank artifact.")
    axes: list[Axis] = Field(min_length=1, max_length=16, description="Axes that are measured, in order.")
    part: Part = Field(description="Which part of the bank.")
    start: int = Field(ge=0, le=1_000_000, description="First item of each axis, counted from 0.")
    end: int = Field(ge=1, le=1_000_000, description="One past the last item of each axis.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Number format of the forward pass.")
    seed: int = Field(0, ge=0, le=2**31, description="Seed of anything random.")
    recipe: int = Field(1, ge=1, le=1000, description="Version of the evaluator; a change of results changes it.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (("self.end > self.start", "end must be larger than start"),)

    @model_validator(mode="after")
    def _some_items(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end must be larger than start")
        return self


class EvaluationSpec(Model):
    """The measurement and how it is run. Only inputs determine the result."""

    store: StoreUrl = Field(
        description="Artifact store. Immutable.",
        json_schema_extra=immutable(STORE_IS_IMMUTABLE),
    )
    inputs: EvaluationInputs = Field(
        description="What determines the result. Immutable.",
        json_schema_extra=immutable("spec.inputs is immutable"),
    )
    input_digest: Digest = Field(
        description="Digest of inputs. Immutable.",
        json_schema_extra=immutable("spec.inputDigest is immutable"),
    )
    profile: Name = Field("default", description="Profile of the pods.")
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}), description="When to give up.")
    suspend: bool = Field(False, description="Stop after the running attempt has ended or saved.")
    retry: Token = Field("", description="Another value starts a fresh count of attempts.")


class Attempt(Model):
    """One attempt: one PyTorchJob or Job."""

    name: Annotated[str, Field(max_length=63)] = Field(description="Name of the PyTorchJob or Job.")
    number: int = Field(ge=1, le=100_000, description="Counted from 1, never reused.")
    outcome: Literal["Running", "Succeeded", "Failed", "Preempted"] = Field(description="How it went.")
    reason: Annotated[str, Field(max_length=64)] = Field("", description="One PascalCase word.")
    message: Text = Field("", description="What the pod said.")
    exit_code: int | None = Field(None, ge=0, le=255, description="Exit code that decided the outcome.")
    retry: Token = Field("", description="Value of spec.retry when it was made.")
    started_at: Annotated[str, Field(max_length=40)] = Field("", description="When it was made.")
    finished_at: Annotated[str, Field(max_length=40)] = Field("", description="When it ended.")


class Progress(Model):
    """Progress of a running attempt; names of Kubeflow KEP-2779."""

    progress_percentage: int = Field(0, ge=0, le=100, description="Share of the work that is done.")
    estimated_remaining_seconds: int | None = Field(None, ge=0, description="Estimated time left.")
    metrics: dict[Annotated[str, Field(max_length=64)], float] = Field(
        default_factory=dict, max_length=16, description="Newest values, for example loss."
    )
    message: ShortText = Field("", description="What is going on.")


Phase = Literal["Pending", "Running", "Succeeded", "Failed", "Suspended"]


class WorkStatus(Model):
    """Status of anything that runs as attempts."""

    observed_generation: int = Field(0, ge=0, description="Generation that this status was decided for.")
    phase: Phase = Field("Pending", description="Where it is.")
    conditions: Conditions = Field(default_factory=list, description="Ready, Reconciling, Stalled.")
    attempts: list[Attempt] = Field(
        default_factory=list,
        max_length=200,
        description="All attempts, oldest first.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["number"]},
    )
    preemptions: int = Field(0, ge=0, description="Attempts that were preempted.")
    output_digest: Digest | None = Field(None, description="Artifact that was made.")
    metrics: dict[Annotated[str, Field(max_length=64)], float] = Field(
        default_factory=dict, max_length=64, description="Final figures from the report of the pod."
    )
    reused: bool = Field(False, description="The result was already in the store; nothing was computed.")
    progress: Progress | None = Field(None, description="Progress of the running attempt.")


class Evaluation(Model):
    """Measures one checkpoint on one range of one bank; the same measurement is never made twice."""

    api_version: Literal["bessemer.dev/v1alpha1"] = "bessemer.dev/v1alpha1"
    kind: Literal["Evaluation"] = "Evaluation"
    metadata: Metadata
    spec: EvaluationSpec
    status: WorkStatus = Field(default_factory=lambda: WorkStatus.model_validate({}))
