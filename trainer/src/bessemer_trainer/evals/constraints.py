"""Verifiable constraints on an output: small documents such as `{"type": "length", "unit": "words", "max": 50}`.

Pure, and known to no model: instruction-following items, design briefs, regression cases and rewards all use them. An
output without any visible character satisfies nothing (an empty answer has no forbidden words either).
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Constraint = Mapping[str, Any]

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]]*(?=\s|$)|[。！？]")
_BULLET = re.compile(r"^\s*[-*•]\s+\S", re.MULTILINE)
_NUMBERED = re.compile(r"^\s*\d+[.)]\s+\S", re.MULTILINE)
_FENCE = re.compile(r"^```(?:json)?\s*\n(.*)\n```$", re.DOTALL)

_FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    "en": frozenset(["the", "and", "of", "to", "is", "in", "that", "it", "with", "for", "are", "this", "was", "not"]),
    "de": frozenset(["der", "die", "das", "und", "ist", "nicht", "ein", "eine", "mit", "auf", "für", "den", "zu"]),
    "fr": frozenset(["le", "la", "les", "et", "est", "une", "des", "dans", "pour", "que", "pas", "qui", "du", "un"]),
    "es": frozenset(["el", "la", "los", "las", "y", "es", "una", "que", "en", "por", "con", "para", "del", "no", "un"]),
    "it": frozenset(["il", "lo", "gli", "e", "è", "una", "che", "di", "per", "con", "del", "della", "non", "un"]),
    "pt": frozenset(["o", "os", "as", "e", "é", "uma", "que", "em", "por", "com", "para", "do", "da", "não", "um"]),
    "nl": frozenset(["de", "het", "een", "en", "is", "van", "niet", "dat", "met", "voor", "op", "te", "zijn", "die"]),
}
"""Frequent words that tell a language from the six others; other languages are told by their script (`charset`)."""

_SCRIPTS = ("latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "cjk", "hiragana", "katakana", "hangul")


def words(text: str) -> list[str]:
    """Runs of letters and digits, with apostrophes and hyphens inside."""
    return _WORD.findall(text)


def satisfied(constraints: Sequence[Constraint], output: str) -> list[bool]:
    """Which constraints the output satisfies. Raises ValueError for a constraint that `check` would refuse."""
    text = output.strip()
    return [bool(text) and _KINDS[_kind(c)][0](c, text) for c in constraints]


def check(constraints: object) -> None:
    """ValueError that says what is wrong with a list of constraints, and what was expected."""
    if not isinstance(constraints, list) or not 1 <= len(constraints) <= 16:
        raise ValueError("field 'constraints': expected a list of 1 to 16 constraints")
    for number, constraint in enumerate(constraints, start=1):
        try:
            _check_one(constraint)
        except ValueError as error:
            raise ValueError(f"field 'constraints': constraint {number}: {error}") from None


def _check_one(constraint: object) -> None:
    if not isinstance(constraint, dict):
        raise ValueError(f"expected an object with a 'type', found {constraint!r:.80}")
    required, optional = _KINDS[_kind(constraint)][1:]
    unknown = sorted(constraint.keys() - {"type"} - required.keys() - optional.keys())
    if unknown:
        raise ValueError(f"{constraint['type']} has no field {unknown[0]!r}")
    for name, is_right in (required | optional).items():
        if name not in constraint:
            if name in required:
                raise ValueError(f"{constraint['type']} needs the field {name!r}")
        elif not is_right(constraint[name]):
            raise ValueError(f"{constraint['type']}: {name!r} is {constraint[name]!r:.80}")
    if {"min", "max"} & optional.keys() and not {"min", "max"} & constraint.keys():
        raise ValueError(f"{constraint['type']} needs 'min' or 'max'")


def _kind(constraint: Constraint) -> str:
    kind = constraint.get("type")
    if kind not in _KINDS:
        raise ValueError(f"type {kind!r}: expected one of {', '.join(_KINDS)}")
    return str(kind)


# --- what values may be -----------------------------------------------------------------------------------------


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 64 and all(map(_is_text, value))


def _is_pattern(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error:
        return False


def _one_of(*allowed: str) -> Callable[[object], bool]:
    return lambda value: value in allowed


# --- one function a type ----------------------------------------------------------------------------------------


def _within(constraint: Constraint, count: int) -> bool:
    return bool(constraint.get("min", 0) <= count <= constraint.get("max", count))


def _length(constraint: Constraint, text: str) -> bool:
    counts: Mapping[str, Callable[[], int]] = {
        "characters": lambda: len(text),
        "words": lambda: len(words(text)),
        "sentences": lambda: max(1, len(_SENTENCE_END.findall(text))),
        "lines": lambda: sum(bool(line.strip()) for line in text.splitlines()),
        "paragraphs": lambda: len(re.split(r"\n\s*\n", text)),
    }
    return _within(constraint, counts[constraint["unit"]]())


def occurrences(phrase: str, text: str) -> int:
    """How often a word or phrase stands in the text as whole words, case aside."""
    return len(re.findall(rf"(?<!\w){re.escape(phrase.strip().casefold())}(?!\w)", text.casefold()))


def _keywords(constraint: Constraint, text: str) -> bool:
    found = sum(occurrences(word, text) > 0 for word in constraint["words"])
    return bool(found >= constraint.get("atLeast", len(constraint["words"])))


def _keyword_count(constraint: Constraint, text: str) -> bool:
    return _within(constraint, occurrences(constraint["word"], text))


def _forbidden(constraint: Constraint, text: str) -> bool:
    return not any(occurrences(word, text) for word in constraint["words"])


def _json(constraint: Constraint, text: str) -> bool:
    """The whole output is a JSON object or list (a code fence around it is allowed), with these keys."""
    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    keys = constraint.get("keys", [])
    return isinstance(value, dict) and all(key in value for key in keys) if keys else isinstance(value, dict | list)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _case(constraint: Constraint, text: str) -> bool:
    letters = [c for c in text if c.isalpha() and c.upper() != c.lower()]
    if constraint["case"] == "title":
        firsts = [word[0] for word in words(text) if word[0].isalpha()]
        return bool(firsts) and all(first == first.upper() for first in firsts)
    return bool(letters) and all(c == (c.upper() if constraint["case"] == "upper" else c.lower()) for c in letters)


def _bullets(constraint: Constraint, text: str) -> bool:
    pattern = _NUMBERED if constraint.get("style") == "numbers" else _BULLET
    return _within(constraint, len(pattern.findall(text)))


def _starts(constraint: Constraint, text: str) -> bool:
    return text.casefold().startswith(constraint["text"].strip().casefold())


def _ends(constraint: Constraint, text: str) -> bool:
    return text.casefold().endswith(constraint["text"].strip().casefold())


def _charset(constraint: Constraint, text: str) -> bool:
    """Every letter is of the script; `ascii`: every character is."""
    if constraint["script"] == "ascii":
        return text.isascii()
    letters = [c for c in text if c.isalpha()]
    wanted = constraint["script"].upper()
    return bool(letters) and all(unicodedata.name(c, "").startswith(wanted) for c in letters)


def _language(constraint: Constraint, text: str) -> bool:
    """Function words of this language are more frequent than those of any other, and one word in ten at least."""
    found = [word.casefold() for word in words(text)]
    counts = {name: sum(word in known for word in found) for name, known in _FUNCTION_WORDS.items()}
    own = counts.pop(constraint["language"])
    return own > max(counts.values()) and 10 * own >= len(found)


def _one_option(constraint: Constraint, text: str) -> bool:
    return text.strip(" \t\n.\"'").casefold() in [option.strip().casefold() for option in constraint["options"]]


def _matches(constraint: Constraint, text: str) -> bool:
    return re.search(constraint["pattern"], text) is not None


_Rules = dict[str, Callable[[object], bool]]
_RANGE: _Rules = {"min": _is_count, "max": _is_count}

_KINDS: Mapping[str, tuple[Callable[[Constraint, str], bool], _Rules, _Rules]] = {
    "length": (_length, {"unit": _one_of("characters", "words", "sentences", "lines", "paragraphs")}, _RANGE),
    "keywords": (_keywords, {"words": _is_texts}, {"atLeast": _is_count}),
    "keywordCount": (_keyword_count, {"word": _is_text}, _RANGE),
    "forbidden": (_forbidden, {"words": _is_texts}, {}),
    "json": (_json, {}, {"keys": _is_texts}),
    "case": (_case, {"case": _one_of("upper", "lower", "title")}, {}),
    "bullets": (_bullets, {}, {"style": _one_of("bullets", "numbers"), **_RANGE}),
    "startsWith": (_starts, {"text": _is_text}, {}),
    "endsWith": (_ends, {"text": _is_text}, {}),
    "charset": (_charset, {"script": _one_of("ascii", *_SCRIPTS)}, {}),
    "language": (_language, {"language": _one_of(*_FUNCTION_WORDS)}, {}),
    "oneOf": (_one_option, {"options": _is_texts}, {}),
    "matches": (_matches, {"pattern": _is_pattern}, {}),
}
"""By type: how it is decided, fields that it must have, fields that it may have."""

TYPES = tuple(_KINDS)
