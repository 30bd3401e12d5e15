"""Prompts with one to three constraints that a program can check. Families are strata: stratifyBy: family."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Item = dict[str, Any]
Asked = tuple[str, dict[str, Any]]


def _length(random_: random.Random, topic: str) -> Asked:
    most = random_.choice([20, 30, 40, 60])
    return f"Use at most {most} words.", {"type": "length", "unit": "words", "max": most}


def _sentences(random_: random.Random, topic: str) -> Asked:
    count = random_.randint(1, 3)
    return f"Write exactly {count} sentence{'s' * (count > 1)}.", {
        "type": "length", "unit": "sentences", "min": count, "max": count,
    }  # fmt: skip


def _keyword(random_: random.Random, topic: str) -> Asked:
    return f"Mention the word {topic}.", {"type": "keywords", "words": [topic]}


def _forbidden(random_: random.Random, topic: str) -> Asked:
    word = random_.choice(["very", "because", "however", "and"])
    return f"Do not use the word {word}.", {"type": "forbidden", "words": [word]}


def _bullets(random_: random.Random, topic: str) -> Asked:
    count = random_.randint(2, 4)
    return f"Write {count} points, each on a line that begins with a hyphen.", {
        "type": "bullets", "min": count, "max": count,
    }  # fmt: skip


def _json(random_: random.Random, topic: str) -> Asked:
    return "Answer with a JSON object with the key summary, and nothing else.", {"type": "json", "keys": ["summary"]}


def _case(random_: random.Random, topic: str) -> Asked:
    case = random_.choice(["lower", "upper"])
    return f"Use {case} case letters only.", {"type": "case", "case": case}


def _ending(random_: random.Random, topic: str) -> Asked:
    ending = random_.choice(["That is all.", "End of note.", "Any questions?"])
    return f'End with "{ending}"', {"type": "endsWith", "text": ending}


FAMILIES: Mapping[str, Callable[[random.Random, str], Asked]] = {
    "length": _length,
    "sentences": _sentences,
    "keyword": _keyword,
    "forbidden": _forbidden,
    "bullets": _bullets,
    "json": _json,
    "case": _case,
    "ending": _ending,
}
_CLASHES = (
    {"json", "bullets"}, {"json", "ending"}, {"json", "sentences"}, {"json", "case"}, {"bullets", "sentences"},
    {"case", "ending"}, {"sentences", "ending"}, {"bullets", "ending"},
)  # fmt: skip
"""Families that no answer can satisfy together, or that decide each other."""


def items(topics: Sequence[str], count: int, seed: int) -> list[Item]:
    """`count` different prompts. The first family of an item is its stratum; families take turns."""
    random_ = random.Random(seed)
    names = sorted(FAMILIES)
    made: dict[str, Item] = {}
    for number in range(50 * count):
        if len(made) == count:
            break
        family, topic = names[len(made) % len(names)], random_.choice(list(topics))
        chosen = _compatible(family, random_)
        asked = [FAMILIES[name](random_, topic) for name in chosen]
        prompt = " ".join([f"Write a short note about {topic}.", *(text for text, _ in asked)])
        made.setdefault(
            prompt,
            {
                "id": f"instruction-{number}",
                "prompt": f"{prompt}\n",
                "constraints": [constraint for _, constraint in asked],
                "family": family,
                "topic": topic,
            },
        )
    if len(made) < count:
        raise ValueError(f"{len(topics)} topics make only {len(made)} different prompts, {count} are needed")
    return list(made.values())


def _compatible(family: str, random_: random.Random) -> list[str]:
    """`family` with none to two others that can hold with it."""
    chosen, most = [family], random_.randint(1, 3)
    for name in random_.sample(sorted(FAMILIES), len(FAMILIES)):
        if len(chosen) == most:
            break
        if name not in chosen and not any({name, other} in _CLASHES for other in chosen):
            chosen.append(name)
    return chosen
