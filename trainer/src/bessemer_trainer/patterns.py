"""Tasks that a text answers itself, found by regular patterns of English; and worse answers. Pure; no model takes part.

After Cheng, Huang, Wei 2023, Adapting Large Language Models via Reading Comprehension (AdaptLLM), section 3:
definitions, causes, entailment and contrast by their connectors, words to text, completion. Cloze questions are ours.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?=\s|$)|(?=\n|$))|[^\n]+?[.!?](?=\s+[A-Z]|$)")
_DEFINED = re.compile(
    r"^(?P<what>[A-Z][\w' -]{2,60}?) (?:is|are) (?:defined as |known as )?"
    r"(?P<is>(?:an?|the|any|one of) [^;]{8,300}?)[.]$"
)
_REFERS = re.compile(r"^(?P<what>[A-Z][\w' -]{2,60}?) (?:refers to|means|denotes) (?P<is>[^;]{8,300}?)[.]$")
_CAUSE = re.compile(r"^(?P<what>[A-Z][^;]{10,200}?),? because (?P<why>(?!of\b)[^;]{8,200}?)[.]$")
_EFFECT = re.compile(
    r"^(?P<why>[A-Z][^;]{8,200}?) (?P<verb>leads to|results in|causes|gives rise to) (?P<what>[^;]{4,200}?)[.]$"
)
_FOLLOWS = re.compile(r"^(?:Therefore|Thus|Hence|Consequently|As a result|Accordingly),? (?P<rest>.{12,300})$")
_CONTRAST = re.compile(r"^(?:However|In contrast|On the contrary|Nevertheless|Yet),? (?P<rest>.{12,300})$")
_PRONOUNS = frozenset({"It", "This", "That", "These", "Those", "There", "He", "She", "They", "We", "I", "You", "What"})
_CONNECTORS = frozenset({"Therefore", "Thus", "Hence", "Consequently", "As", "However", "Nevertheless", "Yet", "But"})
_TERM = re.compile(r"\b(?:\d[\d.,]*\d|\d|[A-Za-z][A-Za-z-]{5,})\b")
_NUMBER = re.compile(r"\d+")
_OPPOSITES = {
    "increase": "decrease", "increases": "decreases", "increased": "decreased", "higher": "lower", "more": "less",
    "before": "after", "above": "below", "always": "never", "first": "last", "large": "small", "left": "right",
    "positive": "negative", "upper": "lower", "is": "is not", "are": "are not", "can": "can not", "with": "without",
}  # fmt: skip
_SWAPPED = _OPPOSITES | {two: one for one, two in _OPPOSITES.items() if " " not in two}
_GAP = "____"
_OPENINGS = ("Answer the questions about the text.", "Questions on the text:", "Read the text and answer.")


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its answer. `is_open`: it can be asked without the text."""

    prompt: str
    answer: str
    is_open: bool = True


def questions(text: str, dice: random.Random, most: int) -> list[Question]:
    """At most so many questions about a text; those that a pattern found first, then cloze and completion."""
    sentences = [match[0].strip() for match in _SENTENCE.finditer(text)]
    sentences = [sentence for sentence in sentences if len(sentence.split()) >= 4]
    found = [question for sentence in sentences for question in _of_sentence(sentence)]
    found += [question for pair in pairwise(sentences) for question in _of_pair(*pair)]
    dice.shuffle(found)
    if len(found) < most:
        found += _fill_ups(sentences, dice, most - len(found))
    unique = {question.prompt: question for question in reversed(found)}
    return [question for question in found if unique[question.prompt] is question][:most]


def _of_sentence(sentence: str) -> Iterator[Question]:
    for pattern in (_DEFINED, _REFERS):
        match = pattern.match(sentence)
        if match and match["what"].split()[0] not in _PRONOUNS:
            yield Question(f"What is {_lowered(match['what'])}?", _sentence(match["is"]))
    match = _CAUSE.match(sentence)
    if match and match["what"].split()[0] not in _PRONOUNS:
        yield Question(f"What is the reason that {_lowered(match['what'])}?", _sentence(match["why"]))
    match = _EFFECT.match(sentence)
    if match and match["why"].split()[0] not in _PRONOUNS:
        yield Question(f"What {match['verb']} {match['what']}?", _sentence(match["why"]))


