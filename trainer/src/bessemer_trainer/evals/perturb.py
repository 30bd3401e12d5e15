"""Damage to prompts, as the operator's world does it: speech recognition, cut-off input, tools that do not answer.

The same prompt of the same item is damaged in the same way every time, for every checkpoint and on every machine. Pure.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bessemer_api.v1alpha1.tasks import Perturbation

TIMEOUT = "[tool error: no result after 30 s]"
"""What stands where the result of a tool would have stood."""

_SOUNDS = {
    "to": "too", "their": "there", "there": "their", "two": "to", "four": "for", "for": "four", "are": "our",
    "right": "write", "new": "knew", "know": "no", "no": "know", "one": "won", "by": "buy", "see": "sea",
    "or": "oar", "in": "inn", "be": "bee", "which": "witch", "than": "then", "its": "it's", "your": "you're",
}  # fmt: skip
_FILLERS = ("uh", "um", "you know", "like")
_VOWELS = "aeiou"


def perturbed(text: str, kinds: Sequence[Perturbation], key: str) -> str:
    """The text with each damage in turn; `key` (item and place) and the text alone decide what happens to it."""
    for kind in kinds:
        words = np.frombuffer(hashlib.sha256(f"{kind}/{key}/{text}".encode()).digest(), dtype=np.uint32)
        text = _KINDS[kind](text, np.random.Generator(np.random.PCG64(words)))
    return text


def _asr_noise(text: str, random: np.random.Generator) -> str:
    """As a recogniser writes it: lower case, no punctuation, and of ten words about one wrong, lost or filled in."""
    heard: list[str] = []
    for word in text.lower().split():
        plain = "".join(c for c in word if c.isalnum() or c in "'-") or word
        chance = random.random()
        if chance < 0.03:
            continue
        if chance < 0.06:
            heard.append(str(random.choice(_FILLERS)))
        heard.append(_misheard(plain, random) if chance >= 0.9 else plain)
    return " ".join(heard) or text.lower()


def _misheard(word: str, random: np.random.Generator) -> str:
    """Another word of the same sound, or another vowel in it."""
    if word in _SOUNDS:
        return _SOUNDS[word]
    places = [i for i, c in enumerate(word) if c in _VOWELS]
    if not places:
        return word
    place = places[int(random.integers(len(places)))]
    other = [vowel for vowel in _VOWELS if vowel != word[place]][int(random.integers(4))]
    return word[:place] + other + word[place + 1 :]


def _truncate(text: str, random: np.random.Generator) -> str:
    """Cut off: the last tenth to third of its words is lost, at least one, but never the first word."""
    words = text.split(" ")
    lost = max(1, round(len(words) * float(random.uniform(0.1, 0.34))))
    return " ".join(words[: max(1, len(words) - lost)])


def _tool_timeout(text: str, random: np.random.Generator) -> str:
    """The tool was asked and did not answer in time: its error stands before what is asked."""
    return f"{TIMEOUT}\n{text}"


_KINDS: Mapping[Perturbation, Callable[[str, np.random.Generator], str]] = {
    "asrNoise": _asr_noise,
    "truncate": _truncate,
    "toolTimeout": _tool_timeout,
}
