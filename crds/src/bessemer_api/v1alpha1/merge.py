"""The kind MergeJob, and what a pipeline says of a merge: two or more checkpoints become one."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Metadata, Model
from bessemer_api.fields import (
    STORE_IS_IMMUTABLE,
    AxisName,
    Digest,
    Fraction,
    Name,
    ShortText,
    StoreUrl,
    Text,
    Token,
    immutable,
)
from bessemer_api.v1alpha1.evaluation import WorkStatus
from bessemer_api.v1alpha1.train import Limits

MergeMethod = Literal["linear", "slerp", "nuslerp", "taskArithmetic", "ties", "dareTies"]

TASK_METHODS: frozenset[str] = frozenset({"taskArithmetic", "ties", "dareTies"})
"""Methods that add differences to a common ancestor: they need `base`, and merge any number of parents by weights."""
PAIR_METHODS: frozenset[str] = frozenset({"slerp", "nuslerp"})
"""Methods that interpolate between two parents by `t`."""

CONTROL_SUFFIX = "-linear"
"""What the name of a control adds to that of its merge."""

_PAIR = "['slerp', 'nuslerp']"
_TASK = "['taskArithmetic', 'ties', 'dareTies']"


class Interpolation(Model):
    """The interpolation factor of some tensors: one value, or values over the depth of the model."""

    filter: ShortText | None = Field(
        None, min_length=1, description="Part of a tensor's name; absent: all other tensors, as the last entry."
    )
    value: list[Fraction] = Field(
        min_length=1,
        max_length=512,
        description="0 is the first parent, 1 the second. Several are spread evenly over the layers, with straight "
        "lines between them; tensors outside of the layers (embeddings, last norm, head) take the first.",
    )


class Blend(Model):
    """How parents are merged, without which they are; shared by a pipeline's merge and by a MergeJob."""

    method: MergeMethod = Field(description="How parents are merged.")
    space: Literal["weights", "taskVectors"] = Field(
        "weights",
        description="What linear, slerp and nuslerp interpolate: weights, or differences from `base`. The other "
        "methods work on differences always.",
    )
    t: list[Interpolation] | None = Field(
        None,
        min_length=1,
        max_length=32,
        description="Interpolation factors (slerp, nuslerp, linear of two parents); the first entry that fits counts.",
    )
    weights: list[Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None,
        min_length=2,
        max_length=16,
        description="A weight for each parent (linear, where they are divided by their sum; taskArithmetic, ties, "
        "dareTies, where the default is 1 for each).",
    )
    density: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Share of each difference that is kept: the largest (ties) or a random part (dareTies)."
    )
    lambda_: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, alias="lambda", description="Factor on the merged difference (taskArithmetic, ties, dareTies); default 1."
    )
    granularity: Literal["tensor", "row"] | None = Field(
        None, description="nuslerp: the angle is that of whole tensors (default) or of each row of a matrix."
    )


BLEND_RULES = (
    (f"!(self.method in {_PAIR}) || has(self.t)", "slerp and nuslerp need t"),
    ("self.method != 'linear' || has(self.t) != has(self.weights)", "linear needs exactly one of t and weights"),
    (f"!(self.method in {_TASK}) || !has(self.t)", "t belongs to linear, slerp and nuslerp"),
    (f"!(self.method in {_PAIR}) || !has(self.weights)", "weights belong to linear, taskArithmetic, ties and dareTies"),
    ("!has(self.t) || size(self.parents) == 2", "t interpolates between exactly two parents"),
    ("!has(self.weights) || size(self.weights) == size(self.parents)", "weights needs one number for each parent"),
    (
        "self.method != 'linear' || !has(self.weights) || (self.weights.all(w, w >= 0.0) && self.weights.sum() > 0.0)",
        "weights of a linear merge must not be negative, and not all 0",
    ),
    (
        "!has(self.t) || (self.t.filter(i, !has(i.filter)).size() == 1 && !has(self.t[size(self.t) - 1].filter))",
        "t needs one entry without filter, as the last",
    ),
    (
        "(self.method in ['ties', 'dareTies']) == has(self.density)",
        "density belongs to ties and dareTies, and only there",
    ),
    (f"!has(self.lambda) || self.method in {_TASK}", "lambda belongs to taskArithmetic, ties and dareTies"),
    ("!has(self.granularity) || self.method == 'nuslerp'", "granularity belongs to nuslerp"),
    (
        f"has(self.base) == (self.space == 'taskVectors' || self.method in {_TASK})",
        "base belongs to space taskVectors and to taskArithmetic, ties and dareTies, and only there",
    ),
)
"""(CEL rule, message); `blend_problem` decides the same."""


def blend_problem(blend: Blend, parents: int, *, has_base: bool) -> str:
    """The message of the first rule that the blend breaks; empty when it breaks none."""
    weights, method = blend.weights or [], blend.method
    is_task, is_linear = method in TASK_METHODS, method == "linear"
    entries = blend.t or []
    broken = (
        method in PAIR_METHODS and not entries,
        is_linear and bool(entries) == bool(weights),
        is_task and bool(entries),
        method in PAIR_METHODS and bool(weights),
        bool(entries) and parents != 2,
        bool(weights) and len(weights) != parents,
        is_linear and bool(weights) and (min(weights) < 0 or sum(weights) <= 0),
        bool(entries) and [entry.filter is None for entry in entries] != [False] * (len(entries) - 1) + [True],
        (method in {"ties", "dareTies"}) != (blend.density is not None),
        blend.lambda_ is not None and not is_task,
        blend.granularity is not None and method != "nuslerp",
        has_base != (blend.space == "taskVectors" or is_task),
    )
    return next((message for (_, message), is_so in zip(BLEND_RULES, broken, strict=True) if is_so), "")


