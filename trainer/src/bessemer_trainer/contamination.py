"""Which evaluation items stand in which documents, word for word. One definition, for `prepare` and for the veto. Pure.

An item is seen in a document when at least half of its distinct 13-grams stand there. One of fewer words is seen when
all its words stand there in a row; one of fewer than 5, which is a common phrase, only when it is all of the document.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bessemer_trainer.ngrams import NGRAM, U64, Ragged, hash_words, is_in, ngrams, normalise, runs, sorted_unique

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SEEN = 0.5
"""Share of an item's n-grams in one document from which on the item counts as seen."""

SHORTEST_INSIDE = 5
"""An item of fewer words is looked for as a whole document only: inside longer texts it is a common phrase."""


@dataclass(frozen=True, slots=True)
class Items:
    """Items by their n-grams: the sorted hash i is of the items `owners[starts[i]:starts[i + 1]]`.

    Item k has `sizes[k]` hashes; `lengths` are the numbers of words of items that are shorter than an n-gram.
    `sieve` says of the top bits of a hash whether any has them: most n-grams of a text need no further look.
    """

    hashes: U64
    starts: I64
    owners: I64
    sizes: I64
    lengths: tuple[int, ...]
    sieve: Bools


def index_items(texts: Sequence[str]) -> Items:
    """The items of these texts (see evals.formats.item_text), numbered in their order."""
    words = hash_words([normalise(text) for text in texts]).hashes
    counts = np.diff(words.offsets)
    grams = ngrams(words, NGRAM)
    owners, values = _unique_pairs(np.repeat(np.arange(len(texts)), np.diff(grams.offsets)), grams.values)
    hashes = sorted_unique(values)
    starts = np.append(np.searchsorted(values, hashes), len(values))
    lengths = tuple(int(count) for count in np.unique(counts) if 0 < count < NGRAM)
    sieve = np.zeros(1 << min(28, len(hashes).bit_length() + 4), dtype=np.bool_)
    sieve[_top(hashes, sieve)] = True
    return Items(hashes, starts, owners, np.bincount(owners, minlength=len(texts)), lengths, sieve)


def _top(hashes: U64, sieve: Bools) -> U64:
    return hashes >> np.uint64(65 - len(sieve).bit_length())


def find_items(words: Ragged, items: Items) -> tuple[I64, I64]:
    """(document, item) of every item that is seen in one of the documents `words`, in no order, each once."""
    counts = np.diff(words.offsets)
    found = [_hits(ngrams(words, NGRAM), items, counts >= NGRAM)]
    for length in items.lengths:
        found.append(_hits(runs(words, length), items, counts == length if length < SHORTEST_INSIDE else counts > 0))
    documents, owners = (np.concatenate(part) for part in zip(*found, strict=True))
    pairs, hits = np.unique(documents * len(items.sizes) + owners, return_counts=True)
    documents, owners = np.divmod(pairs, max(1, len(items.sizes)))
    is_seen = hits >= SEEN * items.sizes[owners]
    return documents[is_seen], owners[is_seen]


def _hits(grams: Ragged, items: Items, is_asked: Bools) -> tuple[I64, I64]:
    """(document, item) for each distinct n-gram that they share; of the documents asked for."""
    document = np.repeat(np.arange(len(is_asked)), np.diff(grams.offsets))
    places = np.flatnonzero(items.sieve[_top(grams.values, items.sieve)] & is_asked[document])
    places = places[is_in(grams.values[places], items.hashes)]
    document, values = _unique_pairs(document[places], grams.values[places])
    places = np.searchsorted(items.hashes, values)
    counts = items.starts[places + 1] - items.starts[places]
    offsets = np.cumsum(counts) - counts
    owners = np.arange(counts.sum()) + np.repeat(items.starts[places] - offsets, counts)
    return np.repeat(document, counts), items.owners[owners]


def _unique_pairs(numbers: I64, values: U64) -> tuple[I64, U64]:
    """Pairs ordered by value and then by number, each once."""
    order = np.lexsort((numbers, values))
    numbers, values = numbers[order], values[order]
    is_first = np.ones(len(order), dtype=np.bool_)
    is_first[1:] = (numbers[1:] != numbers[:-1]) | (values[1:] != values[:-1])
    return numbers[is_first], values[is_first]
