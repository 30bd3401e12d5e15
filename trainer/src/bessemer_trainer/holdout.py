"""Loss on the documents that a mixture set aside, measured as in training. Reads only; trains nothing."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bessemer_trainer.dist import Gang
from bessemer_trainer.engine import Engine
from bessemer_trainer.packing import SequenceWriter
from bessemer_trainer.schedule import RunPlan
from bessemer_trainer.shards import Array, Shards, open_shards
from bessemer_trainer.token_cache import load_vocabulary, tokenise


def measure_holdout(
    engine: Engine, gang: Gang, plan: RunPlan, data: Path, tokenizer: Path, scratch: Path
) -> dict[str, float]:
    """`holdoutLoss` (nats a predicted token) and `holdoutBitsPerByte` of `holdout.jsonl`; nothing when it is empty.

    As in training the first token of a document (or of the piece of a long one) is not predicted; the bytes are all.
    """
    path = data / "holdout.jsonl"
    texts = list(_texts(path)) if path.is_file() else []
    if not texts:
        return {}
    shards = _pack(texts, tokenizer, plan.sequence_length, scratch / "holdout")
    losses = 0.0
    for start in range(0, shards.sequences, plan.micro * gang.world_size):
        rows = np.arange(plan.micro) + start + gang.rank * plan.micro
        losses += engine.score(*_rows(shards, rows))
    nats = gang.sum([losses])[0]
    targets = shards.targets_in(np.arange(shards.sequences))
    size = sum(len(text.encode()) for text in texts)
    return {"holdoutLoss": nats / max(1, targets), "holdoutBitsPerByte": nats / math.log(2) / max(1, size)}


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        yield from (str(json.loads(line)["text"]) for line in lines)


def _pack(texts: list[str], tokenizer: Path, length: int, folder: Path) -> Shards:
    """As a mixture packs."""
    vocabulary = load_vocabulary(tokenizer)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    part = tokenise(texts, vocabulary, folder / "documents", lambda _done: None)
    writer = SequenceWriter(folder, length, largest_token=vocabulary.largest, padding=vocabulary.padding, packing=True)
    with writer:
        for number in range(len(texts)):
            writer.add(part.document(number))
    return open_shards(folder, length)


def _rows(shards: Shards, rows: Array) -> tuple[Array, Array]:
    """Rows past the end are padding: every rank must run equally many forwards."""
    tokens, documents = shards.rows(np.minimum(rows, shards.sequences - 1))
    documents[rows >= shards.sequences] = 0
    return tokens, documents
