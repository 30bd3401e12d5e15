"""What an output says: normalised text, the JSON in it, and whether two values are the same. Pure."""

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from bessemer_trainer.evals.constraints import occurrences

_OUTER = " \t\n\r.,;:!?\"'`“”‘’()[]{}*_"


def normalised(text: str) -> str:
    """As short answers are compared: NFKC, case, white space and punctuation at the ends aside."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_OUTER)


def first_line(output: str) -> str:
    """The first line with something on it: a base model goes on with lines of its own."""
    return next((line for line in output.splitlines() if line.strip()), "")


def equals_one(output: str, answers: list[str]) -> bool:
    """Whether the output, or its first line, is one of the answers."""
    given = {normalised(output), normalised(first_line(output))} - {""}
    return bool(given & {normalised(answer) for answer in answers})


def contains_one(output: str, answers: list[str]) -> bool:
    """Whether one of the answers stands in the output, as whole words."""
    text = unicodedata.normalize("NFKC", output)
    return any(occurrences(unicodedata.normalize("NFKC", answer), text) for answer in answers)


def find_json(output: str) -> dict[str, Any] | None:
    """The first JSON object in the output; None where there is none. Text around it is allowed."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    start = output.find("{")
    while start >= 0:
        try:
            value, _ = decoder.raw_decode(output, start)
        except (ValueError, RecursionError):
            start = output.find("{", start + 1)
            continue
        return value if isinstance(value, dict) else None
    return None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def same(one: Any, other: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Equal as data: numbers by value, text as `normalised`, lists in order, objects by key; true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return isinstance(one, bool) and isinstance(other, bool) and one == other
    if isinstance(one, str) and isinstance(other, str):
        return one == other or normalised(one) == normalised(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def share_of_fields(expected: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """Share of right fields among those that were expected or given: a field too many counts as a wrong one."""
    names = expected.keys() | found.keys()
    right = sum(name in expected and name in found and same(expected[name], found[name]) for name in names)
    return right / len(names) if names else 1.0
