"""Quality filters of documents: published rules with their published thresholds, each a field. Pure.

A rule looks at one document and names what is wrong with it, or nothing. It never changes the text: where the
published filter drops lines (C4), the decision is made as if they were dropped.
Words are runs of letters, digits and underscores; every other visible character counts as a token of its own where a
rule divides by tokens, as word tokenizers of the field do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Protocol

import numpy as np
from pydantic.alias_generators import to_camel

from bessemer_api.v1alpha1.data import Filter
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.ngrams import I64, U64

_WORD = re.compile(r"\w+")
_ASCII_WORD = bytes(c if chr(c).isalnum() or chr(c) == "_" else 32 for c in range(128)) + bytes(128)
_ASCII_TEXT = bytes(c for c in range(128) if chr(c).isalnum() or chr(c) == "_" or chr(c).isspace())
_SYMBOL = re.compile(r"[^\w\s]")
_SENTENCE_END = re.compile(r"(?:[.!?…।؟]+[\"'”’)\]]*(?=\s|$)|[。！？]+[”’」』]*)\s*")
_EQUAL_RUN = re.compile(r"([^\s])\1{4,}")
_HYPHENATED = re.compile(r"[^\W\d]-$")
_TERMINAL = tuple(".!?…。！？।॥؟۔։።၊။")
_STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


class Document:
    """What the rules look at, worked out when first asked for."""

    def __init__(self, text: str, hashes: U64, lengths: I64) -> None:
        """`hashes` and `lengths` (bytes) of the words, from ngrams.hash_words."""
        self.text = text
        self.hashes = hashes
        self.lengths = lengths

    @cached_property
    def words(self) -> list[str]:
        if self.text.isascii():
            return self.text.encode().translate(_ASCII_WORD).decode().split()
        return _WORD.findall(self.text)

    @cached_property
    def tokens(self) -> int:
        """Words and symbols."""
        if self.text.isascii():
            return len(self.words) + len(self.text.encode().translate(None, _ASCII_TEXT))
        return len(self.words) + len(_SYMBOL.findall(self.text))

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank."""
        return [line for line in self.text.split("\n") if line and not line.isspace()]


class Rule(Protocol):
    """One filter with its thresholds."""

    def problem(self, document: Document) -> str:
        """Name of the threshold that the document misses; empty when it is fine."""
        ...


def _first(checks: Sequence[tuple[bool, str]]) -> str:
    return next((name for is_missed, name in checks if is_missed), "")


@dataclass(frozen=True, slots=True)
class GopherQuality:
    """Rae et al. 2021, Scaling Language Models, appendix A.1.1: quality filtering."""

    min_words: float = 50
    max_words: float = 100_000
    min_mean_word_length: float = 3
    max_mean_word_length: float = 10
    max_symbol_ratio: float = 0.1
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alphabetic_words: float = 0.8
    min_stop_words: float = 2

    def problem(self, document: Document) -> str:
        count = len(document.words)
        if count < self.min_words or not count:
            return "minWords"
        return _first(self._word_checks(document, count)) or _first(self._line_checks(document))

    def _word_checks(self, document: Document, count: int) -> list[tuple[bool, str]]:
        text, tokens = document.text, document.tokens
        mean = sum(map(len, document.words)) / count
        ellipses = text.count("...") + text.count("…")
        alphabetic = count - sum(map(str.isdigit, document.words))
        return [
            (count > self.max_words, "maxWords"),
            (mean < self.min_mean_word_length, "minMeanWordLength"),
            (mean > self.max_mean_word_length, "maxMeanWordLength"),
            (max(text.count("#"), ellipses) > self.max_symbol_ratio * tokens, "maxSymbolRatio"),
            (alphabetic < self.min_alphabetic_words * tokens, "minAlphabeticWords"),
            (len(_STOP_WORDS.intersection(document.words)) < self.min_stop_words, "minStopWords"),
        ]

    def _line_checks(self, document: Document) -> list[tuple[bool, str]]:
        lines = document.lines
        bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
        ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines)
        return [
            (bullets > self.max_bullet_lines * len(lines), "maxBulletLines"),
            (ellipses > self.max_ellipsis_lines * len(lines), "maxEllipsisLines"),
        ]


