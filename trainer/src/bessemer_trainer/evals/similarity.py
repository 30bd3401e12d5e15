"""How alike outputs are to each other, and to training data, by their n-grams. Pure but for reading documents."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bessemer_api.v1alpha1.data import DataKind
from bessemer_trainer.data import read_lines
from bessemer_trainer.ngrams import U64, hash_words, is_in, normalise, runs, sorted_unique
from bessemer_trainer.records import joined_text

NOVEL_WORDS = 8
"""An output that shares this many words in a row with a document was not made up (a shorter one: all its words)."""

MOST_ALIKE = 0.7
"""Two outputs are distinct when their similarity is below this."""

_BATCH_CHARACTERS = 1 << 20

Documents = tuple[Path, DataKind]
"""A file `documents.jsonl` of prepared data, and the kind of its rows."""


def similarities(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Similarity of every two texts, 0 to 1: the cosine of their counts of runs of one, two and three words."""
    counts = [_counts(text) for text in texts]
    columns = {gram: i for i, gram in enumerate(sorted({gram for count in counts for gram in count}))}
    table = np.zeros((len(texts), max(1, len(columns))))
    for row, count in enumerate(counts):
        for gram, number in count.items():
            table[row, columns[gram]] = number
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    unit = np.divide(table, norms, out=np.zeros_like(table), where=norms > 0)
    found: npt.NDArray[np.float64] = np.clip(unit @ unit.T, 0.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return found


def _counts(text: str) -> Mapping[str, int]:
    words = normalise(text).decode().split()
    counts: dict[str, int] = {}
    for n in (1, 2, 3):
        for i in range(len(words) - n + 1):
            gram = " ".join(words[i : i + n])
            counts[gram] = counts.get(gram, 0) + 1
    return counts


def distinct(similarity: npt.NDArray[np.float64], usable: Sequence[bool]) -> list[bool]:
    """Which of the usable texts are unlike every usable one that was counted before them."""
    kept: list[int] = []
    for i, is_usable in enumerate(usable):
        if is_usable and all(similarity[i, k] < MOST_ALIKE for k in kept):
            kept.append(i)
    return [i in kept for i in range(len(usable))]


def vendi_score(similarity: npt.NDArray[np.float64]) -> float:
    """The effective number of different texts: exp of the entropy of the eigenvalues of similarity / n.

    Friedman and Dieng 2023 (TMLR). Equal texts give 1, texts without a common n-gram their number.
    """
    values = np.clip(np.linalg.eigvalsh(similarity / len(similarity)), 0.0, None)
    positive = values[values > 0]
    return float(np.exp(-np.sum(positive * np.log(positive))))


def copied(texts: Sequence[str], documents: Sequence[Documents]) -> list[bool]:
    """Which texts share NOVEL_WORDS words in a row with a document (a shorter one: all of its words in a row).

    Each file is read once, a batch at a time.
    """
    words = hash_words([normalise(text) for text in texts]).hashes
    lengths = np.minimum(np.diff(words.offsets), NOVEL_WORDS)
    grams = {int(n): runs(words.take(np.flatnonzero(lengths == n)), int(n)) for n in np.unique(lengths) if n > 0}
    index = {n: sorted_unique(found.values) for n, found in grams.items()}
    seen: dict[int, U64] = {n: np.zeros(0, np.uint64) for n in grams}
    for path, kind in documents:
        for batch in _batches(joined_text(row, kind) for row in read_lines(path)):
            there = hash_words([normalise(text) for text in batch]).hashes
            for n, wanted in index.items():
                values = runs(there, n).values
                seen[n] = sorted_unique(np.concatenate([seen[n], values[is_in(values, wanted)]]))
    return _owners(len(texts), lengths, {n: (grams[n].offsets, is_in(grams[n].values, seen[n])) for n in grams})


def _owners(
    count: int,
    lengths: npt.NDArray[np.int64],
    hits: Mapping[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]],
) -> list[bool]:
    """Texts that own a hit; `hits` by length: offsets of its texts, and which n-grams were seen."""
    found = [False] * count
    for n, (offsets, is_seen) in hits.items():
        for place, text in enumerate(np.flatnonzero(lengths == n)):
            found[int(text)] = bool(is_seen[offsets[place] : offsets[place + 1]].any())
    return found


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
