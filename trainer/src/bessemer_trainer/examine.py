"""What a data set's rules say of rows by themselves: everything but duplicates, which need the rows before them.

So rows can be examined in any order and by several processes. The result is a block: what would be written of each
row, its reason if it has one, and the keys by which duplicates are found later.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_api.v1alpha1.data import Filter, Prepare
from bessemer_trainer.contamination import Items, find_items, index_items
from bessemer_trainer.dedupe import band_keys, text_keys
from bessemer_trainer.document import Document
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.filters import Rule, build_rule
from bessemer_trainer.ngrams import U64, Words, count_hits, hash_words, ngrams, normalise, sorted_unique
from bessemer_trainer.rows import Row

_BATCH_ROWS = 256
_BATCH_CHARACTERS = 1 << 20
I64 = npt.NDArray[np.int64]

HELD = np.uint64(0)
"""No text has this key but one in 2^64."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows, examined. `lines`: each row as JSON, as it is kept, or with its reason if it was refused `early`.

    `early` reasons come before the search for duplicates, `late` ones after it; both by place in the block.
    """

    lines: Sequence[bytes]
    numbers: I64
    """Line of each row in its file; 0 where the file is the document."""
    sizes: I64
    """Bytes of each joined text."""
    keys: U64
    groups: U64
    """Keys that decide about the holdout; HELD is held out whatever the share."""
    bands: U64
    """Shape (rows, bands); (rows, 0) when near duplicates are not looked for."""
    early: Mapping[int, str]
    late: Mapping[int, str]
    reported: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BankIndex:
    """What must not be trained on: the items themselves, and their sorted n-gram hashes for maxHitRatio."""

    items: Items
    hashes: U64


def index_bank(texts: Sequence[str], n: int) -> BankIndex:
    """The index of items by their texts; `n` words make an n-gram of maxHitRatio."""
    words = hash_words([normalise(text) for text in texts]).hashes
    return BankIndex(index_items(texts), sorted_unique(ngrams(words, n).values))


class Examiner:
    """Applies the rules of one data set. Remembers nothing."""

    def __init__(self, rules: Prepare, bank: BankIndex | None) -> None:
        self._rules = rules
        self._filters: list[tuple[Filter, Rule]] = [(declared, build_rule(declared)) for declared in rules.filters]
        self._bank = bank
        self._encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode

    def blocks(self, rows: Iterator[Row]) -> Iterator[Block]:
        """All rows, examined a batch at a time. Raises PermanentError(BadRow) where rules say so."""
        for batch in _batches(rows):
            self._fail_on_bad_row(batch)
            yield self._examine(batch)

    def _fail_on_bad_row(self, batch: Sequence[Row]) -> None:
        bad = next((row for row in batch if row.error), None)
        if bad is not None and self._rules.on_bad_row == "fail":
            hint = "mend it, or set onBadRow: reject to keep it beside the result"
            raise PermanentError("BadRow", f"{bad.where}: {bad.error}; {hint}")

    def _examine(self, batch: Sequence[Row]) -> Block:
        texts = [row.text for row in batch]
        words = hash_words([normalise(text) for text in texts])
        reported: Counter[str] = Counter()
        early = {place: f"badRow: {row.error}" for place, row in enumerate(batch) if row.error}
        early |= self._filtered(batch, words, early, reported)
        keys = text_keys(texts)
        return Block(
            lines=[self._line(row, early.get(place)) for place, row in enumerate(batch)],
            numbers=np.array([row.row for row in batch], dtype=np.int64),
            sizes=np.array([len(text.encode()) for text in texts], dtype=np.int64),
            keys=keys,
            groups=_group_keys(batch, keys),
            bands=self._band_keys(words, early),
            early=early,
            late=self._late(batch, words),
            reported=reported,
        )

    def _line(self, row: Row, reason: str | None) -> bytes:
        if reason is None:
            return self._encode({**row.fields, "id": row.id}).encode()
        return self._encode(rejection(row.id, row.source, row.row, row.text) | {"reason": reason}).encode()

    def _filtered(
        self, batch: Sequence[Row], words: Words, bad: Mapping[int, str], reported: Counter[str]
    ) -> dict[int, str]:
        offsets = words.hashes.offsets
        found = {}
        for place, row in enumerate(batch if self._filters else ()):
            if place not in bad:
                lengths = words.lengths[offsets[place] : offsets[place + 1]]
                document = Document(row.text, words.hashes.of(place), lengths)
                if problem := self._problem(document, reported):
                    found[place] = problem
        return found

    def _problem(self, document: Document, reported: Counter[str]) -> str:
        for declared, rule in self._filters:
            problem = rule.problem(document)
            if problem and declared.mode == "enforce":
                return f"{declared.name}.{problem}"
            if problem:
                reported[f"{declared.name}.{problem}"] += 1
        return ""

    def _band_keys(self, words: Words, early: Mapping[int, str]) -> U64:
        count = len(words.hashes.offsets) - 1
        if self._rules.dedupe.minhash is None:
            return np.zeros((count, 0), dtype=np.uint64)
        kept = np.array([place for place in range(count) if place not in early], dtype=np.int64)
        keys = np.zeros((count, self._rules.dedupe.minhash.buckets), dtype=np.uint64)
        keys[kept] = band_keys(words.hashes.take(kept), self._rules.dedupe.minhash)
        return keys

    def _late(self, batch: Sequence[Row], words: Words) -> dict[int, str]:
        shortest = max(1, self._rules.min_characters)
        found = {place: "minCharacters" for place, row in enumerate(batch) if len(row.text.strip()) < shortest}
        rule = self._rules.decontaminate
        if rule is not None and self._bank is not None:
            hits, counts = count_hits(words.hashes, self._bank.hashes, rule.ngram)
            seen = find_items(words.hashes, self._bank.items)[0]
            for place in (*seen.tolist(), *np.flatnonzero(hits > rule.max_hit_ratio * counts).tolist()):
                found[place] = "contaminated"
        return found


def _group_keys(batch: Sequence[Row], keys: U64) -> U64:
    if all(row.group is row.text and not row.is_held for row in batch):
        return keys
    groups = text_keys([row.group for row in batch])
    groups[np.array([row.is_held for row in batch])] = HELD
    return groups


def rejection(name: str, source: str, number: int, text: str) -> dict[str, Any]:
    """What is kept of a rejected row, beside its reason."""
    return {"id": name, "source": source, "row": number, "text": text}


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.text)
        if len(batch) == _BATCH_ROWS or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