@dataclass(frozen=True, slots=True)
class C4:
    """Raffel et al. 2020, T5, section 2.2; the rule on terminal punctuation is off, as in FineWeb.

    Lines that C4 drops do not count. Switches: 1 is on, 0 is off.
    """

    min_words_per_line: float = 3
    min_sentences: float = 5
    max_word_length: float = 1000
    require_terminal_punctuation: float = 0
    reject_lorem_ipsum: float = 1
    reject_curly_bracket: float = 1
    drop_javascript_lines: float = 1
    drop_policy_lines: float = 1

    def problem(self, document: Document) -> str:
        sentences = 0
        for line in map(str.strip, document.lines):
            words = line.split()
            if self._is_short_or_broken(line, words):
                continue
            lower = line.lower()
            if self.reject_lorem_ipsum and "lorem ipsum" in lower:
                return "rejectLoremIpsum"
            if self.drop_javascript_lines and "javascript" in lower:
                continue
            if self.reject_curly_bracket and "{" in line:
                return "rejectCurlyBracket"
            if self.drop_policy_lines and any(phrase in lower for phrase in _POLICY):
                continue
            sentences += count_sentences(line)
        return "minSentences" if sentences < self.min_sentences else ""

    def _is_short_or_broken(self, line: str, words: list[str]) -> bool:
        is_unfinished = not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")
        return (
            len(words) < self.min_words_per_line
            or (len(line) > self.max_word_length and max(map(len, words)) > self.max_word_length)
            or (self.require_terminal_punctuation > 0 and is_unfinished)
        )


def count_sentences(line: str) -> int:
    """Sentences of a line that is not blank: ends of sentences, and one more when text follows the last."""
    count, end = 0, 0
    for match in _SENTENCE_END.finditer(line):
        count, end = count + 1, match.end()
    return count + (end < len(line))


@dataclass(frozen=True, slots=True)
class FineWeb:
    """Penedo et al. 2024, The FineWeb Datasets, section 3.6: custom filters."""

    min_terminal_punctuation_lines: float = 0.12
    max_short_lines: float = 0.67
    short_line_length: float = 30
    max_duplicate_line_characters: float = 0.01
    max_newline_ratio: float = 0.3

    def problem(self, document: Document) -> str:
        lines = document.lines
        if not lines:
            return "minTerminalPunctuationLines"
        ended = sum(line.endswith(_TERMINAL) for line in lines)
        short = sum(len(line) <= self.short_line_length for line in lines)
        _, duplicated = count_repeats(lines)
        newlines = document.text.count("\n")
        return _first(
            [
                (ended < self.min_terminal_punctuation_lines * len(lines), "minTerminalPunctuationLines"),
                (short > self.max_short_lines * len(lines), "maxShortLines"),
                (
                    duplicated > self.max_duplicate_line_characters * (len(document.text) - newlines),
                    "maxDuplicateLineCharacters",
                ),
                (newlines > self.max_newline_ratio * document.tokens, "maxNewlineRatio"),
            ]
        )


@dataclass(frozen=True, slots=True)
class OcrDamage:
    """Damage of scanned papers. No published thresholds exist: these are ours, so look at `mode: report` first."""

    max_replacement_characters: float = 0.001
    """Share of U+FFFD: bytes that some earlier tool could not decode."""
    max_equal_runs: float = 0.02
    """Share of characters in runs of five or more equal ones."""
    max_hyphenated_lines: float = 0.3
    """Share of lines that end inside a word."""
    max_single_letter_words: float = 0.25
    """Share of words of one letter: letters that were read apart."""

    def problem(self, document: Document) -> str:
        text, lines, words = document.text, document.lines, document.words
        in_runs = sum(match.end() - match.start() for match in _EQUAL_RUN.finditer(text))
        hyphenated = sum(_HYPHENATED.search(line.rstrip()) is not None for line in lines)
        single = sum(len(word) == 1 and word.isalpha() for word in words)
        return _first(
            [
                (text.count("�") > self.max_replacement_characters * len(text), "maxReplacementCharacters"),
                (in_runs > self.max_equal_runs * len(text), "maxEqualRuns"),
                (hyphenated > self.max_hyphenated_lines * len(lines), "maxHyphenatedLines"),
                (single > self.max_single_letter_words * len(words), "maxSingleLetterWords"),
            ]
        )


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
        return _first(
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


def count_repeats(parts: Sequence[str]) -> tuple[int, int]:
    """(parts that equal an earlier one, their characters)."""
    if len(set(parts)) == len(parts):
        return 0, 0
    seen: set[str] = set()
    repeats = [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]
    return len(repeats), sum(map(len, repeats))


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
    ordered = np.sort(values)
    borders = np.flatnonzero(ordered[1:] != ordered[:-1])
    return int(np.diff(borders, prepend=-1, append=len(ordered) - 1).max()) if len(ordered) else 0


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


_RULES: dict[str, type[GopherQuality | GopherRepetition | C4 | FineWeb | OcrDamage]] = {
    "gopherQuality": GopherQuality,
    "gopherRepetition": GopherRepetition,
    "c4": C4,
    "fineweb": FineWeb,
    "ocrDamage": OcrDamage,
}


def build_rule(declared: Filter) -> Rule:
    """The rule with its thresholds. Raises PermanentError(SpecInvalid) for a threshold it does not have."""
    kind = _RULES[declared.name]
    known = {to_camel(field.name): field.name for field in fields(kind)}
    for name in declared.thresholds:
        if name not in known:
            raise PermanentError(
                "SpecInvalid", f"filter {declared.name}: no threshold {name!r}; expected one of {', '.join(known)}"
            )
    return kind(**{known[name]: value for name, value in declared.thresholds.items()})
