"""compare: register the try, then read the stored items of both arms, then report paired statistics and vetoes.

It measures nothing and gives no verdict: the operator's gate decides from the report alone. Everything derives from
stored per-item results that were verified by digest. The try is registered before any result is read, so that a
nominee that no one registered has no numbers.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bessemer_api.digest import canonical_json
from bessemer_api.job import Arm, AxisEvidence, CompareReport, CompareTask, HoldEvidence
from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.gate import GateAxis
from bessemer_trainer import vetoes
from bessemer_trainer.arms import Results, read_arm
from bessemer_trainer.channels import item_hash, register_try, try_identity
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.formats import item_text
from bessemer_trainer.evals.items import Item, parse_items
from bessemer_trainer.measured import compare_measured, slices_of
from bessemer_trainer.statistics import StatisticsError

MAX_EVIDENCE_BYTES = 3584
"""What fits into a RunReport beside its other fields; about eight lines of evidence."""


def run(context: Context) -> Outcome:
    """Publishes an artifact `comparison` with `evidence.json`; the report carries the same numbers."""
    task = context.spec.compare
    assert task is not None  # noqa: S101 - __main__ has checked that the field of the verb is set
    tries, uses = _register(context, task)
    candidate, baseline = (read_arm(context.store, task, arm) for arm in (task.candidate, task.baseline))
    anchors = {axis: read_arm(context.store, task, arm) for axis, arm in sorted(task.anchors.items())}
    also = {name: read_arm(context.store, task, other.arm) for name, other in sorted((task.also or {}).items())}
    fired = vetoes.check(context.store, task)
    report = CompareReport(
        look=task.look,
        tries=tries,
        bank_uses=uses,
        axes=[evidence(axis, task, candidate, baseline) for axis in task.axes],
        anchors=[_hold(axis, task, candidate, anchors[axis.name]) for axis in task.axes if axis.name in anchors],
        also={name: _holds(name, task, candidate, found) for name, found in also.items()} or None,
        vetoes=list(fired),
        veto_detail="; ".join(f"{veto}: {finding}" for veto, finding in fired.items())[:500],
        settings_agree=all(
            other.settings == candidate.settings for other in (baseline, *anchors.values(), *also.values())
        ),
    )
    _require_reportable(report)
    document = {"report": report.wire(), "slices": slices(task, candidate, baseline)}
    digest = context.store.publish(_write(context.scratch, task, document), "comparison", _meta(task))
    return Outcome(output_digest=digest, compare=report)


def _register(context: Context, task: CompareTask) -> tuple[int, int]:
    """(tries, uses of the items); a gate without a channel counts nothing."""
    if task.channel is None:
        return 1, 0
    return register_try(context.store, task.channel, try_identity(task), _judging_items(context, task))


def _judging_items(context: Context, task: CompareTask) -> frozenset[str]:
    """Hashes of all items that this gate may look at, up to its last look. Raises PermanentError for a bad item."""
    bank = context.store.fetch(task.bank)
    paths = {axis.name: bank / f"{axis.name}.gate.jsonl" for axis in task.axes}
    missing = sorted(name for name, path in paths.items() if not path.is_file() or not path.stat().st_size)
    if missing:
        raise PermanentError("NoItems", f"bank {task.bank} has no gate items of axis {missing[0]}")
    items = [item for path in paths.values() for item in parse_items(path)[: task.looks[-1]]]
    return frozenset(item_hash(_text_of(item)) for item in items)


def _text_of(item: Item) -> str:
    try:
        return item_text(item.fields)
    except (KeyError, TypeError, IndexError):
        raise item.error("it has neither a text nor a prompt with its right choice", "make the bank again") from None


def measure_of(task: CompareTask, name: str) -> Axis:
    """How an axis was measured. Raises PermanentError when the task does not say."""
    for axis in task.measures:
        if axis.name == name:
            return axis
    raise PermanentError("TaskInvalid", f"measures does not name the axis {name} of gate {task.gate}")


def evidence(axis: GateAxis, task: CompareTask, candidate: Results, baseline: Results) -> AxisEvidence:
    """Paired statistics of one axis. Raises PermanentError when the two arms do not hold the same items."""
    ours, theirs = candidate.samples[axis.name], baseline.samples[axis.name]
    for one, other in zip(ours, theirs, strict=True):
        if one.item.id != other.item.id:
            pair = f"{one.item.id} of the candidate stands beside {other.item.id} of the other arm"
            raise PermanentError("ItemsDiffer", f"axis {axis.name}: item {pair}; expected the same items in one order")
    chances = [sample.chance for sample in theirs if sample.chance is not None]
    chance = round(math.fsum(chances) / len(chances), 6) if chances else None
    arms = ([sample.item for sample in theirs], [sample.item for sample in ours])
    try:
        return compare_measured(*arms, axis, measure_of(task, axis.name), chance)
    except StatisticsError as error:
        raise PermanentError("NotComparable", str(error)) from error


def slices(task: CompareTask, candidate: Results, baseline: Results) -> dict[str, list[dict[str, Any]]]:
    """The same numbers for every stratum of every axis that has strata; for the report, never for the verdict."""
    found = {}
    for axis in task.axes:
        theirs, ours = ([s.item for s in arm.samples[axis.name]] for arm in (baseline, candidate))
        found[axis.name] = slices_of(theirs, ours, axis, measure_of(task, axis.name))
    return {axis: rows for axis, rows in found.items() if rows}


def _hold(axis: GateAxis, task: CompareTask, candidate: Results, other: Results) -> HoldEvidence:
    """The part of the evidence that a comparison needs which must only hold: a report is short."""
    found = evidence(axis, task, candidate, other)
    return HoldEvidence.model_validate({name: getattr(found, name) for name in HoldEvidence.model_fields})


def _holds(name: str, task: CompareTask, candidate: Results, other: Results) -> list[HoldEvidence]:
    asked = (task.also or {})[name].axes
    return [_hold(axis, task, candidate, other) for axis in task.axes if axis.name in asked]


def _require_reportable(report: CompareReport) -> None:
    size = len(canonical_json(report.wire()))
    if size > MAX_EVIDENCE_BYTES:
        raise PermanentError(
            "EvidenceTooLarge",
            f"{len(report.axes)} axes and {len(report.anchors)} anchors make a report of {size} bytes, at most "
            f"{MAX_EVIDENCE_BYTES} fit; give the gate fewer axes",
        )


def _write(scratch: Path, task: CompareTask, found: Mapping[str, Any]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="comparison-", dir=scratch))
    document = {"schema": 1, "task": task.wire(), "artifacts": _artifacts(task), **found}
    (folder / "evidence.json").write_bytes(canonical_json(document))
    return folder


def _artifacts(task: CompareTask) -> dict[str, Any]:
    """Every artifact that the numbers derive from, by its part."""
    arms: Mapping[str, Arm] = {"candidate": task.candidate, "baseline": task.baseline, **_named_anchors(task)}
    results: dict[str, Sequence[str]] = {name: arm.results for name, arm in arms.items()}
    checkpoints = {name: arm.checkpoint for name, arm in arms.items()}
    return {"checkpoints": checkpoints, "results": results, "bank": task.bank, "trainingData": task.training_data}


def _named_anchors(task: CompareTask) -> dict[str, Arm]:
    also = {f"also/{name}": other.arm for name, other in (task.also or {}).items()}
    return {f"anchor/{axis}": arm for axis, arm in task.anchors.items()} | also


def _meta(task: CompareTask) -> dict[str, Any]:
    return {"gate": task.gate, "look": task.look, "candidate": task.candidate.checkpoint}
