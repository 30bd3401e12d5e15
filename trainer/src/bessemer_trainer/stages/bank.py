"""The verb `bank`: items of every axis, checked, put in a fixed order and split into a dev and a gate part.

The order depends on the seed, the field `clusterBy` and the cluster's name alone, so more items in the file never
reshuffle the others. No cluster has items in both parts, nor in dev of one axis and gate of another that has the same
`clusterBy`. Items stay as they are given; a bad one fails the bank.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer_api.v1alpha1.stage import BankInputs
from bessemer_api.v1alpha1.tasks import TaskName
from bessemer_trainer.bank_items import Item, origin_of, read_items
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import pin_bank, require_unchanged, write_lines
from bessemer_trainer.errors import PermanentError


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
    if inputs.whole:
        return _publish_whole(context, inputs, stage.seed, folder)
    splits = _split_axes(inputs, stage.seed, context.scratch)
    for axis, part in splits.items():
        write_lines(folder / f"{axis}.dev.jsonl", part.dev)
        write_lines(folder / f"{axis}.gate.jsonl", part.gate)
    meta = {"axes": {axis: _counts(part, inputs.measures.get(axis)) for axis, part in splits.items()}}
    return Outcome(context.store.publish(folder, "bank", meta), metrics=_metrics(splits))


def _require_known_axes(inputs: BankInputs) -> None:
    named: Mapping[str, Mapping[str, object]] = {
        "clusterBy": inputs.cluster_by,
        "stratifyBy": inputs.stratify_by,
        "measures": inputs.measures,
    }
    for field, axes in named.items():
        for axis in sorted(set(axes) - inputs.tasks.keys()):
            raise PermanentError("SpecInvalid", f"bank.{field}.{axis}: the bank has no axis of that name")


def _publish_whole(context: Context, inputs: BankInputs, seed: int, folder: Path) -> Outcome:
    """A regression suite: every case, in the order of the files. No part is for choosing, none for gating."""
    counts = {}
    for axis in sorted(inputs.tasks):
        items = read_items(origin_of(axis, inputs, seed, context.scratch))
        counts[axis] = write_lines(folder / f"{axis}.all.jsonl", items)
        if not counts[axis]:
            raise PermanentError("TooFewItems", f"{inputs.tasks[axis].uri}: no case in it")
    meta = {"axes": {axis: {"task": inputs.measures.get(axis), "all": count} for axis, count in counts.items()}}
    digest = context.store.publish(folder, "bank", meta)
    return Outcome(digest, metrics={"cases": float(sum(counts.values()))})


def _split_axes(inputs: BankInputs, seed: int, scratch: Path) -> dict[str, Split]:
    """All axes; those that are clustered by the same field are split alike: by the name of the first of them."""
    fields: dict[str, list[str]] = {}
    for axis in sorted(inputs.tasks):
        fields.setdefault(inputs.cluster_by.get(axis) or f"{axis}/id", []).append(axis)
    splits: dict[str, Split] = {}
    for axes in fields.values():
        items = {axis: read_items(origin_of(axis, inputs, seed, scratch)) for axis in axes}
        clusters = {axis: _clusters(items[axis], inputs.cluster_by.get(axis), f"{seed}/{axes[0]}") for axis in axes}
        splits |= split(clusters, (inputs.dev, inputs.gate))
    for axis, parts in splits.items():
        _require_size(axis, parts, inputs)
    return splits


def _require_size(axis: str, parts: Split, inputs: BankInputs) -> None:
    if len(parts.dev) < inputs.dev or len(parts.gate) < inputs.gate:
        total = len(parts.dev) + len(parts.gate) + parts.unused
        place = inputs.tasks[axis].uri or "generators of reasoning-gym"
        raise PermanentError(
            "TooFewItems",
            f"axis {axis}: {inputs.dev} dev and {inputs.gate} gate items are asked for; of {total} items in "
            f"{place}, {len(parts.dev)} and {len(parts.gate)} could be taken"
            f"{' without splitting a cluster' if axis in inputs.cluster_by else ''}; add items or ask for fewer",
        )


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


def _counts(part: Split, task: TaskName | None) -> dict[str, Any]:
    return {
        "task": task or ("multipleChoice" if "choices" in (*part.dev, *part.gate)[0] else "bitsPerByte"),
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
