"""Rows by kind: which fields a row must have, its joined text, and what decides about the holdout. Pure.

Filters, duplicates and contamination look at the joined text. A row that is not of its kind is told by field; nothing
is repaired, and no file is known here.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bessemer_api.v1alpha1.data import DataKind

ROLES = ("system", "user", "assistant", "tool")
Turns = list[dict[str, str]]
Part = str | Turns
"""A prompt or an answer: a text, or messages."""


@dataclass(frozen=True, slots=True)
class Record:
    """A row that is of its kind: the fields of the artifact, its joined text, and the text that its holdout hangs on.

    Rows with equal `group` go into the holdout together: no prompt is both trained on and held out.
    """

    fields: dict[str, Any]
    text: str
    group: str


def parse_record(line: bytes, kind: DataKind, names: Mapping[str, str]) -> Record:
    """The record of a JSON row. `names` are the source's names of fields where they differ. ValueError says what."""
    return record_of(parse_object(line), kind, names)


def record_of(row: Mapping[str, Any], kind: DataKind, names: Mapping[str, str]) -> Record:
    """The record of a row as an object. ValueError says which field was wrong, found and expected."""
    return _READERS[kind](row, names)


def joined_text(fields: Mapping[str, Any], kind: DataKind) -> str:
    """The text of a record of an artifact, as `prepare` looked at it."""
    return _READERS[kind](fields, {}).text


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; ValueError says what was wrong. A key that stands twice would lose a value."""
    try:
        document = json.loads(line.decode(), object_pairs_hook=_without_doubles)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}; expected one JSON object a line") from None
    except DoubleKeyError:
        raise
    except (ValueError, RecursionError):
        raise ValueError("not JSON: a number is too long or the nesting too deep") from None
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object, found {type(document).__name__}")
    return document


class DoubleKeyError(ValueError):
    """A JSON object names a key twice."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise DoubleKeyError(f"field {double[:64]!r} stands there twice; only one of its values would be read")
    return document


def _text(row: Mapping[str, Any], names: Mapping[str, str]) -> Record:
    text = _string(row, names.get("text", "text"))
    return Record({"text": text}, text, text)


def _messages(row: Mapping[str, Any], names: Mapping[str, str]) -> Record:
    name = names.get("messages", "messages")
    turns = _turns(_required(row, name), name)
    if all(turn["role"] != "assistant" for turn in turns):
        raise ValueError(f"field {name!r}: no message of the assistant, so nothing can be learned from it")
    text = part_text(turns)
    return Record({"messages": turns}, text, text)


def _prompt_completion(row: Mapping[str, Any], names: Mapping[str, str]) -> Record:
    prompt = _part(row, names.get("prompt", "prompt"))
    completion = _answer(row, names.get("completion", "completion"))
    group = part_text(prompt)
    return Record({"prompt": prompt, "completion": completion}, f"{group}\n{part_text(completion)}", group)


def _preference(row: Mapping[str, Any], names: Mapping[str, str]) -> Record:
    prompt = _part(row, names.get("prompt", "prompt"))
    answers = {name: _answer(row, names.get(name, name)) for name in ("chosen", "rejected")}
    if answers["chosen"] == answers["rejected"]:
        raise ValueError("fields 'chosen' and 'rejected' are equal; expected a better and a worse answer")
    group = part_text(prompt)
    text = "\n".join([group, *map(part_text, answers.values())])
    return Record({"prompt": prompt, **answers}, text, group)


def _prompts(row: Mapping[str, Any], names: Mapping[str, str]) -> Record:
    name = names.get("prompt", "prompt")
    prompt = _part(row, name)
    rest = {key: value for key, value in row.items() if key not in (name, "id", "tokens")}
    group = part_text(prompt)
    _require_json(rest)
    told = [str(value) for _, value in sorted(rest.items()) if isinstance(value, str | int | float)]
    return Record({**rest, "prompt": prompt}, "\n".join([group, *told]), group)


def _require_json(values: Mapping[str, Any]) -> None:
    """What is kept as it is must be JSON that UTF-8 can write."""
    for name, value in values.items():
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError):
            raise ValueError(f"field {name[:32]!r}: expected JSON, found what is none, such as NaN") from None
        require_encodable(name + text, name[:32])


_READERS: Mapping[DataKind, Callable[[Mapping[str, Any], Mapping[str, str]], Record]] = {
    "text": _text,
    "messages": _messages,
    "promptCompletion": _prompt_completion,
    "preference": _preference,
    "prompts": _prompts,
}


def part_text(part: Part) -> str:
    """The text of a prompt or an answer: contents of messages on lines of their own."""
    return part if isinstance(part, str) else "\n".join(turn["content"] for turn in part)


def _required(row: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    if row.get(name) is None:
        found = ", ".join(repr(key[:32]) for key in list(row)[:6]) or "none"
        raise ValueError(f"field {name!r}: no such field; the fields found are {found}")
    return row[name]


def _string(row: Mapping[str, Any], name: str) -> str:
    text = row.get(name)
    if not isinstance(text, str):
        found = "no such field" if text is None else type(text).__name__
        raise ValueError(f"field {name!r}: expected a string, found {found}")
    if not text.isascii():
        require_encodable(text, name)
    return text


def _part(row: Mapping[str, Any], name: str) -> Part:
    value = _required(row, name)
    if isinstance(value, str):
        require_encodable(value, name)
        if not value.strip():
            raise ValueError(f"field {name!r}: it is empty")
        return value
    return _turns(value, name)


def _answer(row: Mapping[str, Any], name: str) -> Part:
    part = _part(row, name)
    if not isinstance(part, str) and part[0]["role"] != "assistant":
        raise ValueError(f"field {name!r}: expected to begin with the assistant, found role {part[0]['role']!r}")
    if not isinstance(part, str) and part[-1]["role"] != "assistant":
        raise ValueError(f"field {name!r}: expected to end with the assistant, found role {part[-1]['role']!r}")
    return part


def _turns(value: Any, name: str) -> Turns:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(value, list) or not value:
        found = "an empty list" if value == [] else type(value).__name__
        raise ValueError(f"field {name!r}: expected messages with role and content, found {found}")
    return [_turn(message, f"{name}[{place}]") for place, message in enumerate(value)]


def _turn(message: Any, name: str) -> dict[str, str]:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(message, dict):
        raise ValueError(f"field {name!r}: expected an object with role and content, found {type(message).__name__}")
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"field {f'{name}.role'!r}: expected one of {', '.join(ROLES)}, found {str(role)[:32]!r}")
    content = _string(message, "content") if "content" in message else None
    if content is None or not content.strip():
        raise ValueError(f"field {f'{name}.content'!r}: expected a text, found {'an empty one' if content else 'none'}")
    _refuse_unknown(key for key, value in message.items() if value is not None and key not in ("role", "content"))
    return {"role": role, "content": content}


def _refuse_unknown(names: Iterable[str]) -> None:
    """What a template would not be given must not be dropped in silence."""
    for name in names:
        raise ValueError(f"a message has the field {name[:32]!r}; expected role and content alone")


def require_encodable(text: str, name: str) -> None:
    """ValueError when `text` holds half a surrogate pair: JSON can write one, UTF-8 can not."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"field {name.encode(errors='replace').decode()!r}: half a surrogate pair at character {error.start}"
        ) from None
