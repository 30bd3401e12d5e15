"""What to say about an object that can not be worked on: one clear condition, and nothing else happens."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bessemer_api.base import Condition
from bessemer_operator.core import conditions as c

_CONDITIONS = TypeAdapter(list[Condition])


def quarantine(metadata: dict[str, Any], status: dict[str, Any], why: tuple[str, str], now: datetime) -> dict[str, Any]:
    """The status of an object with the reason and message why nothing is done; the rest of it stays as it is."""
    at = (now, int(metadata.get("generation") or 0))
    reason, message = why
    wanted = [
        c.condition(c.READY, False, reason, message, at),
        c.condition(c.RECONCILING, False, reason, "", at),
        c.condition(c.STALLED, True, reason, message, at),
    ]
    before = _readable(status.get("conditions") or [])
    others = [item for item in before if item.type not in {c.READY, c.RECONCILING, c.STALLED}]
    conditions = [*c.set_conditions(before, wanted), *others]
    return {**status, "observedGeneration": at[1], "conditions": [item.wire() for item in conditions]}


def _readable(conditions: Sequence[Any]) -> list[Condition]:
    try:
        return _CONDITIONS.validate_python(conditions)
    except ValidationError:
        return []


def explain(error: ValidationError) -> str:
    """The first problems, each with the path of its field."""
    lines = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:5]
    ]
    return "; ".join(lines)
