"""The verb `bank`: items of every axis, checked, put in a fixed order and split into a dev and a gate part.

The order depends on the seed, the field `clusterBy` and the cluster's name alone, so more items in the file never
reshuffle the others. No cluster has items in both parts, nor in dev of one axis and gate of another that has the same
`clusterBy`. Items stay as they are given; a bad one fails the bank.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer_api.v1alpha1.stage import BankInputs
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import pin_bank, require_unchanged, write_lines
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.ngrams import item_text, normalise
from bessemer_trainer.records import parse_object, require_encodable
from bessemer_trainer.sources import list_files, open_lines

Item = Mapping[str, Any]
_SIGNS = re.compile(r"[-+*/%^=<>|&~]")


@dataclass(frozen=True, slots=True)
class Split:
    """Items of one axis in their order, and how many were left over."""

    dev: list[Item]
    gate: list[Item]
    dev_clusters: int
    gate_clusters: int
    unused: int


def run(context: Context) -> Outcome:
    """Publish the bank artifact. Raises PermanentError(SourceChanged | BadItem | TooFewItems)."""
    stage = context.spec.stage
    if stage is None or stage.bank is None:
        raise PermanentError("SpecInvalid", "stage.bank: missing; the method bank needs it")
    inputs = stage.bank
    _require_known_axes(inputs)
    require_unchanged("items", pin_bank(inputs.tasks), inputs.content)
    folder = context.scratch / "bank"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    splits = _split_axes(inputs, stage.seed)
    for axis, part in splits.items():
        write_lines(folder / f"{axis}.dev.jsonl", part.dev)
        write_lines(folder / f"{axis}.gate.jsonl", part.gate)
    meta = {"axes": {axis: _counts(part) for axis, part in splits.items()}}
    return Outcome(context.store.publish(folder, "bank", meta), metrics=_metrics(splits))


def _require_known_axes(inputs: BankInputs) -> None:
    for axis in inputs.cluster_by:
        if axis not in inputs.tasks:
            raise PermanentError("SpecInvalid", f"bank.clusterBy.{axis}: the bank has no axis of that name")


def _split_axes(inputs: BankInputs, seed: int) -> dict[str, Split]:
    """All axes; those that are clustered by the same field are split alike: by the name of the first of them."""
    fields: dict[str, list[str]] = {}
    for axis in sorted(inputs.tasks):
        fields.setdefault(inputs.cluster_by.get(axis) or f"{axis}/id", []).append(axis)
    splits: dict[str, Split] = {}
    for axes in fields.values():
        items = {axis: read_items(inputs.tasks[axis].uri or "", inputs.cluster_by.get(axis)) for axis in axes}
        clusters = {axis: _clusters(items[axis], inputs.cluster_by.get(axis), f"{seed}/{axes[0]}") for axis in axes}
        splits |= split(clusters, (inputs.dev, inputs.gate))
    for axis, parts in splits.items():
        _require_size(axis, parts, inputs)
    return splits


def _require_size(axis: str, parts: Split, inputs: BankInputs) -> None:
    if len(parts.dev) < inputs.dev or len(parts.gate) < inputs.gate:
        total = len(parts.dev) + len(parts.gate) + parts.unused
        raise PermanentError(
            "TooFewItems",
            f"axis {axis}: {inputs.dev} dev and {inputs.gate} gate items are asked for; of {total} items in "
            f"{inputs.tasks[axis].uri}, {len(parts.dev)} and {len(parts.gate)} could be taken"
            f"{' without splitting a cluster' if axis in inputs.cluster_by else ''}; add items or ask for fewer",
        )


def read_items(uri: str, cluster_by: str | None) -> list[Item]:
    """Items of one axis, all of one task. Raises PermanentError(BadItem) with file and line."""
    items: list[Item] = []
    seen: dict[tuple[str, str], str] = {}
    for where, line in _lines(uri):
        try:
            item = parse_item(line, cluster_by)
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


def _lines(uri: str) -> Iterator[tuple[str, bytes]]:
    for file in list_files(uri):
        if file.name.removesuffix(".gz").endswith(".txt"):
            raise PermanentError("BadItem", f"{file}: items are JSON Lines (.jsonl)")
        for number, line in open_lines(file):
            if line.strip():
                yield f"{file}:{number}", line


def parse_item(line: bytes, cluster_by: str | None) -> Item:
    """One item. ValueError says which field is wrong and what was expected."""
    item = parse_object(line)
    if isinstance(item.get("id"), int) and not isinstance(item["id"], bool):
        item["id"] = str(item["id"])
    _text(item, "id")
    if "choices" in item:
        _check_choices(item)
    elif "text" in item:
        _text(item, "text")
    else:
        raise ValueError("neither 'choices' (multipleChoice: id, prompt, choices, answer) nor 'text' (bitsPerByte)")
    if cluster_by is not None and not isinstance(item.get(cluster_by), str | int):
        raise ValueError(f"field {cluster_by!r}: expected the name of the item's cluster (clusterBy), a string")
    _require_all_encodable(item)
    return item


def _text(item: Item, name: str) -> None:
    if not isinstance(item.get(name), str) or not item[name].strip():
        raise ValueError(f"field {name!r}: expected a string that is not blank, found {item.get(name)!r:.80}")


def _check_choices(item: Item) -> None:
    _text(item, "prompt")
    choices, answer = item["choices"], item.get("answer")
    if not isinstance(choices, list) or len(choices) < 2:
        raise ValueError("field 'choices': expected a list of at least 2 strings")
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise ValueError("field 'choices': expected strings that are not blank")
    if len(set(choices)) < len(choices):
        raise ValueError("field 'choices': two choices are equal")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise ValueError(f"field 'answer': expected an index from 0 to {len(choices) - 1}, found {answer!r:.80}")


def _require_all_encodable(item: Item) -> None:
    for name, value in item.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                require_encodable(text, name)


def _require_same_task(item: Item, items: Sequence[Item]) -> None:
    if items and ("choices" in item) != ("choices" in items[0]):
        raise ValueError("multipleChoice and bitsPerByte items in one axis; expected all of one task")


Clusters = Mapping[str, list[Item]]
"""Items by the name of their cluster, both in their fixed order."""


def split(axes: Mapping[str, Clusters], sizes: tuple[int, int]) -> dict[str, Split]:
    """Clusters of each axis, filled into dev (first) and then gate; what exceeds a part is left out.

    The cluster at the end of dev may lose items: the rest of it is not moved to gate, neither here nor in another of
    these axes: a cluster's name means the same in all of them.
    """
    dev = {axis: _fill(clusters, sizes[0]) for axis, clusters in axes.items()}
    looked_at = {name for part in dev.values() for name in part}
    splits = {}
    for axis, clusters in axes.items():
        gate = _fill({name: items for name, items in clusters.items() if name not in looked_at}, sizes[1])
        unused = _size(clusters) - _size(dev[axis]) - _size(gate)
        splits[axis] = Split(_items(dev[axis]), _items(gate), len(dev[axis]), len(gate), unused)
    return splits


def _clusters(items: Sequence[Item], cluster_by: str | None, salt: str) -> Clusters:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(str(item[cluster_by or "id"]), []).append(item)
    ordered = sorted(groups, key=lambda name: (_rank(salt, name), name))
    return {name: sorted(groups[name], key=lambda item: (_rank(salt, item["id"]), item["id"])) for name in ordered}


def _rank(salt: str, name: str) -> bytes:
    return hashlib.sha256(f"{salt}/{name}".encode()).digest()


def _fill(clusters: Clusters, size: int) -> Clusters:
    """The first clusters, up to `size` items."""
    taken: dict[str, list[Item]] = {}
    for name, items in clusters.items():
        if size <= 0:
            break
        taken[name] = items[:size]
        size -= len(items)
    return taken


def _size(clusters: Clusters) -> int:
    return sum(map(len, clusters.values()))


def _items(clusters: Clusters) -> list[Item]:
    return [item for items in clusters.values() for item in items]


def _counts(part: Split) -> dict[str, Any]:
    return {
        "task": "multipleChoice" if "choices" in (*part.dev, *part.gate)[0] else "bitsPerByte",
        "dev": len(part.dev),
        "gate": len(part.gate),
        "devClusters": part.dev_clusters,
        "gateClusters": part.gate_clusters,
        "unused": part.unused,
    }


def _metrics(splits: Mapping[str, Split]) -> dict[str, float]:
    """At most 24, as a report holds: one an axis."""
    totals = {"dev": sum(len(part.dev) for part in splits.values())}
    totals["gate"] = sum(len(part.gate) for part in splits.values())
    totals["unused"] = sum(part.unused for part in splits.values())
    clusters = {f"gateClusters.{axis}": part.gate_clusters for axis, part in splits.items()}
    return {name: float(count) for name, count in (totals | clusters).items()}
