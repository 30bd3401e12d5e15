"""YAML as Kubernetes reads it, with the line of every field. Knows nothing of Bessemer's kinds.

Kubernetes' reader resolves plain scalars by its own rules (`2e-5` is a number, `yes` is true, `017` is octal, dates are
text), so they are resolved here from the events of ruamel's parser. Stricter than Kubernetes in one thing: a key that
is there twice is refused, because one of the two would be lost in silence.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

Path = tuple[str | int, ...]

MAX_BYTES = 1_000_000
"""An API server takes no larger object."""
MAX_DEPTH = 40
MAX_VALUES = 100_000
"""Values with all aliases written out."""

_TRUE, _FALSE, _NULL = ("true", "yes", "on", "y"), ("false", "no", "off", "n"), ("null",)
_WORDS: dict[str, bool | None] = {
    spelling: value
    for words, value in ((_TRUE, True), (_FALSE, False), (_NULL, None))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
} | {"": None, "~": None}
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F]+|0b[01]+|0o?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAGS = "tag:yaml.org,2002:"


class YamlTextError(Exception):
    """The text is no YAML that Kubernetes could read; `line` counts from 1."""

    def __init__(self, line: int, message: str, fix: str) -> None:
        super().__init__(message)
        self.line, self.message, self.fix = line, message, fix


@dataclass
class Tree:
    """One document: its value, and the line (from 1) of each field by path."""

    value: Any
    line: int
    lines: dict[Path, int] = field(default_factory=dict)

    def line_of(self, path: Path) -> int:
        """Line of a field, or of the nearest thing around it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.line)


def read_trees(text: str) -> list[Tree]:
    """Every document of a text. Raises YamlTextError."""
    if len(text.encode()) > MAX_BYTES:
        raise YamlTextError(
            1, f"the file is larger than {MAX_BYTES:,} bytes", "an API server would refuse it; make it smaller"
        )
    try:
        events = iter(YAML(typ="safe", pure=True).parse(text))
        return [_Reader(events).document(event) for event in events if isinstance(event, DocumentStartEvent)]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise YamlTextError(mark.line + 1 if mark else 1, f"this is no YAML: {message}", _fix_of(message)) from None
    except YAMLError as error:
        raise YamlTextError(
            1, f"this is no YAML: {' '.join(str(error).split())}", "remove the unusual character"
        ) from None


def _fix_of(message: str) -> str:
    if "\\t" in message or "tab" in message:
        return "indent with spaces"
    return "check the indentation and the punctuation around this line"


class _Reader:
    """Builds the value of one document from events, and notes lines on the way."""

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._lines: dict[Path, int] = {}
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def document(self, start: Event) -> Tree:
        event = next(self._events)
        value = self._value(event, ())
        return Tree(value, event.start_mark.line + 1 if event.start_mark else 1, self._lines)

    def _value(self, event: Any, path: Path) -> Any:  # noqa: ANN401 - an event has what its class has
        line = event.start_mark.line + 1
        before = self._count
        if isinstance(event, AliasEvent):
            return self._alias(event, line)
        self._count_up(1, line)
        if len(path) > MAX_DEPTH:
            raise YamlTextError(line, f"nested more than {MAX_DEPTH} deep", "no field of a pipeline is that deep")
        if isinstance(event, ScalarEvent):
            value = _scalar(event, line)
        elif isinstance(event, SequenceStartEvent):
            value = self._sequence(path)
        else:
            value = self._mapping(path)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._count - before)
        return value

    def _next(self) -> Any:  # noqa: ANN401 - an event has what its class has
        return next(self._events)

    def _count_up(self, values: int, line: int) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            raise YamlTextError(line, f"more than {MAX_VALUES:,} values", "write fewer aliases (*name)")

    def _alias(self, event: AliasEvent, line: int) -> Any:  # noqa: ANN401 - any JSON value
        if event.anchor not in self._anchors:
            raise YamlTextError(line, f"there is no &{event.anchor} before *{event.anchor}", "name an anchor that is")
        value, size = self._anchors[event.anchor]
        self._count_up(size, line)
        return value

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            here = (*path, len(items))
            self._lines[here] = event.start_mark.line + 1
            items.append(self._value(event, here))
        return items

    def _mapping(self, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            line = event.start_mark.line + 1
            key = _key(event, line)
            here = (*path, key)
            if key in own:
                first = self._lines[here]
                raise YamlTextError(line, f'"{key}" is here twice; the first is in line {first}', "remove one of them")
            if key == "<<" and event.implicit[0]:
                merged = {**self._merged(line, here), **merged}
                continue
            self._lines[here] = line
            own[key] = self._value(next(self._events), here)
        return {**merged, **own}

    def _merged(self, line: int, path: Path) -> dict[str, Any]:
        """The value of a merge key: a mapping, or several of which the first wins."""
        value = self._value(next(self._events), path)
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            raise YamlTextError(line, "<< merges mappings only", "write `<<: *name` with the anchor of a mapping")
        return {key: item for part in reversed(parts) for key, item in part.items()}


def _key(event: Event, line: int) -> str:
    if not isinstance(event, ScalarEvent):
        raise YamlTextError(line, "a key must be a word", "quote it, or check the brackets and braces")
    is_text = event.value == "<<" or isinstance(_scalar(event, line), str)
    if not is_text:
        raise YamlTextError(line, f"the key {event.value!r} is no text", f'quote it: "{event.value}"')
    return str(event.value)


def _scalar(event: ScalarEvent, line: int) -> Any:  # noqa: ANN401 - any scalar
    tag = str(event.tag or "").removeprefix(_TAGS)
    is_plain, _ = event.implicit
    if tag == "str" or (not is_plain and not tag):
        return event.value
    value = _plain(event.value, line)
    kinds = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
    if tag and not (tag in kinds and isinstance(value, kinds[tag])):  # type: ignore[arg-type]
        raise YamlTextError(line, f"!!{tag} does not fit {event.value!r}", "remove the tag")
    return value


def _plain(text: str, line: int) -> Any:  # noqa: ANN401 - any scalar
    """A plain scalar by Kubernetes' rules. Whole numbers are integers however they are written, as in JSON."""
    if text in _WORDS:
        return _WORDS[text]
    bare = text.replace("_", "") if text[:1].isdigit() or text[:1] in "+-" else text
    if _INTEGER.fullmatch(bare):
        return _integer(bare)
    if _NO_NUMBER.fullmatch(text):
        raise YamlTextError(line, f"{text} is no number that JSON has", "write a finite number")
    if not _FLOAT.fullmatch(bare):
        return text
    number = float(bare)
    if math.isinf(number):
        raise YamlTextError(line, f"{text} is larger than any number", "write a finite number")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _integer(text: str) -> int:
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    is_old_octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
    return sign * (int(digits, 8) if is_old_octal else int(digits, 0))
