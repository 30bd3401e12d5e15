"""The stored results of one arm of a comparison: read by digest, verified, and checked to be what was asked for.

Fails closed: results of another checkpoint, bank or part, a gap between ranges, a score that is not finite or a line
that can not be read is an error, never a missing value.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer_api.job import Arm, CompareTask
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.statistics import Item
from bessemer_trainer.store import Manifest, Store


@dataclass(frozen=True, slots=True)
class Scored:
    """One stored result, and the score of a guesser where the item has one."""

    item: Item
    chance: float | None


@dataclass(frozen=True, slots=True)
class Results:
    """One arm: samples by axis in the order of the bank, and the settings of every range."""

    samples: Mapping[str, Sequence[Scored]]
    settings: Sequence[Mapping[str, Any]]


def read_arm(store: Store, task: CompareTask, arm: Arm) -> Results:
    """All results of `arm` on the items that look number `task.look` may see. Raises PermanentError."""
    settings = [_settings(store.manifest(digest), digest, task, arm) for digest in arm.results]
    _require_contiguous(settings, task.looks[task.look - 1])
    samples: dict[str, list[Scored]] = {axis.name: [] for axis in task.axes}
    for digest, part in zip(arm.results, settings, strict=True):
        folder = store.fetch(digest)
        for axis, found in samples.items():
            found.extend(_read_samples(folder / f"samples_{axis}.jsonl", int(part["end"]) - int(part["start"])))
    return Results(samples, settings)


def _settings(manifest: Manifest, digest: str, task: CompareTask, arm: Arm) -> Mapping[str, Any]:
    """Settings of one range; they must be of this checkpoint, the task's part of this bank and these axes."""
    settings = manifest.meta.get("settings")
    if manifest.kind != "evaluation" or not isinstance(settings, dict):
        raise PermanentError("WrongKind", f"{digest} is an artifact of kind {manifest.kind}; expected evaluation")
    asked = {axis.name: axis.wire() for axis in task.measures}
    measured = {axis.get("name"): axis for axis in settings.get("axes", [])}
    for field, found, expected in (
        ("checkpoint", manifest.meta.get("checkpoint"), arm.checkpoint),
        ("bank", settings.get("bank"), task.bank),
        ("part", settings.get("part"), task.part or "gate"),
        *((f"axis {axis.name}", measured.get(axis.name), asked.get(axis.name)) for axis in task.axes),
    ):
        if found != expected:
            raise PermanentError("ResultsMismatch", f"{digest}: {field} is {found}; expected {expected}")
    return settings


def _require_contiguous(settings: Sequence[Mapping[str, Any]], end: int) -> None:
    """The ranges must cover the items from 0 to `end`, each once."""
    borders = [0, *(part.get("end") for part in settings)]
    starts = [part.get("start") for part in settings]
    if starts != borders[:-1] or borders[-1] != end:
        ranges = ", ".join(f"{part.get('start')}-{part.get('end')}" for part in settings)
        raise PermanentError(
            "RangesMismatch", f"the results cover the items {ranges}; expected 0 to {end} without gaps"
        )


def _read_samples(path: Path, count: int) -> list[Scored]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise PermanentError("NoSamples", f"{path.parent.name} has no {path.name}") from None
    if len(lines) != count:
        raise PermanentError("NoSamples", f"{path.name} has {len(lines)} results; expected {count}")
    return [_parse(line, f"{path.name}, line {i + 1}") for i, line in enumerate(lines)]


def _parse(line: bytes, where: str) -> Scored:
    try:
        found = json.loads(line)
        chance, labels = found.get("chance"), (found["cluster"], found.get("stratum"))
        cluster, stratum = (None if label is None else str(label) for label in labels)
        item = Item(str(found["id"]), float(found["score"]), cluster, stratum)
        scored = Scored(item, None if chance is None else float(chance))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PermanentError("BadSample", f"{where}: not a result ({error!r})") from None
    if not math.isfinite(item.value):
        raise PermanentError("BadSample", f"{where}: the score is {item.value}; expected a finite number")
    return scored
