"""Loss on the documents that a mixture set aside, measured as in training. Reads only; trains nothing."""

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bessemer_trainer.backends import disk_errors
from bessemer_trainer.dist import Gang
from bessemer_trainer.engine import Engine
from bessemer_trainer.packing import SequenceWriter
from bessemer_trainer.schedule import RunPlan
from bessemer_trainer.shards import Array, Batch, Shards, open_shards
from bessemer_trainer.token_cache import load_vocabulary, tokenise


@dataclass(frozen=True, slots=True)
class Holdout:
    """Documents that were set aside, packed as a mixture packs: the folder, and their bytes of text."""

    folder: Path
    size: int


def measure_holdout(engine: Engine, gang: Gang, plan: RunPlan, held: Holdout | None) -> dict[str, float]:
    """`holdoutLoss` (nats a predicted token) and `holdoutBitsPerByte`; nothing when nothing was set aside.

    As in training the first token of a document (or of the piece of a long one) is not predicted; the bytes are all.
    """
    if held is None:
        return {}
    shards = open_shards(held.folder, plan.sequence_length)
    nats = score_shards(engine, gang, plan, shards)
    targets = shards.targets_in(np.arange(shards.sequences))
    return {"holdoutLoss": nats / max(1, targets), "holdoutBitsPerByte": nats / math.log(2) / max(1, held.size)}


def score_shards(engine: Engine, gang: Gang, plan: RunPlan, shards: Shards) -> float:
    """Sum of the losses of all targets in `shards`, in nats. All ranks together."""
    losses = 0.0
    for start in range(0, shards.sequences, plan.micro * gang.world_size):
        rows = np.arange(plan.micro) + start + gang.rank * plan.micro
        losses += float(engine.score(_rows(shards, rows))[0])
    return gang.sum([losses])[0]


def pack_holdout(data: Path, tokenizer: Path, plan: RunPlan, scratch: Path) -> Holdout | None:
    """Tokenise and pack `holdout.jsonl` of the mixture in `data` into scratch space; None when it is empty.

    Text passes through: what stays in memory is the length of each document. Once a node; all of its ranks read it.
    """
    path, folder = data / "holdout.jsonl", scratch / "holdout"
    if not path.is_file() or not path.stat().st_size:
        return None
    vocabulary = load_vocabulary(tokenizer)
    with disk_errors(str(folder)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        part = tokenise(_texts(path), vocabulary, folder / "tokenised", lambda _done: None)
        writer = SequenceWriter(
            folder,
            plan.sequence_length,
            largest_token=vocabulary.largest,
            padding=vocabulary.padding,
            packing=True,
        )
        with writer:
            for number in range(len(part.lengths)):
                writer.add(part.document(number))
        return Holdout(folder, sum(len(text.encode()) for text in _texts(path)))


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        yield from (str(json.loads(line)["text"]) for line in lines)


def _rows(shards: Shards, rows: Array) -> Batch:
    """Rows past the end are padding: every rank must run equally many forwards."""
    batch = shards.rows(np.minimum(rows, shards.sequences - 1))
    batch["documents"][rows >= shards.sequences] = 0
    return batch
