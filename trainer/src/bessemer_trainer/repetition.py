"""The quality filter `gopherRepetition`. Pure."""

import re
from dataclasses import dataclass

import numpy as np

from bessemer_trainer.document import Document, count_repeats, first_missed
from bessemer_trainer.ngrams import I64, U64


@dataclass(frozen=True, slots=True)
class GopherRepetition:
    """Rae et al. 2021, Scaling Language Models, table A1: repetition removal. Shares of lines or of characters.

    Repeats of n words are counted left to right without overlap. All of them lie inside repeated runs of five words,
    so most documents are cleared by that bound and never counted out.
    """

    duplicate_lines: float = 0.30
    duplicate_paragraphs: float = 0.30
    duplicate_line_characters: float = 0.20
    duplicate_paragraph_characters: float = 0.20
    top2_gram: float = 0.20
    top3_gram: float = 0.18
    top4_gram: float = 0.16
    duplicate5_grams: float = 0.15
    duplicate6_grams: float = 0.14
    duplicate7_grams: float = 0.13
    duplicate8_grams: float = 0.12
    duplicate9_grams: float = 0.11
    duplicate10_grams: float = 0.10

    def problem(self, document: Document) -> str:
        return self._line_problem(document) or self._top_problem(document) or self._repeat_problem(document)

    def _line_problem(self, document: Document) -> str:
        size = len(document.text)
        paragraphs = [part for part in re.split(r"\n{2,}", document.text.strip()) if part]
        lines = document.lines
        twice_parts, part_characters = count_repeats(paragraphs)
        twice_lines, line_characters = count_repeats(lines)
        return first_missed(
            [
                (twice_parts > self.duplicate_paragraphs * len(paragraphs), "duplicateParagraphs"),
                (part_characters > self.duplicate_paragraph_characters * size, "duplicateParagraphCharacters"),
                (twice_lines > self.duplicate_lines * len(lines), "duplicateLines"),
                (line_characters > self.duplicate_line_characters * size, "duplicateLineCharacters"),
            ]
        )

    def _top_problem(self, document: Document) -> str:
        size = _bytes_of(document.text)
        most = _largest_count(_windows(document.hashes, 2))
        for n, limit in ((2, self.top2_gram), (3, self.top3_gram), (4, self.top4_gram)):
            lengths = _window_lengths(document.lengths, n) + n - 1
            could_miss = len(lengths) > 0 and most * int(lengths.max()) > limit * size
            if could_miss and _top_length(_windows(document.hashes, n), lengths) > limit * size:
                return f"top{n}Gram"
        return ""

    def _repeat_problem(self, document: Document) -> str:
        size = _bytes_of(document.text)
        bound = _covered_by_repeats(document.hashes, document.lengths, 5)
        for n in range(5, 11):
            limit = getattr(self, f"duplicate{n}_grams") * size
            if bound > limit and _repeated_length(document.hashes, document.lengths, n) > limit:
                return f"duplicate{n}Grams"
        return ""


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _windows(hashes: U64, n: int) -> U64:
    """A hash of each run of n words."""
    total = max(0, len(hashes) - n + 1)
    mixed = np.zeros(total, dtype=np.uint64)
    for shift in range(n):
        mixed = mixed * np.uint64(0xD6E8FEB86659FD93) + hashes[shift : shift + total]
    return mixed


def _window_lengths(lengths: I64, n: int) -> I64:
    sums = np.concatenate([[0], np.cumsum(lengths)])
    return sums[n:] - sums[:-n] if len(sums) > n else sums[:0]


def _largest_count(values: U64) -> int:
    if not len(values):
        return 0
    ordered = np.sort(values)
    ends = np.concatenate([[-1], np.flatnonzero(ordered[1:] != ordered[:-1]), [len(ordered) - 1]])
    return int((ends[1:] - ends[:-1]).max())


def _top_length(grams: U64, lengths: I64) -> int:
    """Bytes of the most frequent n-gram (the first of equals) times its count."""
    _, first, counts = np.unique(grams, return_index=True, return_counts=True)
    top = first[counts == counts.max()].min()
    return int(lengths[top] * counts.max())


def _covered_by_repeats(hashes: U64, lengths: I64, n: int) -> int:
    """Bytes of all words inside any n-gram that occurred earlier."""
    grams = _windows(hashes, n)
    ordered = np.sort(grams)
    if not (ordered[1:] == ordered[:-1]).any():
        return 0
    _, first = np.unique(grams, return_index=True)
    is_repeat = np.ones(len(grams), dtype=np.bool_)
    is_repeat[first] = False
    covered = np.convolve(is_repeat, np.ones(n, dtype=np.int64)) > 0
    return int(lengths[covered].sum())


def _repeated_length(hashes: U64, lengths: I64, n: int) -> int:
    """Bytes of n-grams that occurred earlier, read left to right; a repeat is skipped whole."""
    grams = _windows(hashes, n).tolist()
    sizes = _window_lengths(lengths, n).tolist()
    seen: set[int] = set()
    total = place = 0
    while place < len(grams):
        if grams[place] in seen:
            total += sizes[place]
            place += n
        else:
            seen.add(grams[place])
            place += 1
    return total
