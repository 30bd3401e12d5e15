"""The verb `bank`: items of every axis, checked, put in a fixed order and split into a dev and a gate part.

The order depends on the seed, the axis and the cluster's name alone, so more items in the file never reshuffle the
others. No cluster has items in both parts. Items stay as they are given; a bad one fails the bank.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer_api.v1alpha1.stage import BankInputs
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import parse_object, pin_bank, require_encodable, require_unchanged, write_lines
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.ngrams import NGRAM, hash_words, item_text, ngrams, normalise, sorted_unique
from bessemer_trainer.sources import list_files, open_lines

Item = Mapping[str, Any]


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
    splits = {axis: _split_axis(axis, inputs, stage.seed) for axis in sorted(inputs.tasks)}
    for axis, part in splits.items():
        write_lines(folder / f"{axis}.dev.jsonl", part.dev)
        write_lines(folder / f"{axis}.gate.jsonl", part.gate)
    hashes = _write_index(folder / "ngrams.u64", splits.values())
    meta = {"axes": {axis: _counts(part) for axis, part in splits.items()}, "ngrams": hashes, "ngramWords": NGRAM}
    return Outcome(context.store.publish(folder, "bank", meta), metrics=_metrics(splits))


def _require_known_axes(inputs: BankInputs) -> None:
    for axis in inputs.cluster_by:
        if axis not in inputs.tasks:
            raise PermanentError("SpecInvalid", f"bank.clusterBy.{axis}: the bank has no axis of that name")


def _split_axis(axis: str, inputs: BankInputs, seed: int) -> Split:
    items = read_items(inputs.tasks[axis].uri, inputs.cluster_by.get(axis))
    parts = split(items, inputs.cluster_by.get(axis), f"{seed}/{axis}", (inputs.dev, inputs.gate))
    if len(parts.dev) < inputs.dev or len(parts.gate) < inputs.gate:
        raise PermanentError(
            "TooFewItems",
            f"axis {axis}: {inputs.dev} dev and {inputs.gate} gate items are asked for; of {len(items)} items in "
            f"{inputs.tasks[axis].uri}, {len(parts.dev)} and {len(parts.gate)} could be taken"
            f"{' without splitting a cluster' if axis in inputs.cluster_by else ''}; add items or ask for fewer",
        )
    return parts


def read_items(uri: str, cluster_by: str | None) -> list[Item]:
    """Items of one axis, all of one task. Raises PermanentError(BadItem) with file and line."""
    items: list[Item] = []
    seen: dict[str, str] = {}
    for where, line in _lines(uri):
        try:
            item = parse_item(line, cluster_by)
            _require_same_task(item, items)
        except ValueError as error:
            raise PermanentError("BadItem", f"{where}: {error}") from None
        if item["id"] in seen:
            raise PermanentError("BadItem", f"{where}: id {item['id']!r} stands already in {seen[item['id']]}")
        seen[item["id"]] = where
        items.append(item)
    return items


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


def split(items: Sequence[Item], cluster_by: str | None, salt: str, sizes: tuple[int, int]) -> Split:
    """Clusters in an order given by `salt`, filled into dev (first) and then gate; what exceeds a part is left out.

    The cluster at the end of dev may lose items: the rest of it is not moved to gate.
    """
    clusters = _clusters(items, cluster_by, salt)
    dev, dev_clusters, used = _fill(clusters, sizes[0])
    gate, gate_clusters, _ = _fill(clusters[used:], sizes[1])
    return Split(dev, gate, dev_clusters, gate_clusters, len(items) - len(dev) - len(gate))


def _clusters(items: Sequence[Item], cluster_by: str | None, salt: str) -> list[list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(str(item[cluster_by or "id"]), []).append(item)
    ordered = sorted(groups, key=lambda name: (_rank(salt, name), name))
    return [sorted(groups[name], key=lambda item: (_rank(salt, item["id"]), item["id"])) for name in ordered]


def _rank(salt: str, name: str) -> bytes:
    return hashlib.sha256(f"{salt}/{name}".encode()).digest()


def _fill(clusters: Sequence[list[Item]], size: int) -> tuple[list[Item], int, int]:
    """(up to `size` items, their clusters, clusters that were touched)."""
    taken: list[Item] = []
    for used, cluster in enumerate(clusters):
        if len(taken) >= size:
            return taken, used, used
        taken += cluster[: size - len(taken)]
    return taken, len(clusters), len(clusters)


def _write_index(path: Path, splits: Iterable[Split]) -> int:
    texts = [normalise(item_text(item)) for part in splits for item in (*part.dev, *part.gate)]
    hashes = sorted_unique(ngrams(hash_words(texts).hashes, NGRAM).values)
    hashes.astype("<u8").tofile(path)
    return len(hashes)


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
