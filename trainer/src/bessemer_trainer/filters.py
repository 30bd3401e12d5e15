"""Quality filters of documents: published rules with their published thresholds, each a field. Pure.

A rule looks at one document and names what is wrong with it, or nothing. It never changes the text: where the
published filter drops lines (C4), the decision is made as if they were dropped.
"""

import re
from dataclasses import dataclass, fields
from itertools import islice
from typing import Protocol

import numpy as np
from pydantic.alias_generators import to_camel

from bessemer_api.v1alpha1.data import Filter
from bessemer_trainer.document import Document, count_repeats, first_missed
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.repetition import GopherRepetition

_SENTENCE_END = re.compile(r"(?:[.!?…।؟]+[\"'”’)\]]*(?=\s|$)|[。！？]+[”’」』]*)\s*")
_EQUAL_RUN = re.compile(r"([^\s])\1{4,}")
_TERMINAL = tuple(".!?…。！？।॥؟۔։።၊။")
_STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


class Rule(Protocol):
    """One filter with its thresholds."""

    def problem(self, document: Document) -> str:
        """Name of the threshold that the document misses; empty when it is fine."""
        ...


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
        return first_missed(self._word_checks(document, count)) or first_missed(self._line_checks(document))

    def _word_checks(self, document: Document, count: int) -> list[tuple[bool, str]]:
        text, tokens = document.text, document.tokens
        mean = sum(map(len, document.words)) / count
        ellipses = text.count("...") + text.count("…")
        return [
            (count > self.max_words, "maxWords"),
            (mean < self.min_mean_word_length, "minMeanWordLength"),
            (mean > self.max_mean_word_length, "maxMeanWordLength"),
            (max(text.count("#"), ellipses) > self.max_symbol_ratio * tokens, "maxSymbolRatio"),
            (not document.has_alphabetic_share(self.min_alphabetic_words), "minAlphabeticWords"),
            (len(_STOP_WORDS.intersection(document.words)) < self.min_stop_words, "minStopWords"),
        ]

    def _line_checks(self, document: Document) -> list[tuple[bool, str]]:
        lines = document.text.splitlines()
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
        can_reject = "{" in document.text or "lorem ipsum" in document.text.lower()
        for line in map(str.strip, document.lines):
            if sentences >= self.min_sentences and not can_reject:
                break
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
            sentences += count_sentences(line, int(self.min_sentences) + 1)
        return "minSentences" if sentences < self.min_sentences else ""

    def _is_short_or_broken(self, line: str, words: list[str]) -> bool:
        is_unfinished = not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")
        return (
            len(words) < self.min_words_per_line
            or (len(line) > self.max_word_length and max(map(len, words)) > self.max_word_length)
            or (self.require_terminal_punctuation > 0 and is_unfinished)
        )


def count_sentences(line: str, enough: int = 1_000_000) -> int:
    """Sentences of a line that is not blank, counted up to `enough`.

    Ends of sentences, and one more when text follows the last.
    """
    count, end = 0, 0
    for match in islice(_SENTENCE_END.finditer(line), enough):
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
        return first_missed(
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
        in_runs = _characters_in_runs(text)
        hyphenated = sum(line.rstrip().endswith("-") and line.rstrip()[-2:-1].isalpha() for line in lines)
        single = sum(map(str.isalpha, [word for word in words if len(word) == 1]))
        return first_missed(
            [
                (text.count("�") > self.max_replacement_characters * len(text), "maxReplacementCharacters"),
                (in_runs > self.max_equal_runs * len(text), "maxEqualRuns"),
                (hyphenated > self.max_hyphenated_lines * len(lines), "maxHyphenatedLines"),
                (single > self.max_single_letter_words * len(words), "maxSingleLetterWords"),
            ]
        )


def _characters_in_runs(text: str) -> int:
    """Characters in runs of five or more equal visible ones; a cheap look first, since most texts have none."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    equal = codes[1:] == codes[:-1]
    if not (equal[:-3] & equal[1:-2] & equal[2:-1] & equal[3:]).any():
        return 0
    return sum(match.end() - match.start() for match in _EQUAL_RUN.finditer(text))


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
