"""Items of a bank: JSONL in, with what a task asks of their fields. Must not import torch: `compare` uses it too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a bank: its fields, and where it stands, for messages."""

    id: str
    fields: Mapping[str, Any]
    where: str

    def error(self, problem: str, advice: str) -> PermanentError:
        return PermanentError("BadItem", f"{self.where}: item {self.id}: {problem}; {advice}")


def cluster_of(item: Item, axis: Axis) -> str | None:
    """The cluster of an item; None when the axis has no clusters. Raises PermanentError when the item has none."""
    return _label(item, f"clusterBy of axis {axis.name}", axis.cluster_by)


def stratum_of(item: Item, axis: Axis) -> str | None:
    """The stratum of an item, as `cluster_of`."""
    return _label(item, f"stratifyBy of axis {axis.name}", axis.stratify_by)


def _label(item: Item, what: str, name: str | None) -> str | None:
    if name is None:
        return None
    value = item.fields.get(name)
    if not isinstance(value, str | int) or value == "":
        raise item.error(
            f"{what} names the field {name!r}, which is {value!r}", "expected a text or a whole number in every item"
        )
    return str(value)


def required_text(item: Item, name: str) -> str:
    """A field that must be a text with at least one character."""
    value = item.fields.get(name)
    if not isinstance(value, str) or not value:
        raise item.error(f"the field {name!r} is {value!r}", "expected a text that is not empty")
    return value


def read_items(path: Path, start: int, end: int) -> list[Item]:
    """Items [start, end) of a JSONL file. Raises PermanentError for fewer items than that, or a bad line."""
    lines = path.read_bytes().splitlines()
    if len(lines) < end:
        raise PermanentError(
            "TooFewItems",
            f"{path.name} has {len(lines)} items, but items {start} to {end} were asked for; "
            "give the bank more items or ask for fewer (gates[].looks, evaluation.banks[].dev and .gate)",
        )
    return [_parse_item(lines[i], f"{path.name}, line {i + 1}") for i in range(start, end)]


def parse_items(path: Path) -> list[Item]:
    """All items of a JSONL file. Raises PermanentError for a bad line."""
    return [_parse_item(line, f"{path.name}, line {i + 1}") for i, line in enumerate(path.read_bytes().splitlines())]


def _parse_item(line: bytes, where: str) -> Item:
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
    except ValueError as error:
        raise PermanentError("BadItem", f"{where}: not JSON: {error}; expected one JSON object a line") from error
    identity = fields.get("id") if isinstance(fields, dict) else None
    if not isinstance(identity, str) or not identity:
        raise PermanentError("BadItem", f"{where}: expected a JSON object with an `id` that is a text")
    return Item(identity, fields, where)
