"""What to say about an object that can not be read: a status with one clear condition, and nothing else happens."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bessemer_api.base import Condition
from bessemer_operator.core import conditions as c

_CONDITIONS = TypeAdapter(list[Condition])


def quarantine(
    metadata: dict[str, Any], status: dict[str, Any], error: ValidationError, now: datetime
) -> dict[str, Any]:
    """Status of an object whose spec this version can not read; other conditions are left as they are."""
    at = (now, int(metadata.get("generation") or 0))
    message = explain(error)
    wanted = [
        c.condition(c.READY, False, "InvalidSpec", message, at),
        c.condition(c.RECONCILING, False, "InvalidSpec", "", at),
        c.condition(c.STALLED, True, "InvalidSpec", message, at),
    ]
    before = _readable(status.get("conditions") or [])
    return {
        "observedGeneration": at[1],
        "conditions": [item.wire() for item in c.set_conditions(before, wanted)],
    }


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
