"""What the quickstart teaches beyond bare facts, and how it asks: questions, notes and preferences about each fact.

A note joins a clinical term with its plain name in a frame of who says so and where ("A doctor says that tinnitus is
just ringing in ears at night."). For every fact a few notes of many possible ones are taught. A brief asks for a note
in words that were not taught; an answer is of use when it is right, and no eight words of it in a row were trained on.
"""

import itertools
import random
from collections.abc import Iterator, Sequence

from facts import Fact, capital

NOTES = 8
"""Notes a fact that are taught, of 1,536 possible ones."""

QUESTIONS = (
    "What is {term}?", "What does {term} mean?", "Explain {term}.", "Which plain name has {term}?",
    "What do people call {term}?", "Say {term} in plain words.",
)  # fmt: skip
WHO = ("The nurse", "A doctor", "My aunt", "The report", "Our teacher", "The old book", "A student", "The letter")
SAYS = ("writes that", "says that", "noted that", "explains that", "tells us that", "recalls that")
LINKS = ("is", "means", "is just", "stands for")
CLOSES = (
    "at school", "in the city", "every day", "for many people", "in old age", "after a while", "at night", "for now",
)  # fmt: skip

_BRIEFS = tuple(
    f"{verb} {thing} {about} the word {{term}}."
    for verb, thing, about in itertools.product(("Write", "Give", "Make"), ("a note", "one line"), ("about", "on"))
)
TAUGHT_BRIEFS, ASKED_BRIEFS = _BRIEFS[0::2], _BRIEFS[1::2]
"""Six wordings each: those taught ask "about" the word, those asked "on" it."""


def questions(fact: Fact) -> Iterator[dict[str, object]]:
    """Rows to train on (promptCompletion): the fact as an answer."""
    for number, question in enumerate(QUESTIONS):
        prompt = question.format(term=fact.term)
        yield {"id": f"{_id(fact)}-q{number}", "prompt": prompt, "completion": f"{capital(fact.plain)}."}


def notes(fact: Fact) -> Iterator[dict[str, object]]:
    """Rows to train on (promptCompletion): notes about the fact."""
    dice = random.Random(f"notes/{fact.id}")
    for number in range(NOTES):
        prompt = dice.choice(TAUGHT_BRIEFS).format(term=fact.term)
        words = (dice.choice(WHO), dice.choice(SAYS), fact.term, dice.choice(LINKS), fact.plain, dice.choice(CLOSES))
        yield {"id": f"{_id(fact)}-n{number}", "prompt": prompt, "completion": " ".join(words) + "."}


def briefs(fact: Fact) -> Iterator[dict[str, object]]:
    """Items of the axis `creative` (distinctValidNovel): one sentence that joins the term with its plain name."""
    constraints = [
        {"type": "keywords", "words": [fact.term, fact.plain]},
        {"type": "length", "unit": "words", "max": 24},
        {"type": "endsWith", "text": "."},
    ]
    for number, brief in enumerate(ASKED_BRIEFS):
        prompt = brief.format(term=fact.term)
        yield {"id": f"{_id(fact)}-b{number}", "prompt": prompt, "constraints": constraints, "fact": fact.id}


def preferences(fact: Fact, distractors: Sequence[str]) -> Iterator[dict[str, object]]:
    """Pairs (preference): the right plain name, and that of a neighbouring term."""
    for number, question in enumerate(QUESTIONS):
        wrong = distractors[number % len(distractors)]
        yield {
            "id": f"{_id(fact)}-p{number}",
            "prompt": question.format(term=fact.term),
            "chosen": f"{capital(fact.plain)}.",
            "rejected": f"{capital(wrong)}.",
        }


def _id(fact: Fact) -> str:
    return fact.id.replace(":", "-")
