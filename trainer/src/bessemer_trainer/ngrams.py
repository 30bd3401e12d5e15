"""Hashes of normalised word n-grams: for near duplicates, contamination and repetition. Pure.

Normalisation: NFKC, case folded; a word is a run of letters, digits and underscores; an ideograph is a word of its own.
Hashes are 64 bits and the same on every machine and in every process. All arithmetic is modulo 2^64 on purpose.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

NGRAM = 13
"""Words in an n-gram that tells contamination (Brown et al. 2020, appendix C)."""

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_ASCII_WORDS = bytes(ord(chr(c).lower()) if chr(c).isalnum() or chr(c) == "_" else 32 for c in range(128)) + bytes(128)
_NOT_WORD = re.compile(r"\W+")
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_SPACE = 32
_BASE = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xD6E8FEB86659FD93)
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Ragged:
    """Values of several documents in a row; document d owns values[offsets[d]:offsets[d + 1]]."""

    values: U64
    offsets: I64

    def of(self, document: int) -> U64:
        return self.values[self.offsets[document] : self.offsets[document + 1]]

    def take(self, documents: I64) -> "Ragged":
        """These documents alone, in the order given."""
        counts = np.diff(self.offsets)[documents]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[documents] - offsets[:-1], counts)
        return Ragged(self.values[places], offsets)


@dataclass(frozen=True, slots=True)
class Words:
    """The words of several documents: their hashes, and how many bytes each has."""

    hashes: Ragged
    lengths: I64


def normalise(text: str) -> bytes:
    """Words in lower case as UTF-8; all that is no word has become spaces."""
    if text.isascii():
        return text.encode().translate(_ASCII_WORDS)
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NOT_WORD.sub(" ", _IDEOGRAPH.sub(r" \g<0> ", folded)).encode()


def hash_words(normalised: Sequence[bytes]) -> Words:
    """Words of normalised texts (see `normalise`)."""
    data = np.frombuffer(b" " + b" ".join(normalised) + b" ", dtype=np.uint8)
    is_word = data != _SPACE
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    powers, inverses = _powers(1 << len(data).bit_length())
    sums = np.cumsum(data * powers[: len(data)], dtype=np.uint64)
    hashes = _mix((sums[ends - 1] - sums[starts - 1]) * inverses[starts])
    borders = np.cumsum([1, *(len(text) + 1 for text in normalised)])
    return Words(Ragged(hashes, np.searchsorted(starts, borders)), ends - starts)


def ngrams(words: Ragged, n: int) -> Ragged:
    """Hashes of all runs of n words of each document; a document of fewer words gives one hash of all its words."""
    counts = np.diff(words.offsets)
    exact = runs(words, n)
    short = np.flatnonzero((counts > 0) & (counts < n))
    if not len(short):
        return exact
    whole = {int(d): runs(Ragged(words.of(int(d)), np.array([0, counts[d]])), int(counts[d])).values for d in short}
    parts = [whole[d] if d in whole else exact.of(d) for d in range(len(counts))]
    return Ragged(np.concatenate(parts), np.concatenate([[0], np.cumsum([len(part) for part in parts])]))


def runs(words: Ragged, n: int) -> Ragged:
    """As `ngrams`, but nothing for a document of fewer than n words."""
    counts = np.maximum(np.diff(words.offsets) - n + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    total = len(words.values) - n + 1
    if total <= 0:
        return Ragged(np.zeros(0, np.uint64), offsets)
    hashes = np.zeros(total, np.uint64)
    for shift in range(n):
        hashes = hashes * _STEP + words.values[shift : shift + total]
    inside = np.arange(offsets[-1]) + np.repeat(words.offsets[:-1] - offsets[:-1], counts)
    return Ragged(_mix(hashes[inside] + np.uint64(n * int(_BASE) & _MASK)), offsets)


def text_ngrams(text: str, n: int = NGRAM) -> U64:
    """Sorted unique n-gram hashes of one text; of a text of fewer words, the hash of all its words."""
    return sorted_unique(ngrams(hash_words([normalise(text)]).hashes, n).values)


def sorted_unique(values: U64) -> U64:
    """Sorted values, each once. (numpy's own unique hashes first, which takes ten times as long for random keys.)"""
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), dtype=np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def count_hits(words: Ragged, index: U64, n: int) -> tuple[I64, I64]:
    """(n-grams of each document that are in the sorted `index`, n-grams of each document)."""
    own = ngrams(words, n)
    found: I64 = np.concatenate([[0], np.cumsum(is_in(own.values, index))])
    return found[own.offsets[1:]] - found[own.offsets[:-1]], np.diff(own.offsets)


def is_in(values: U64, index: U64) -> npt.NDArray[np.bool_]:
    """Which values occur in the sorted `index`."""
    if not len(index):
        return np.zeros(len(values), dtype=np.bool_)
    place = np.minimum(np.searchsorted(index, values), len(index) - 1)
    found: npt.NDArray[np.bool_] = index[place] == values
    return found


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[U64, U64]:
    """Powers of an odd number and of its inverse."""
    inverse = np.uint64(pow(int(_BASE), -1, 1 << 64))
    return _geometric(_BASE, count), _geometric(inverse, count)


def _geometric(ratio: np.uint64, count: int) -> U64:
    values = np.full(count, ratio, dtype=np.uint64)
    values[0] = 1
    return np.cumprod(values, dtype=np.uint64)


def _mix(values: U64) -> U64:
    """Spread every bit over all others (the finaliser of MurmurHash3)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
