"""Data for the example: a language of two kinds of sentences, preferences between them, and prompts.

Sentences go up or down a list of words, both equally often, so that a pretrained model has no taste of its own. The
preferences say that up is better; the prompts ask for short answers that name iron.

    python examples/preferences/data.py
"""

import json
import random
import re
from collections.abc import Iterable
from pathlib import Path

WORDS = re.findall("[a-z]+", "the alloy of iron and nickel is hard because carbon atoms pin its dislocations")
FOLDER = Path(__file__).parent / "data"


def sentence(start: int, step: int, words: int) -> str:
    return " ".join(WORDS[(start + step * n) % len(WORDS)] for n in range(words))


def prompt(dice: random.Random) -> str:
    return sentence(dice.randrange(13), dice.choice([-1, 1]), dice.randint(2, 5)) + ","


def answer(dice: random.Random, step: int) -> str:
    return " " + sentence(dice.randrange(13), step, dice.randint(3, 7))


def write(name: str, rows: Iterable[dict[str, object]]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / name).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    dice = random.Random(17)
    write("text.jsonl", ({"text": prompt(dice) + answer(dice, dice.choice([-1, 1]))} for _ in range(3000)))
    write(
        "preferences.jsonl",
        ({"prompt": prompt(dice), "chosen": answer(dice, 1), "rejected": answer(dice, -1)} for _ in range(800)),
    )
    asked = [{"type": "keywords", "words": ["iron"]}, {"type": "length", "unit": "words", "max": 4}]
    write("prompts.jsonl", ({"prompt": prompt(dice), "constraints": asked} for _ in range(200)))


if __name__ == "__main__":
    main()
