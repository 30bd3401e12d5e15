"""A made-up trade with its materials, tools and parts, to try the scenarios on: python examples/scenarios/data.py

Writes into data/, always the same bytes: training texts, and items for six axes made by the modules beside this file.
Bring your own tables instead: a list of `Fact`, of `Link`, of topics, and of joints.
"""

import random
from itertools import product
from pathlib import Path
from typing import Any

import briefs
import instructions
import synthesis
from facts import Fact, cloze, json_answers, multiple_choice, statements, write
from synthesis import Link

FOLDER = Path(__file__).resolve().parent / "data"
VALUES = {
    "colour": ["amber", "blue", "crimson", "green", "ivory", "orange", "purple", "silver"],
    "grade": ["brittle", "dense", "flexible", "hard", "light", "porous", "smooth", "soft"],
    "origin": ["coast", "delta", "forest", "glacier", "island", "meadow", "mountain", "river"],
}
JOINTS = ["glue", "screws"]
COUNT = 360
REACH = 6
"""Every joint holds a part and each of the next few."""


def names(seed: int, count: int) -> list[str]:
    """Made-up words of three syllables, all different from those of another seed."""
    every = [f"{'bdfgk'[seed]}{a}{b}{c}" for a, b, c in product("aeiou", ["lo", "mi", "ru", "se", "ta"], "ndrskt")]
    every += [f"{word}{end}" for word in every for end in ("a", "o", "i")]
    return random.Random(seed).sample(every, count)


def facts() -> list[Fact]:
    """Three facts about each of 120 materials."""
    random_ = random.Random(1)
    subjects = names(0, COUNT // len(VALUES))
    return [
        Fact(f"{subject}-{attribute}", subject, attribute, random_.choice(values))
        for subject in subjects
        for attribute, values in VALUES.items()
    ]


def links() -> list[Link]:
    """Tools, each made of one of forty materials that has one of eight densities."""
    random_ = random.Random(2)
    materials = {material: f"{random_.choice(range(2, 10))} grams" for material in names(1, 40)}
    chosen = [random_.choice(sorted(materials)) for _ in range(COUNT // 2)]
    return [Link(tool, tool, m, materials[m]) for tool, m in zip(names(2, COUNT // 2), chosen, strict=True)]


def designs() -> tuple[list[str], list[briefs.Design]]:
    """Parts, and every design that fits."""
    parts = names(3, COUNT)
    pairs = {(parts[k], parts[(k + step) % COUNT]) for k in range(COUNT) for step in range(1, REACH + 1)}
    return parts, briefs.designs(parts, dict.fromkeys(JOINTS, pairs))


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    table, joined, (parts, fitting) = facts(), links(), designs()
    known, hidden = briefs.known_and_hidden(fitting, 0.5, seed=3)
    reading = synthesis.items(joined, "density", seed=4)
    texts: list[str] = [text for fact in table for text in statements(fact)]
    texts += synthesis.documents(joined, "density") + [briefs.sentence(design) for design in known]
    random.Random(5).shuffle(texts)
    half = len(texts) // 2
    files: dict[str, list[dict[str, Any]]] = {
        "texts": [{"id": f"t{n}", "text": text} for n, text in enumerate(texts[:half])],
        "papers": [{"id": f"p{n}", "text": text} for n, text in enumerate(texts[half:])],
        "knowledge": multiple_choice(table, seed=6),
        "cloze": cloze(table),
        "json": json_answers(table),
        "reasoning": synthesis.choices(reading, seed=7),
        "instruction": instructions.items(names(4, 60), COUNT, seed=8),
        "creative": briefs.items(parts, fitting),
    }
    for name, rows in files.items():
        write(FOLDER / f"{name}.jsonl", rows)
    print(f"{len(texts)} texts, {len(hidden)} designs left to be found, {COUNT} items an axis")


if __name__ == "__main__":
    main()
