"""One document as the quality filters look at it: words, tokens, lines, worked out when first asked for. Pure.

Words are runs of letters, digits and underscores; every other visible character counts as a token of its own where a
rule divides by tokens, as word tokenizers of the field do.
"""

import re
from collections.abc import Sequence
from functools import cached_property

from bessemer_trainer.ngrams import I64, U64

_WORD = re.compile(r"\w+")
_ASCII_WORD = bytes(c if chr(c).isalnum() or chr(c) == "_" else 32 for c in range(128)) + bytes(128)
_ASCII_TEXT = bytes(c for c in range(128) if chr(c).isalnum() or chr(c) == "_" or chr(c).isspace())
_SYMBOL = re.compile(r"[^\w\s]")
_TOKEN = re.compile(
    r"https?://\S+|\b(?:[^\W\d_]\.)+|\b(?:Inc|St|Dr|Jr|Mr|Mrs|Ms|vs|Co|Corp)\."
    r"|\w+(?:(?:(?<=\d)[.,:](?=\d)|[./(]|(?<=[^\W\d_])-(?=\d))\w+)*"
    r"|['’]\w+|-{2,}|\.{2,}|'{2,}|[^\w\s]"
)


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

    def has_alphabetic_share(self, share: float) -> bool:
        """Whether at least `share` of the tokens hold a letter.

        What splits a word or number in `tokens` (U.S., 3.14, and/or) makes the share smaller, so only a document that
        seems to miss it is split as the word tokenizers do that the published filters were run with.
        """
        numbers = sum(map(str.isdigit, self.words))
        if len(self.words) - numbers >= share * self.tokens:
            return True
        tokens = _TOKEN.findall(self.text)
        other = [token for token in tokens if not token.isalpha()]
        mixed = sum(len(token) > 1 and any(map(str.isalpha, token)) for token in other)
        return len(tokens) - len(other) + mixed >= share * len(tokens)

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank."""
        return [line for line in self.text.split("\n") if line and not line.isspace()]


def first_missed(checks: Sequence[tuple[bool, str]]) -> str:
    """Name of the first check that is missed; empty when none is."""
    return next((name for is_missed, name in checks if is_missed), "")


def count_repeats(parts: Sequence[str]) -> tuple[int, int]:
    """(parts that equal an earlier one, their characters)."""
    if len(set(parts)) == len(parts):
        return 0, 0
    seen: set[str] = set()
    repeats = [part for part in parts if part in seen or seen.add(part)]  # type: ignore[func-returns-value]
    return len(repeats), sum(map(len, repeats))
