"""Data for the example: plain text, text of a field with words of its own, and questions with answers about it.

python examples/instructions/data.py
"""

import json
import random
from collections.abc import Iterable
from pathlib import Path

METALS = ("iron", "nickel", "copper", "titanium", "zinc", "cobalt", "chromium", "tungsten")
PROPERTIES = ("hard", "soft", "magnetic", "light", "brittle", "ductile", "bright", "dense")
PHASES = ("austenite", "martensite", "perovskite", "cementite")
FOLDER = Path(__file__).parent / "data"


def facts() -> dict[str, str]:
    """Which metal has which property: the same in the text and in the answers."""
    return dict(zip(METALS, PROPERTIES, strict=True))


def text(dice: random.Random) -> str:
    metal, other = dice.sample(METALS, 2)
    return f"The metal {metal} is {facts()[metal]}, and {other} is {facts()[other]}."


def paper(dice: random.Random) -> str:
    phase, metal = dice.choice(PHASES), dice.choice(METALS)
    return f"We quench {metal} and find {phase}; after tempering {phase} remains and the {metal} is {facts()[metal]}."


def talk(dice: random.Random) -> list[dict[str, str]]:
    """One or two questions, each with its answer."""
    turns = []
    for metal in dice.sample(METALS, dice.randint(1, 2)):
        turns.append({"role": "user", "content": f"What is {metal} like?"})
        turns.append({"role": "assistant", "content": f"It is {facts()[metal]}."})
    return turns


def write(name: str, rows: Iterable[dict[str, object]]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / name).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    dice = random.Random(17)
    write("text.jsonl", ({"text": text(dice)} for _ in range(2000)))
    write("papers.jsonl", ({"text": paper(dice)} for _ in range(1000)))
    write("talks.jsonl", ({"messages": talk(dice)} for _ in range(1000)))


if __name__ == "__main__":
    main()
