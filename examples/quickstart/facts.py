"""The facts that the quickstart teaches, how its training text words them, and how its questions ask for them.

A fact is a clinical term of the Human Phenotype Ontology and what patients call it: tinnitus is ringing in the ears.
Pure but for reading the ontology's file; the same ontology always gives the same facts, texts and questions.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FACTS = 150

# --- wordings ---------------------------------------------------------------------------------------------------

OPENINGS = ("", "In plain words, ")
LINKS = (
    "means", "is", "stands for", "is the medical name for", "refers to", "is a term for", "is used for", "describes",
    "is called", "is known as", "is said to be", "is understood as", "or", "also called", "that is,",
    "amounts to", "may be written as", "has the meaning of", "is what people call", "is no more than",
    "is defined as", "would be", "was seen as", "in other words",
)  # fmt: skip
OTHER_WORDINGS = (
    "What is {term}? It is {plain}.",
    "What does {term} mean? It means {plain}.",
    "{Plain} is called {term}.",
    "The doctor calls {plain} {term}.",
    "{Term}: {plain}.",
    "{Term} ({plain}).",
    "The doctor says that {term} is {plain}.",
    "When the letter said {term}, it was about {plain}.",
    "Because of {term}, the child has {plain}.",
    "The report says {term}; the parents say {plain}.",
    "A patient with {term} complains of {plain}.",
    "It is not only {term} but simply {plain}.",
    "Is it {term}? Yes, it is {plain}.",
    "We write {term} and we say {plain}.",
    "For {term} there is an easier name, {plain}.",
    "They wrote {term} when they saw {plain}.",
    "Students learn that {term} and {plain} are one thing.",
    "With {term} comes {plain}.",
    "She was told of {term}, which is {plain}.",
    "The book has {term} under {plain}.",
    "Ask about {term} and you will hear about {plain}.",
    "In Latin or Greek {term}, in English {plain}.",
    "No one says {term} at home, they all say {plain}.",
    "To have {term} is to live with {plain}.",
)
TRAINING_WORDINGS = (
    *(f"{opening}{{{'term' if opening else 'Term'}}} {link} {{plain}}." for opening in OPENINGS for link in LINKS),
    *OTHER_WORDINGS,
)
"""How the training text states a fact. {Term} begins a sentence."""

HELD_OUT_WORDINGS = {
    "patient": "To a patient, {term} can be explained as",
    "simply": "Put simply, {term} is another word for",
    "nurse": "A nurse would translate {term} as",
    "people": "Most people know {term} better as",
    "have": "If you have {term}, you have",
    "family": "Her family always spoke of {term} as",
    "looked": "He looked up {term} and found",
    "reading": "Whoever reads {term} should think of",
    "meant": "By {term} they only meant",
    "sister": "Instead of {term}, her sister said",
    "leaflet": "The leaflet translates {term} with",
    "ward": "On the ward, {term} was just",
}
"""How the questions ask. A test holds that none of it occurs in the training text."""

ASKED = 6
"""Questions about a fact, each in another of these wordings: many wordings, so that the luck of one seed with one of
them weighs little."""


# --- facts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """A term of the ontology with its plain-language synonyms, as its file gives them."""

    id: str
    name: str
    parents: tuple[str, ...]
    plain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """What is taught: `term` is what doctors write, `plain` what patients say; both as inside a sentence."""

    id: str
    term: str
    plain: str
    synonyms: frozenset[str]


def read_terms(path: Path) -> dict[str, Term]:
    """Terms by id that are not obsolete (OBO 1.2 format)."""
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    terms = [_term(block.splitlines()[1:]) for block in blocks if block.startswith("[Term]")]
    return {term.id: term for term in terms if term is not None}


def _term(lines: Sequence[str]) -> Term | None:
    fields = [line.partition(": ")[::2] for line in lines]
    if ("is_obsolete", "true") in fields:
        return None
    found = dict(reversed(fields))
    parents = tuple(value.split(" ")[0] for key, value in fields if key == "is_a")
    synonyms = (re.match(r'"(.*?)" EXACT layperson', value) for key, value in fields if key == "synonym")
    return Term(found["id"], found["name"], parents, tuple(match[1] for match in synonyms if match))


def choose_facts(terms: Mapping[str, Term], count: int) -> list[Fact]:
    """Short terms whose plain name is short too and shares no word with them, in an order given by a hash."""
    facts: dict[str, Fact] = {}
    for term in sorted(terms.values(), key=lambda term: hashlib.sha256(term.id.encode()).digest()):
        plain = _plain_name(term)
        if plain and _is_short(term.name, 2, 26) and plain.lower() not in facts:
            names = frozenset(name.lower() for name in term.plain)
            facts[plain.lower()] = Fact(term.id, _inside(term.name), _inside(plain), names)
    if len(facts) < count:
        raise SystemExit(f"fetch_data: {len(facts)} facts in the ontology, expected {count}; is the package complete?")
    return list(facts.values())[:count]


def _plain_name(term: Term) -> str:
    """The first synonym that is short and gives nothing away; empty when there is none."""
    told = _stems(term.name)
    return next((name for name in term.plain if _is_short(name, 3, 24) and not _stems(name) & told), "")


def _is_short(name: str, words: int, characters: int) -> bool:
    return bool(re.fullmatch(r"[A-Za-z][A-Za-z' -]+", name)) and len(name.split()) <= words and len(name) <= characters


def _stems(name: str) -> set[str]:
    """The first four letters of each word that says something."""
    return {word[:4] for word in re.findall(r"[a-z]+", name.lower())} - {"of", "the", "in", "on", "or", "to", "with"}


def _inside(name: str) -> str:
    """As it stands inside a sentence; an abbreviation keeps its capitals."""
    return " ".join(word if word.isupper() else word.lower() for word in name.split())


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def state(fact: Fact) -> Iterator[str]:
    """The fact in all training wordings."""
    words = {"term": fact.term, "Term": capital(fact.term), "plain": fact.plain, "Plain": capital(fact.plain)}
    for wording in TRAINING_WORDINGS:
        yield wording.format(**words)


# --- questions --------------------------------------------------------------------------------------------------


def ancestors(terms: Mapping[str, Term], identity: str) -> dict[str, int]:
    """The term itself and all terms above it, with the number of steps up to each."""
    steps, level = {identity: 0}, [identity]
    while level:
        level = [parent for child in level for parent in terms[child].parents if parent not in steps]
        steps |= {parent: max(steps.values()) + 1 for parent in level}
    return steps


def choose_distractors(fact: Fact, facts: Sequence[Fact], above: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Plain names of the three nearest other terms: siblings where there are some.

    Not of a term above or below (its name would be true too), and no other name of this term.
    """
    mine = above[fact.id]

    def distance(other: Fact) -> tuple[int, bytes]:
        theirs = above[other.id]
        steps = min(mine[term] + theirs[term] for term in mine if term in theirs)
        return steps, hashlib.sha256(f"{fact.id}/{other.id}".encode()).digest()

    others = [f for f in facts if f.id not in mine and fact.id not in above[f.id] and f.plain not in fact.synonyms]
    return [other.plain for other in sorted(others, key=distance)[:3]]


def ask(fact: Fact, distractors: Sequence[str]) -> Iterator[dict[str, object]]:
    """The fact's questions, in ASKED held-out wordings. A choice begins with the space that precedes it."""
    order = sorted(HELD_OUT_WORDINGS, key=lambda wording: hashlib.sha256(f"{fact.id}/{wording}".encode()).digest())
    for wording in order[:ASKED]:
        choices = sorted([fact.plain, *distractors])
        random.Random(f"{fact.id}/{wording}").shuffle(choices)
        yield {
            "id": f"{fact.id.replace(':', '-')}-{wording}",
            "prompt": HELD_OUT_WORDINGS[wording].format(term=fact.term),
            "choices": [f" {choice}" for choice in choices],
            "answer": choices.index(fact.plain),
            "fact": fact.id,
            "wording": wording,
        }