class MergeParent(Model):
    """A checkpoint of the pipeline."""

    stage: Name | None = Field(None, description="The output of a stage or of another merge.")
    base: bool = Field(False, description="The pipeline's base model.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        ("self.base != has(self.stage)", "a parent needs exactly one of stage and base: true"),
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if self.base == (self.stage is not None):
            raise ValueError("a parent needs exactly one of stage and base: true")
        return self


class Merge(Blend):
    """One merge of a pipeline. Its name stands beside those of the stages, and is used like one."""

    name: Name = Field(description="Name of the merge, unique among stages and merges.")
    parents: list[MergeParent] = Field(min_length=2, max_length=16, description="Checkpoints that are merged.")
    base: MergeParent | None = Field(
        None, description="Common ancestor of the parents, from which task vectors are the differences."
    )
    controls: list[Literal["linear"]] | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="Merges that are built beside it and measured like it, so that synergy is shown and not asserted. "
        "linear: of the same parents, with the same t or weights; its name is that of the merge and `-linear`.",
    )
    held_out: Name | None = Field(
        None, description="Data set on whose held-out documents the loss along t is measured (the loss barrier)."
    )
    seed: int | None = Field(None, ge=0, le=2**31, description="Seed of dareTies; default: the pipeline's.")
    profile: Name | None = Field(None, description="Profile; default: the pipeline's for merges.")
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}), description="When to give up.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        *BLEND_RULES,
        ("!has(self.controls) || self.method != 'linear'", "a linear merge is its own control"),
        ("!has(self.controls) || size(self.name) <= 33", "the name of a merge with controls has at most 33 characters"),
        ("!has(self.heldOut) || has(self.t)", "heldOut is measured along t; it belongs to a merge that has one"),
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problem = blend_problem(self, len(self.parents), has_base=self.base is not None)
        if problem:
            raise ValueError(problem)
        if self.controls is not None and self.method == "linear":
            raise ValueError("a linear merge is its own control")
        if self.controls is not None and len(self.name) + len(CONTROL_SUFFIX) > 40:
            raise ValueError("the name of a merge with controls has at most 33 characters")
        if self.held_out is not None and self.t is None:
            raise ValueError("heldOut is measured along t; it belongs to a merge that has one")
        return self


class MergeInputs(Blend):
    """What determines the result; its digest is the identity of the merge."""

    parents: list[Digest] = Field(min_length=2, max_length=16, description="Checkpoint artifacts, in order.")
    base: Digest | None = Field(None, description="Common ancestor (task vectors).")
    held_out: Digest | None = Field(
        None, description="Prepared data artifact on whose held-out documents the loss along t is measured."
    )
    seed: int = Field(0, ge=0, le=2**31, description="Seed of anything random (dareTies).")
    rerun: Token = Field("", description="Set by rerun-from: makes the same work count as new.")
    recipe: int = Field(1, ge=1, le=1000, description="Version of the method's code.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = BLEND_RULES

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problem = blend_problem(self, len(self.parents), has_base=self.base is not None)
        if problem:
            raise ValueError(problem)
        return self


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
    parent_names: list[Name] = Field(
        default_factory=list, max_length=17, description="Names of the parents, then of the base, for messages."
    )
    profile: Name = Field("default", description="Profile of the pods.")
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}), description="When to give up.")
    suspend: bool = Field(False, description="Start no further attempt.")
    retry: Token = Field("", description="Another value starts a fresh count of attempts.")


class MergeJob(Model):
    """One merge of two or more checkpoints, every input pinned by digest. A control is a MergeJob of its own."""

    api_version: Literal["bessemer.dev/v1alpha1"] = "bessemer.dev/v1alpha1"
    kind: Literal["MergeJob"] = "MergeJob"
    metadata: Metadata
    spec: MergeSpec
    status: WorkStatus = Field(default_factory=lambda: WorkStatus.model_validate({}))


class SynergyAxis(Model):
    """A merge on one axis against its control and its best parent, on the same dev items; larger is better."""

    name: AxisName = Field(description="Axis.")
    n: int = Field(ge=0, description="Items.")
    control: float = Field(description="Mean paired difference, merge minus control.")
    control_low: float = Field(description="Lower end of its 95 % confidence interval.")
    best_parent: Name = Field(description="The parent that is best on this axis.")
    parent: float = Field(description="Mean paired difference, merge minus best parent.")
    parent_low: float = Field(description="Lower end of its 95 % confidence interval.")
    synergy: bool = Field(description="Better than the control and than every parent.")


class MergeSummary(Model):
    """What is stated about one merge that has a control."""

    name: Name = Field(description="Merge.")
    control: Annotated[str, Field(max_length=63)] | None = Field(None, description="Its linear control.")
    synergy: Literal["pending", "shown", "none", "notMeasured", "error"] = Field(
        description="shown: better than the control and than every parent on at least one axis, on dev items; "
        "none: not shown; notMeasured: no bank has dev items; error: something broke while measuring."
    )
    axes: list[SynergyAxis] = Field(default_factory=list, max_length=16, description="Axes with their figures.")
    message: Text = Field("", description="One sentence.")
