"""Rewards that a program can check: what a prompt's row asks for, and how much of it an answer has. Pure functions.

A row may name several checks; the reward is the share of them that hold, from 0 to 1:

    {"id": "1", "prompt": "...", "verify": {"exact": "42"}}
    {"id": "2", "prompt": "...", "verify": {"contains": ["iron", "nickel"], "maxWords": 20, "json": true}}
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from bessemer_trainer.errors import PermanentError


def _texts(wanted: Any) -> list[str]:  # noqa: ANN401 - a value of a JSON document
    return [str(text) for text in (wanted if isinstance(wanted, list) else [wanted])]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


_CHECKS: Mapping[str, Callable[[str, Any], list[bool]]] = {
    "exact": lambda text, wanted: [text.strip() in [each.strip() for each in _texts(wanted)]],
    "contains": lambda text, wanted: [each in text for each in _texts(wanted)],
    "avoids": lambda text, wanted: [each not in text for each in _texts(wanted)],
    "startsWith": lambda text, wanted: [text.lstrip().startswith(str(wanted))],
    "endsWith": lambda text, wanted: [text.rstrip().endswith(str(wanted))],
    "json": lambda text, wanted: [_is_json(text) == bool(wanted)],
    "minWords": lambda text, wanted: [len(text.split()) >= int(wanted)],
    "maxWords": lambda text, wanted: [len(text.split()) <= int(wanted)],
    "minCharacters": lambda text, wanted: [len(text.strip()) >= int(wanted)],
    "maxCharacters": lambda text, wanted: [len(text.strip()) <= int(wanted)],
}


def check_row(row: Mapping[str, Any]) -> None:
    """Raises PermanentError(PromptInvalid) that names the row when no known check is asked for."""
    asked = row.get("verify")
    name = str(row.get("id"))
    if not isinstance(asked, dict) or not asked:
        raise PermanentError("PromptInvalid", f"prompt {name}: verify: names no check; known: {', '.join(_CHECKS)}")
    for key, wanted in asked.items():
        if key not in _CHECKS:
            raise PermanentError("PromptInvalid", f"prompt {name}: verify.{key}: no check; known: {', '.join(_CHECKS)}")
        try:
            _CHECKS[key]("", wanted)
        except (TypeError, ValueError):
            raise PermanentError("PromptInvalid", f"prompt {name}: verify.{key}: {wanted!r} is no number") from None


def verified_reward(row: Mapping[str, Any], answer: str) -> float:
    """Share of the row's checks that `answer` passes; the row was found good by `check_row`."""
    results = [result for key, wanted in row["verify"].items() for result in _CHECKS[key](answer, wanted)]
    return sum(results) / len(results) if results else 0.0
