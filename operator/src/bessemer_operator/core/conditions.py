"""Conditions: a closed list of reasons, and the one function that sets one."""

from collections.abc import Iterable
from datetime import datetime

from bessemer_api.base import Condition

READY, RECONCILING, STALLED = "Ready", "Reconciling", "Stalled"
SUSPENDED, PREPARED, TRAINED, EVALUATED = "Suspended", "Prepared", "Trained", "Evaluated"
GATE_PASSED, PROMOTED, ROLLED_BACK = "GatePassed", "Promoted", "RolledBack"


def timestamp(now: datetime) -> str:
    """RFC 3339 in UTC with seconds, as Kubernetes writes it."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of this type."""
    return next((condition for condition in conditions if condition.type == kind), None)


def set_conditions(previous: Iterable[Condition], wanted: Iterable[Condition]) -> list[Condition]:
    """`wanted`, each with the lastTransitionTime of the previous one when its status did not change."""
    before = {condition.type: condition for condition in previous}

    def keep_time(condition: Condition) -> Condition:
        old = before.get(condition.type)
        if old is None or old.status != condition.status:
            return condition
        return condition.model_copy(update={"last_transition_time": old.last_transition_time})

    return [keep_time(condition) for condition in wanted]


def condition(kind: str, holds: bool | None, reason: str, message: str, at: tuple[datetime, int]) -> Condition:
    """A condition; `holds=None` is Unknown; `at` is the time and the generation of the decision."""
    status = {True: "True", False: "False", None: "Unknown"}[holds]
    return Condition.model_validate(
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message[:4096],
            "last_transition_time": timestamp(at[0]),
            "observed_generation": at[1],
        }
    )
