"""Gates: which axes a candidate must win, which it must hold, and against whom."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Model
from bessemer_api.fields import AxisName, Duration, Name

Veto = Literal["contamination", "nonFiniteWeights", "refusalDrift", "regression", "tokenizerEquality"]


class BaselineElse(Model):
    """What a candidate is compared with while the channel is empty."""

    base: bool = Field(False, description="The pipeline's base model.")
    stage: Name | None = Field(None, description="The output of a stage.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        ("self.base != has(self.stage)", "orElse needs exactly one of base: true and stage"),
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if self.base == (self.stage is not None):
            raise ValueError("orElse needs exactly one of base: true and stage")
        return self


class Baseline(Model):
    """What a gate compares the candidate with."""

    channel: Name | None = Field(None, description="The incumbent: what this channel holds now.")
    or_else: BaselineElse | None = Field(None, description="What to compare with while the channel is empty.")
    stage: Name | None = Field(None, description="The output of a stage.")
    stage_input: bool = Field(False, description="The checkpoint that the gated stage started from.")
    base: bool = Field(False, description="The pipeline's base model.")
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "(has(self.channel) ? 1 : 0) + (has(self.stage) ? 1 : 0) + (self.stageInput ? 1 : 0)"
            " + (self.base ? 1 : 0) == 1",
            "baseline needs exactly one of channel, stage, stageInput: true and base: true",
        ),
        ("has(self.channel) == has(self.orElse)", "baseline.channel and baseline.orElse belong together"),
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        chosen = [self.channel is not None, self.stage is not None, self.stage_input, self.base]
        if sum(chosen) != 1:
            raise ValueError("baseline needs exactly one of channel, stage, stageInput: true and base: true")
        if (self.channel is None) != (self.or_else is None):
            raise ValueError("baseline.channel and baseline.orElse belong together")
        return self


class GateAxis(Model):
    """What a gate asks of one axis. Differences are oriented so that larger is better."""

    name: AxisName = Field(description="Name of an axis in evaluation.axes.")
    win_by: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        None, description="The candidate wins when it is shown to be better by more than this; absent: can only hold."
    )
    not_worse_than: Annotated[float, Field(gt=0, le=1000)] = Field(
        description="Margin: the candidate holds when it is shown not to be worse by this much."
    )


class Compose(Model):
    """How axes make a verdict."""

    at_least: int = Field(1, ge=0, le=16, description="How many axes with winBy must be won.")
    require: Literal["nonInferiorOnAll"] = Field("nonInferiorOnAll", description="Every axis must hold.")


class OnInconclusive(Model):
    """What becomes of a candidate about which the last look has shown neither good nor bad."""

    then: Literal["fail", "requireApproval"] = Field(
        "fail", description="requireApproval: a named person may promote it all the same, which is an override."
    )
    timeout: Duration = Field("72h", description="How long a person is waited for; then the gate has failed.")


class Gate(Model):
    """A gate: a pure function from comparisons to Passed, Failed, Inconclusive or Invalid."""

    name: Name = Field(description="Name of the gate.")
    mode: Literal["enforce", "observe"] = Field("enforce", description="observe reports the verdict and stops nothing.")
    baseline: Baseline = Field(description="What the candidate is compared with.")
    alpha: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.05, description="Largest probability of passing a candidate that should not pass, over all looks and tries."
    )
    looks: list[Annotated[int, Field(ge=1, le=1_000_000)]] = Field(
        min_length=1, max_length=8, description="Items per axis at which the gate may decide, increasing."
    )
    compose: Compose = Field(default_factory=lambda: Compose.model_validate({}), description="How axes make a verdict.")
    axes: list[GateAxis] = Field(
        min_length=1,
        max_length=16,
        description="The axes of this gate.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    also_against: dict[Name, Annotated[list[AxisName], Field(min_length=1, max_length=16)]] = Field(
        default_factory=dict,
        max_length=4,
        description="Further comparisons that must hold, by what is compared with (base, a stage or a merge): axes of "
        "this gate on which the candidate must not be worse by notWorseThan.",
    )
    vetoes: list[Veto] = Field(
        default_factory=list,
        max_length=8,
        description="Findings that fail the candidate whatever the axes say.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    max_plausible_gain: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="A larger gain on any axis is not believed without a person."
    )
    on_inconclusive: OnInconclusive = Field(
        default_factory=lambda: OnInconclusive.model_validate({}),
        description="What follows when the last look is not conclusive.",
    )
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "self.looks.isSorted() && self.looks.all(i, self.looks.exists_one(j, i == j))",
            "looks must increase",
        ),
        (
            "(has(self.compose) ? self.compose.atLeast : 1) <= self.axes.filter(a, has(a.winBy)).size()",
            "compose.atLeast is larger than the number of axes with winBy",
        ),
        (
            "!has(self.alsoAgainst) || self.alsoAgainst.all(k, self.alsoAgainst[k].all(a, self.axes.exists(x, x.name"
            " == a)))",
            "alsoAgainst names an axis that the gate does not have",
        ),
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(a >= b for a, b in zip(self.looks, self.looks[1:], strict=False)):
            raise ValueError("looks must increase")
        if self.compose.at_least > sum(axis.win_by is not None for axis in self.axes):
            raise ValueError("compose.atLeast is larger than the number of axes with winBy")
        names = {axis.name for axis in self.axes}
        if any(axis not in names for axes in self.also_against.values() for axis in axes):
            raise ValueError("alsoAgainst names an axis that the gate does not have")
        return self
