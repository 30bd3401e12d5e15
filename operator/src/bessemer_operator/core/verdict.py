"""What a gate says: verdicts, their reasons, and what a comparison was asked for. Plain values; decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from bessemer_api.v1alpha1.pipeline import AxisSummary

Verdict = Literal["Passed", "Failed", "Inconclusive", "Invalid", "Error"]
State = Literal["Won", "Holds", "Worse", "NotShown"]


class Reason(StrEnum):
    """Why a verdict was given; the reason of the condition GatePassed."""

    PASSED = "GatePassed"
    VETO = "Veto"
    WORSE = "ProvenWorse"
    IMPOSSIBLE = "WinsImpossible"
    NOT_SHOWN = "NotShown"
    NEXT_LOOK = "NextLook"
    IMPLAUSIBLE = "ImplausibleGain"
    MISSING = "MissingData"
    NOT_A_NUMBER = "NotANumber"
    MISMATCH = "DigestMismatch"
    SETTINGS = "SettingsDiffer"
    FLOOR = "BaselineAtFloor"
    CLUSTERS = "TooFewClusters"
    NO_SPREAD = "NoSpread"
    UNDERPOWERED = "Underpowered"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the operator asked the comparison for; a report that answers something else is Invalid."""

    input_digest: str
    look: int
    anchors: frozenset[str] = frozenset()
    also: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Axes of each further comparison, by what the candidate is compared with."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its numbers. `next_look` is set exactly when the gate wants more items."""

    verdict: Verdict
    reason: str
    message: str
    look: int = 0
    tries: int = 0
    alpha: float = 0.0
    alpha_spent: float = 0.0
    next_look: int | None = None
    axes: tuple[AxisSummary, ...] = ()

    @property
    def wins(self) -> tuple[str, ...]:
        """Axes that were won; they move the anchor when the candidate is promoted."""
        return tuple(axis.name for axis in self.axes if axis.state == "Won")


def invalid(reason: Reason, message: str) -> Decision:
    """What came is no evidence."""
    return Decision("Invalid", reason, message)