def _of_pair(first: str, second: str) -> Iterator[Question]:
    """Whether one sentence follows from the one before, by the word that joins them."""
    for pattern, answer in ((_FOLLOWS, "Yes"), (_CONTRAST, "No")):
        if match := pattern.match(second):
            asked = f'"{first}" Does it follow that "{_sentence(match["rest"])}"? Answer with yes or no.'
            yield Question(asked, answer)


def _fill_ups(sentences: Sequence[str], dice: random.Random, most: int) -> list[Question]:
    makers: list[Callable[[], Question | None]] = []
    for place, sentence in enumerate(sentences):
        makers.append(lambda sentence=sentence: _cloze(sentence, dice))  # type: ignore[misc]
        if place:
            before = " ".join(sentences[max(0, place - 2) : place])
            makers.append(lambda s=sentence, b=before: Question(f"Complete the text: {b}", s, is_open=False))  # type: ignore[misc]
        words = _words_of(sentence)
        if len(words) >= 3:
            asked = f"Write a sentence of the text with the words {', '.join(words[:3])}."
            makers.append(lambda q=asked, s=sentence: Question(q, s, is_open=False))  # type: ignore[misc]
    dice.shuffle(makers)
    made = (maker() for maker in makers)
    found = []
    for question in made:
        if question is not None:
            found.append(question)
        if len(found) >= 4 * most:
            break
    return found


def _cloze(sentence: str, dice: random.Random) -> Question | None:
    """The sentence with a number or a long word left out."""
    terms = list(_TERM.finditer(sentence))
    if not terms or len(sentence.split()) < 6:
        return None
    term = dice.choice(terms)
    gapped = f"{sentence[: term.start()]}{_GAP}{sentence[term.end() :]}"
    return Question(f"Fill in the gap: {gapped}", term[0], is_open=not _refers_back(sentence))


def _refers_back(sentence: str) -> bool:
    """Whether a sentence speaks of what the one before it said."""
    return sentence.split(maxsplit=1)[0].strip(",") in _PRONOUNS | _CONNECTORS


def _words_of(sentence: str) -> list[str]:
    words = {match[0].lower() for match in _TERM.finditer(sentence)}
    return sorted(words, key=lambda word: (-len(word), word))


def _sentence(text: str) -> str:
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _lowered(text: str) -> str:
    """Without a capital at the start of a sentence; names of several capitals stay."""
    is_name = any(letter.isupper() for letter in text[1:])
    return text if is_name else text[:1].lower() + text[1:]


def with_tasks(text: str, found: Sequence[Question], dice: random.Random) -> str:
    """A text followed by its tasks, as reading comprehension."""
    if not found:
        return text
    opening = dice.choice(
        ("Answer the questions about the text.", "Questions on the text:", "Read the text and answer.")
    )
    tasks = "\n\n".join(f"Question: {question.prompt}\nAnswer: {question.answer}" for question in found)
    return f"{text.rstrip()}\n\n{opening}\n\n{tasks}"


def corrupted(answer: str, dice: random.Random) -> str | None:
    """The answer with something in it made wrong: a number, an opposite, or two words that change places."""
    words = answer.split(" ")
    numbers = [place for place, word in enumerate(words) if _NUMBER.search(word)]
    swaps = [place for place, word in enumerate(words) if word in _SWAPPED]
    long = [place for place, word in enumerate(words) if len(word.strip(".,;:")) > 3]
    if numbers:
        place = dice.choice(numbers)
        words[place] = _NUMBER.sub(lambda match: _other_number(match[0], dice), words[place], count=1)
    elif swaps:
        place = dice.choice(swaps)
        words[place] = _SWAPPED[words[place]]
    elif len(long) >= 2:
        one, two = sorted(dice.sample(long, 2))
        words[one], words[two] = words[two], words[one]
    changed = " ".join(words)
    return None if changed == answer else changed


def _other_number(digits: str, dice: random.Random) -> str:
    """Another number of as many digits."""
    low = 10 ** (len(digits) - 1) if len(digits) > 1 else 0
    return str((int(digits) - low + dice.randrange(1, max(2, 9 * low))) % max(10 - low % 2, 9 * low) + low)
