"""The kind MergeJob: one merge of two or more checkpoints and its controls."""

from typing import Literal

from pydantic import Field

from bessemer_api.base import Metadata, Model
from bessemer_api.fields import STORE_IS_IMMUTABLE, Digest, Fraction, Name, ShortText, StoreUrl, Token, immutable
from bessemer_api.v1alpha1.evaluation import WorkStatus
from bessemer_api.v1alpha1.train import Limits

MergeMethod = Literal["linear", "slerp", "nuslerp", "taskArithmetic", "ties", "dareTies"]


class Interpolation(Model):
    """The interpolation factor of some tensors: one value, or values over the depth of the model."""

    filter: ShortText | None = Field(None, description="Part of a tensor's name; absent: all other tensors.")
    value: list[Fraction] = Field(
        min_length=1, max_length=512, description="0 is the first parent, 1 the second; several spread over the depth."
    )


class MergeInputs(Model):
    """What determines the result; its digest is the identity of the merge."""

    method: MergeMethod = Field(description="How parents are merged.")
    space: Literal["weights", "taskVectors"] = Field("weights", description="What is interpolated.")
    parents: list[Digest] = Field(min_length=2, max_length=16, description="Checkpoint artifacts, in order.")
    base: Digest | None = Field(None, description="Common ancestor (task vectors).")
    t: list[Interpolation] = Field(default_factory=list, max_length=32, description="Interpolation factors.")
    controls: list[Literal["linear"]] = Field(
        default_factory=list, max_length=1, description="Merges that are built beside it, to measure synergy."
    )
    seed: int = Field(0, ge=0, le=2**31, description="Seed of anything random.")
    recipe: int = Field(1, ge=1, le=1000, description="Version of the method's code.")


class MergeSpec(Model):
    """The merge and how it is run. Only inputs determine the result."""

    store: StoreUrl = Field(
        description="Artifact store. Immutable.",
        json_schema_extra=immutable(STORE_IS_IMMUTABLE),
    )
    inputs: MergeInputs = Field(
        description="What determines the result. Immutable.",
        json_schema_extra=immutable("spec.inputs is immutable"),
    )
    input_digest: Digest = Field(
        description="Digest of inputs. Immutable.",
        json_schema_extra=immutable("spec.inputDigest is immutable"),
    )
    profile: Name = Field("default", description="Profile of the pods.")
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}), description="When to give up.")
    suspend: bool = Field(False, description="Start no further attempt.")
    retry: Token = Field("", description="Another value starts a fresh count of attempts.")


class MergeJob(Model):
    """One merge of two or more checkpoints, with its controls, every input pinned by digest."""

    api_version: Literal["bessemer.dev/v1alpha1"] = "bessemer.dev/v1alpha1"
    kind: Literal["MergeJob"] = "MergeJob"
    metadata: Metadata
    spec: MergeSpec
    status: WorkStatus = Field(default_factory=lambda: WorkStatus.model_validate({}))
