"""The items of one axis of a bank: read from JSON Lines, made by generators, or taken from a task of lm-eval.

Every item is checked here, once; what measures them may rely on their format. A bad one fails the bank.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer_api.v1alpha1.evaluation import BankTask
from bessemer_api.v1alpha1.stage import BankInputs
from bessemer_api.v1alpha1.tasks import TaskName
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.formats import check_item, item_text
from bessemer_trainer.ngrams import normalise
from bessemer_trainer.records import parse_object
from bessemer_trainer.sources import TASK_SUFFIXES, list_files, open_bytes, open_lines

Item = Mapping[str, Any]
_SIGNS = re.compile(r"[-+*/%^=<>|&~]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the items of an axis come from, and what is asked of them."""

    task: BankTask
    measure: TaskName | None
    labels: tuple[str, ...]
    seed: int
    count: int
    scratch: Path

    @property
    def place(self) -> str:
        """For messages."""
        return self.task.uri or "generators of reasoning-gym"


def origin_of(axis: str, inputs: BankInputs, seed: int, scratch: Path) -> Origin:
    """The origin of an axis' items; `labels` are the fields that every item must have. Axes get different seeds."""
    own = int.from_bytes(hashlib.sha256(f"{seed}/{axis}".encode()).digest()[:3])
    labels = tuple(f for f in (inputs.cluster_by.get(axis), inputs.stratify_by.get(axis)) if f is not None)
    return Origin(inputs.tasks[axis], inputs.measures.get(axis), labels, own, inputs.dev + inputs.gate, scratch)


def read_items(origin: Origin) -> list[Item]:
    """Items of one axis, all of one task. Raises PermanentError(BadItem) with file and line."""
    items: list[Item] = []
    seen: dict[tuple[str, str], str] = {}
    for where, raw in _raw_items(origin):
        try:
            item = parse_item(raw, origin)
            _require_same_task(item, items)
        except ValueError as error:
            raise PermanentError("BadItem", f"{where}: {error}") from None
        for what, key in (("id", item["id"]), ("text", _words(item))):
            if (what, key) in seen:
                raise PermanentError("BadItem", f"{where}: {what} {key!r:.80} stands already in {seen[what, key]}")
            seen[what, key] = where
        items.append(item)
    return items


def _words(item: Item) -> str:
    """What the item says, as two are compared: case, punctuation and white space apart, but signs of arithmetic count.

    An item that stands there twice would count as two that agree, and could be in dev and gate.
    """
    text = item_text(item)
    return " ".join([*normalise(text).decode().split(), *_SIGNS.findall(text)]) or text


def _raw_items(origin: Origin) -> Iterator[tuple[str, bytes | dict[str, Any]]]:
    """Each item with where it stands."""
    if origin.task.reasoning_gym is not None:
        yield from _generated(origin)
    elif origin.task.lm_eval is not None:
        yield from _of_harness(origin)
    else:
        yield from _lines(origin.task.uri or "")


def _generated(origin: Origin) -> Iterator[tuple[str, dict[str, Any]]]:
    from bessemer_trainer.evals import gym  # noqa: PLC0415 - seconds of import, for its users alone

    made_by = origin.task.reasoning_gym
    assert made_by is not None  # noqa: S101 - the caller has looked
    try:
        for item in gym.items(made_by.generators, made_by.settings, origin.seed, origin.count):
            yield f"generator {item['generator']}", item
    except ValueError as error:
        raise PermanentError("BadGenerator", str(error)) from None


def _of_harness(origin: Origin) -> Iterator[tuple[str, dict[str, Any]]]:
    """Documents of a task of lm-evaluation-harness; its folder is copied, since it may be in a bucket."""
    from bessemer_trainer.evals import harness  # noqa: PLC0415 - seconds of import, for its users alone

    uri, name = origin.task.uri or "", origin.task.lm_eval.task if origin.task.lm_eval else ""
    folder = origin.scratch / f"harness-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"
    for file in list_files(uri, TASK_SUFFIXES):
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_bytes(file) as stream:
            path.write_bytes(stream.read())
    try:
        for item in harness.bank_items(folder, name):
            yield f"{uri}, task {name}, document {item['id']}", item
    except ValueError as error:
        raise PermanentError("BadTask", f"{uri}: {error}") from None


def _lines(uri: str) -> Iterator[tuple[str, bytes]]:
    for file in list_files(uri):
        if file.name.removesuffix(".gz").endswith(".txt"):
            raise PermanentError("BadItem", f"{file}: items are JSON Lines (.jsonl)")
        for number, line in open_lines(file):
            if line.strip():
                yield f"{file}:{number}", line


def parse_item(raw: bytes | dict[str, Any], origin: Origin) -> Item:
    """One item. ValueError says which field is wrong and what was expected."""
    item = parse_object(raw) if isinstance(raw, bytes) else raw
    if isinstance(item.get("id"), int) and not isinstance(item["id"], bool):
        item["id"] = str(item["id"])
    check_item(item, origin.measure)
    for field in origin.labels:
        if not isinstance(item.get(field), str | int):
            raise ValueError(f"field {field!r}: expected the name of the item's cluster or stratum, a string")
    return item


def _require_same_task(item: Item, items: Sequence[Item]) -> None:
    if items and ("choices" in item) != ("choices" in items[0]):
        raise ValueError("multipleChoice and bitsPerByte items in one axis; expected all of one task")
