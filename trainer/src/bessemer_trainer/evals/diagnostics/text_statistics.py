"""How alike texts are: statistics of a set of answers to one prompt. Pure; words are runs of letters and digits.

distinct-2: Li et al. 2016. Expectation-adjusted distinct: Liu et al. 2022 (arXiv 2202.13587), without its bias against
longer answers. self-BLEU: Zhu et al. 2018. Compression ratio: Shaib et al. 2024 (arXiv 2403.00553).
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Words in lower case."""
    return _WORD.findall(text.lower())


def grams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every run of n words."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Different runs of n words as a share of all of them; 0 without any."""
    found = [gram for text in texts for gram in grams(words(text), n)]
    return len(set(found)) / len(found) if found else 0.0


def adjusted_distinct(texts: Sequence[str], vocabulary: int) -> float:
    """Different words, divided by how many are expected of as many draws from a vocabulary of this size."""
    found = [word for text in texts for word in words(text)]
    if not found:
        return 0.0
    expected = vocabulary * (1 - ((vocabulary - 1) / vocabulary) ** len(found))
    return len(set(found)) / expected


def self_bleu(texts: Sequence[str], longest: int = 4) -> float:
    """Mean BLEU of each text against the others: 1 when all are alike, 0 when they share nothing."""
    tokens = [words(text) for text in texts]
    if len(tokens) < 2:
        return 0.0
    return sum(_bleu(one, tokens[:i] + tokens[i + 1 :], longest) for i, one in enumerate(tokens)) / len(tokens)


def _bleu(candidate: Sequence[str], references: Sequence[Sequence[str]], longest: int) -> float:
    """Geometric mean of clipped precisions, with the brevity penalty; orders that the text is too short for are out."""
    logs = []
    for n in range(1, min(longest, len(candidate)) + 1):
        own = Counter(grams(candidate, n))
        best: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            best |= Counter(grams(reference, n))
        hits = sum(min(count, best[gram]) for gram, count in own.items())
        if not hits:
            return 0.0
        logs.append(math.log(hits / sum(own.values())))
    if not logs:
        return 0.0
    closest = min((abs(len(r) - len(candidate)), len(r)) for r in references)[1]
    brevity = min(0.0, 1 - closest / len(candidate))
    return math.exp(brevity + sum(logs) / len(logs))


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes of the texts divided by their bytes when compressed: larger when they repeat each other."""
    data = "\n".join(texts).encode()
    return len(data) / len(zlib.compress(data, 9)) if data else 1.0
