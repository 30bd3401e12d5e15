"""Promotion: what may be promoted, through which channels, with whose approval; and what a status says of it."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bessemer_api.base import Model
from bessemer_api.fields import AxisName, Commit, Digest, Duration, Name, ShortText, Text
from bessemer_api.v1alpha1.git import GitTarget, MergeWait


class After(Model):
    """When what one channel holds goes on to the next."""

    soak: Duration = Field("0s", description="How long the channel before must have held it.")


class Channel(Model):
    """A channel that a promotion writes to."""

    name: Name = Field(description="Name of the channel, for example prod.")
    after: After | None = Field(
        None, description="When it follows the channel before, while that one still holds the same checkpoint."
    )
    git: GitTarget | None = Field(
        None, description="Where a deploy repository says what is served; the channel's record is written after it."
    )


class ApprovalRule(Model):
    """Whether a person must agree before anything is promoted."""

    required: bool = Field(False, description="A gate that passed is not enough: a named person must approve.")
    timeout: Duration | None = Field(None, description="How long a person is waited for; absent: for ever.")


class Promotion(Model):
    """What may be promoted, and where to."""

    candidates: list[Name] = Field(
        min_length=1,
        max_length=16,
        description="Stages or merges whose outputs may be promoted: branches of the DAG. Of several, one nominee is "
        "chosen on dev items, and only that one sees the items of the gate.",
    )
    gate: Name = Field(description="Gate that must pass.")
    approval: ApprovalRule = Field(
        default_factory=lambda: ApprovalRule.model_validate({}), description="Whether a person must agree."
    )
    channels: list[Channel] = Field(
        min_length=1,
        max_length=8,
        description="Channels that are written, in order: low stakes first.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    cel: ClassVar[tuple[tuple[str, str], ...]] = (
        ("!has(self.channels[0].after)", "the first channel follows no other: it has no `after`"),
    )

    @model_validator(mode="after")
    def _first_follows_none(self) -> Self:
        if self.channels[0].after is not None:
            raise ValueError("the first channel follows no other: it has no `after`")
        return self


class DevAxis(Model):
    """One axis of a candidate on the dev items."""

    name: AxisName = Field(description="Axis.")
    n: int = Field(ge=0, description="Dev items.")
    mean: float = Field(description="Mean of the candidate, as measured.")
    delta: float = Field(description="Difference of the means, candidate minus baseline; larger is better.")


class CandidateSummary(Model):
    """One of several candidates, and what was measured of it on the dev items. Dev figures decide nothing but this."""

    name: Name = Field(description="Stage or merge.")
    digest: Digest | None = Field(None, description="Its checkpoint.")
    state: Literal["Waiting", "Evaluating", "Measured", "Nominee", "NotChosen", "Held", "Failed"] = Field(
        description="Nominee: it alone is judged by the gate. Failed: it can not be judged; the others go on."
    )
    axes: list[DevAxis] = Field(default_factory=list, max_length=16, description="Dev figures against the baseline.")
    wins: int = Field(0, ge=0, description="Axes that gain more than winBy on the dev items.")
    broken: list[AxisName] = Field(
        default_factory=list, max_length=16, description="Axes that lose as much as notWorseThan on the dev items."
    )
    score: float = Field(0.0, description="Sum over the axes of delta in units of its margin, each at most 1.")
    message: Text = Field("", description="Why it failed or waits.")


class NominationSummary(Model):
    """Which of several candidates is judged by the gate, and why. It stays while candidates and gate are the same."""

    name: Name = Field(description="The nominee.")
    digest: Digest = Field(description="Its checkpoint.")
    basis: Digest = Field(description="Of the candidates' checkpoints, the gate and the bank: another is a new choice.")
    message: Text = Field(description="Why it was chosen.")


class RollbackSummary(Model):
    """The last rollback that was asked for by annotation."""

    request: Annotated[str, Field(max_length=256)] = Field(description="Value of the annotation.")
    channel: Name = Field(description="Channel.")
    digest: Digest = Field(description="What the channel shall hold.")
    left: Digest | None = Field(None, description="What it held before; it is not promoted again.")
    record: int = Field(0, ge=0, description="Record that was written; 0 while there is none.")
    at: Annotated[str, Field(max_length=40)] = Field("", description="When it was written.")
    by: ShortText = Field("", description="Who asked for it.")
    merge: MergeWait | None = Field(None, description="The change in git, while it waits to be merged.")
    commit: Commit | None = Field(None, description="Commit by which git has it.")
    release: Digest | None = Field(None, description="Folder that is handed over: the checkpoint with its model card.")
