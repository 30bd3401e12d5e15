"""Diagnostics: detectors of known failure modes, their alarm levels, and what they found.

A diagnostic reads dev items, training logs and artifacts. It stops nothing by itself: an alarm is told in the status,
in an event and in the report. Where a finding must stop a promotion, a gate names the veto of the same name.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from bessemer_api.base import Model
from bessemer_api.fields import AxisName, Digest, Text

DiagnosticName = Literal[
    "generalLoss",
    "formatGap",
    "eosRate",
    "diversity",
    "lengthDrift",
    "chosenLogProbability",
    "calibration",
    "consistency",
    "mergeHealth",
    "refusalDrift",
    "retrievalUse",
]

ALARMS: Mapping[DiagnosticName, float] = {
    "generalLoss": 0.05,
    "formatGap": 0.05,
    "eosRate": 0.98,
    "diversity": 0.90,
    "lengthDrift": 0.25,
    "chosenLogProbability": 0.10,
    "calibration": 0.05,
    "consistency": 0.02,
    "mergeHealth": 0.05,
    "refusalDrift": 0.05,
    "retrievalUse": 0.0,
}
"""Default alarm levels. docs/diagnostics.md says in which unit each is, and where it comes from."""


class Diagnostic(Model):
    """One detector and when it raises an alarm."""

    name: DiagnosticName = Field(
        description="generalLoss: bits per byte of text against the stage input. formatGap: accuracy by log-likelihood "
        "against accuracy by generated letter. eosRate: answers that end. diversity: distinct answers. lengthDrift: "
        "length of answers. chosenLogProbability: the preferred answer losing probability while margins grow. "
        "calibration: expected calibration error. consistency: answers that flip over wordings and option orders. "
        "mergeHealth: loss barrier, angles, equality of tokenizer and template. refusalDrift: refusals of harmful and "
        "of benign prompts. retrievalUse: the same questions with and without their passage."
    )
    axis: AxisName | None = Field(
        None, description="Axis whose dev items it reads; absent: the first axis of the bank with a fitting task."
    )
    items: int = Field(100, ge=1, le=100_000, description="Dev items that it reads at most.")
    alarm: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        None,
        description="Level of the alarm; absent: generalLoss 0.05 bits per byte more, formatGap 0.05 wider, eosRate "
        "0.98 of the start, diversity 0.90 (lower bound of the ratio), lengthDrift 0.25 (log ratio), "
        "chosenLogProbability 0.10 lower, calibration 0.05 more, consistency 0.02 more flips than the worst parent, "
        "mergeHealth 0.05 nats, refusalDrift 0.05, retrievalUse 0.",
    )
    alpha: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.05, description="Level of the tests and of the bounds that an alarm is raised by."
    )
    samples: int = Field(8, ge=2, le=64, description="Answers that are sampled for a prompt (diversity).")
    max_new_tokens: int = Field(64, ge=1, le=4096, description="Longest answer that is generated, in tokens.")

    @property
    def level(self) -> float:
        """Level of the alarm, with the default where none is set."""
        return ALARMS[self.name] if self.alarm is None else self.alarm


class DiagnosticSummary(Model):
    """What one diagnostic found about one stage or merge."""

    name: DiagnosticName = Field(description="Diagnostic.")
    subject: Annotated[str, Field(max_length=63)] = Field(description="Stage or merge that was looked at.")
    state: Literal["Quiet", "Alarm", "NotMeasured"] = Field(
        description="NotMeasured: what it needs is not there; the message says what."
    )
    value: float | None = Field(None, description="What was measured, in the unit of the alarm level.")
    limit: float | None = Field(None, description="Beyond this it is an alarm.")
    message: Text = Field("", description="One sentence with the numbers.")
    evidence_digest: Digest | None = Field(None, description="Artifact with the result of every item.")
