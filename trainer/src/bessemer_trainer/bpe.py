"""Byte-pair encoding that goes on where a tokenizer ended: new merges after all old ones. Pure; knows no model.

Old merges keep their order and come first, so a text in which no new merge applies has the tokens that it had.
"""

import heapq
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer, models

from bessemer_trainer.errors import PermanentError

Pair = tuple[str, str]
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""A byte that SentencePiece's tokenizers fall back to: no text, so nothing to merge."""
_WORD = re.compile("▁*[^▁]+|▁+")


@dataclass(frozen=True, slots=True)
class Extension:
    """New merges in order, and for each new token the old tokens that it stands for."""

    merges: tuple[Pair, ...]
    parts: Mapping[str, tuple[str, ...]]


def count_words(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each piece occurs that the tokenizer splits text into before it merges."""
    counts: Counter[str] = Counter()
    for text in texts:
        plain = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        if tokenizer.pre_tokenizer is None:
            counts.update(_WORD.findall(plain))
        else:
            counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(plain))
    return counts


def extend(tokenizer: Tokenizer, words: Mapping[str, int], most: int, min_frequency: int) -> Extension:
    """Up to `most` new tokens for the pairs that occur most often in `words`; ties go by the alphabet.

    Raises PermanentError(TokenizerInvalid) for a tokenizer that is no byte-pair encoding.
    """
    if not isinstance(tokenizer.model, models.BPE):
        kind = type(tokenizer.model).__name__
        raise PermanentError("TokenizerInvalid", f"a tokenizer of kind {kind} can not be extended; expected BPE")
    corpus = _Corpus(tokenizer, words)
    merges: list[Pair] = []
    parts: dict[str, tuple[str, ...]] = {}
    while len(merges) < most and (pair := corpus.most_frequent(min_frequency)) is not None:
        merges.append(pair)
        parts["".join(pair)] = tuple(old for token in pair for old in parts.get(token, (token,)))
        corpus.merge(pair)
    return Extension(tuple(merges), parts)


class _Corpus:
    """Words as tokens, with an index of which pair stands in which word."""

    def __init__(self, tokenizer: Tokenizer, words: Mapping[str, int]) -> None:
        ordered = sorted(words)
        self._words = [[token.value for token in tokenizer.model.tokenize(word)] for word in ordered]
        self._weights = [words[word] for word in ordered]
        self._known = set(tokenizer.get_vocab(with_added_tokens=True))
        self._counts: Counter[Pair] = Counter()
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)
        for place in range(len(self._words)):
            self._count(place, 1)
        self._queue = [(-count, pair) for pair, count in self._counts.items()]
        heapq.heapify(self._queue)

    def _count(self, place: int, sign: int) -> set[Pair]:
        word = self._words[place]
        pairs = list(pairwise(word))
        for pair in pairs:
            self._counts[pair] += sign * self._weights[place]
            self._places[pair].add(place)
        return set(pairs)

    def most_frequent(self, least: int) -> Pair | None:
        """The pair to merge next; None when none is left that occurs so often."""
        while self._queue:
            count, pair = heapq.heappop(self._queue)
            now = self._counts[pair]
            if now != -count:
                if now > 0:
                    heapq.heappush(self._queue, (-now, pair))
                continue
            if now < least:
                return None
            if "".join(pair) not in self._known and not any(_BYTE.fullmatch(token) for token in pair):
                return pair
        return None

    def merge(self, pair: Pair) -> None:
        """Make one token of the pair wherever it stands."""
        token = "".join(pair)
        self._known.add(token)
        touched: set[Pair] = set()
        for place in sorted(self._places.pop(pair)):
            touched |= self._count(place, -1)
            self._words[place] = _joined(self._words[place], pair, token)
            touched |= self._count(place, 1)
        for other in touched - {pair}:
            if self._counts[other] > 0:
                heapq.heappush(self._queue, (-self._counts[other], other))


def _joined(word: list[str], pair: Pair, token: str) -> list[str]:
    joined: list[str] = []
    place = 0
    while place < len(word):
        found = tuple(word[place : place + 2]) == pair
        joined.append(token if found else word[place])
        place += 2 if found else 1
    return joined


def extended_file(source: str, extension: Extension, first: int) -> str:
    """tokenizer.json with the new tokens, numbered from `first`.

    Tokens that were added beside the vocabulary are written into it too: the library would number them anew.
    """
    document: dict[str, Any] = json.loads(source)
    model = document["model"]
    added = {token["content"]: token["id"] for token in document.get("added_tokens", [])}
    new = {token: number for number, token in enumerate(extension.parts, start=first)}
    model["vocab"] = dict(sorted({**model["vocab"], **added, **new}.items(), key=lambda item: item[1]))
    as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
    model["merges"] += [" ".join(pair) if as_text else list(pair) for pair in extension.merges]
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"
