"""Vetoes of a gate: findings that fail a candidate whatever its axes say. Reads artifacts; changes nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from bessemer_api.job import CompareTask
from bessemer_api.v1alpha1.data import DataKind
from bessemer_api.v1alpha1.gate import Veto
from bessemer_trainer.contamination import Items, find_items, index_items
from bessemer_trainer.data import kind_of, read_lines
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.formats import item_text
from bessemer_trainer.evals.items import parse_items
from bessemer_trainer.ngrams import hash_words, normalise
from bessemer_trainer.records import joined_text
from bessemer_trainer.refusals import find_drift
from bessemer_trainer.store import Store

_BATCH_ROWS = 256
_BATCH_CHARACTERS = 1 << 20


def check(store: Store, task: CompareTask) -> dict[Veto, str]:
    """The vetoes of the task that fired, each with what was found in words. Fetches only what they look at."""
    unknown = sorted(set(task.vetoes) - _CHECKS.keys())
    if unknown:
        raise PermanentError(
            "VetoUnknown", f"this trainer can not check the veto {unknown[0]}; remove it from the gate"
        )
    found = {veto: _CHECKS[veto](store, task) for veto in task.vetoes}
    return {veto: finding for veto, finding in found.items() if finding}


def _contamination(store: Store, task: CompareTask) -> str:
    """Items of the gate part that stand in a document of the training data, by the same rule as `prepare`."""
    bank = store.fetch(task.bank)
    items = [item for axis in task.axes for item in parse_items(bank / f"{axis.name}.gate.jsonl")]
    index = index_items([item_text(item.fields) for item in items])
    for digest in sorted(task.training_data):
        path = store.fetch(digest) / "documents.jsonl"
        kind = kind_of(store, digest)
        if not path.is_file():
            raise PermanentError("NoDocuments", f"{digest} has no {path.name}; expected the digest of prepared data")
        seen = _seen(path, kind, index)
        if seen:
            first = items[seen[0]]
            return f"{len(seen)} gate items occur in training data {digest}, the first is {first.id} ({first.where})"
    return ""


def _seen(path: Path, kind: DataKind, index: Items) -> list[int]:
    """Numbers of the items that stand in a document of the file; reads it once, a batch at a time."""
    seen: set[int] = set()
    for texts in _batches(joined_text(document, kind) for document in read_lines(path)):
        found = find_items(hash_words([normalise(text) for text in texts]).hashes, index)[1]
        seen |= set(found.tolist())
    return sorted(seen)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) == _BATCH_ROWS or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _regression(store: Store, task: CompareTask) -> str:
    """Cases of the regression suites that the candidate does not fully pass. Missing results are an error, no pass."""
    if not task.regression:
        raise PermanentError("NoResults", "the veto regression has no results; evaluation.regression names no suite")
    failed, count = [], 0
    for digest in task.regression:
        manifest = store.manifest(digest)
        found = (manifest.kind, manifest.meta.get("checkpoint"), manifest.meta.get("settings", {}).get("part"))
        if found != ("evaluation", task.candidate.checkpoint, "all"):
            raise PermanentError("ResultsMismatch", f"{digest} is no evaluation of the candidate on a whole suite")
        for path in sorted(store.fetch(digest).glob("samples_*.jsonl")):
            for sample in read_lines(path):
                count += 1
                failed += [] if sample["score"] >= 1 else [f"{sample['id']} ({path.stem.removeprefix('samples_')})"]
    if not count:
        raise PermanentError("NoResults", "the regression suites have no case")
    return f"{len(failed)} of {count} regression cases fail, the first is {failed[0]}" if failed else ""


def _non_finite_weights(store: Store, task: CompareTask) -> str:
    import torch  # noqa: PLC0415 - only this veto reads weights
    from safetensors import safe_open  # noqa: PLC0415

    for path in sorted(store.fetch(task.candidate.checkpoint).glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                if not bool(torch.isfinite(tensors.get_tensor(name)).all()):
                    return f"{path.name}: the tensor {name} holds a value that is not finite"
    return ""


def _tokenizer_equality(store: Store, task: CompareTask) -> str:
    from bessemer_trainer.artifacts import TOKENIZER_FILES  # noqa: PLC0415 - it imports torch

    ours, theirs = (
        {entry.path: entry.sha256 for entry in store.manifest(digest).files if entry.path in TOKENIZER_FILES}
        for digest in (task.candidate.checkpoint, task.baseline.checkpoint)
    )
    different = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    return f"{', '.join(different)} differ from the baseline's" if different else ""


_CHECKS: Mapping[Veto, Callable[[Store, CompareTask], str]] = {
    "contamination": _contamination,
    "refusalDrift": find_drift,
    "regression": _regression,
    "nonFiniteWeights": _non_finite_weights,
    "tokenizerEquality": _tokenizer_equality,
}
