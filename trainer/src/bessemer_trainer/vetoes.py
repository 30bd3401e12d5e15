"""Vetoes of a gate: findings that fail a candidate whatever its axes say. Reads artifacts; changes nothing."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from bessemer_api.job import CompareTask
from bessemer_api.v1alpha1.gate import Veto
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.items import Item, parse_items
from bessemer_trainer.ngrams import U64, is_in, item_text, text_ngrams
from bessemer_trainer.store import Store

CONTAMINATED = 0.5
"""An item counts as seen in training when at least this share of its 13-word n-grams occurs in one data set."""


def check(store: Store, task: CompareTask) -> dict[Veto, str]:
    """The vetoes of the task that fired, each with what was found in words. Fetches only what they look at."""
    found = {veto: _CHECKS[veto](store, task) for veto in task.vetoes}
    return {veto: finding for veto, finding in found.items() if finding}


def _contamination(store: Store, task: CompareTask) -> str:
    """Items of the gate part that occur in the training data, by the n-gram index of the data."""
    bank = store.fetch(task.bank)
    items = [item for axis in task.axes for item in parse_items(bank / f"{axis.name}.gate.jsonl")]
    for digest in sorted(task.training_data):
        index = _index(digest, store.fetch(digest) / "ngrams.u64")
        hits = [item for item in items if _is_seen(item, index)]
        if hits:
            first = f"{hits[0].id} ({hits[0].where})"
            return f"{len(hits)} gate items occur in training data {digest}, the first is {first}"
    return ""


def _index(digest: str, path: Path) -> U64:
    """The sorted hashes of one data set, mapped, since they may be larger than memory."""
    if not path.is_file():
        raise PermanentError("NoIndex", f"{digest} has no {path.name}; expected the digest of prepared data")
    return np.asarray(np.memmap(path, dtype="<u8", mode="r")) if path.stat().st_size else np.zeros(0, np.uint64)


def _is_seen(item: Item, index: U64) -> bool:
    grams = text_ngrams(item_text(item.fields))
    return len(grams) > 0 and float(is_in(grams, index).mean()) >= CONTAMINATED


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
    "nonFiniteWeights": _non_finite_weights,
    "tokenizerEquality": _tokenizer_equality,
}
