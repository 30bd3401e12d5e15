"""Two-document synthesis: the answer follows from two documents, and stands in neither beside the question.

Document one says what a thing is made of; document two says a property of that material. Asked is the property of the
thing. `open` items show both documents among others (reading); `closed` items show none (what was learned must be put
together). The two are strata: stratifyBy: form.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]


@dataclass(frozen=True)
class Link:
    """`thing` is made of `material`, and `material` has `value` as its property."""

    id: str
    thing: str
    material: str
    value: str


def documents(links: Sequence[Link], attribute: str) -> list[str]:
    """All documents, each once: which thing is made of what, and which material has what."""
    made = [f"The {link.thing} is made of {link.material}." for link in links]
    has = sorted({f"The {attribute} of {link.material} is {link.value}." for link in links})
    return [*made, *has]


def items(links: Sequence[Link], attribute: str, seed: int, distractors: int = 4) -> list[Item]:
    """Two items a link, `open` and `closed`. Distractors are documents of the same two kinds, in random order."""
    random_ = random.Random(seed)
    made = []
    for link in links:
        question = f"What is the {attribute} of the {link.thing}? It is"
        own = [f"The {link.thing} is made of {link.material}.", f"The {attribute} of {link.material} is {link.value}."]
        others = [text for text in documents(links, attribute) if text not in own]
        shown = [*own, *random_.sample(others, min(distractors, len(others)))]
        random_.shuffle(shown)
        for form, prompt in (("open", "\n".join([*shown, question])), ("closed", question)):
            made.append(
                {
                    "id": f"{link.id}-{form}",
                    "prompt": prompt,
                    "answers": [link.value],
                    "stop": [".", "\n", ","],
                    "form": form,
                    "fact": link.id,
                }
            )
    return made


def choices(given: Sequence[Item], seed: int, count: int = 4) -> list[Item]:
    """The same items as multiple choice; wrong choices are the answers of other items."""
    random_ = random.Random(seed)
    values = sorted({item["answers"][0] for item in given})
    if len(values) < count:
        raise ValueError(f"{len(values)} different answers, {count} choices are needed")
    made = []
    for item in given:
        right = item["answers"][0]
        options = [right, *random_.sample([value for value in values if value != right], count - 1)]
        random_.shuffle(options)
        kept = {name: item[name] for name in ("id", "prompt", "form", "fact")}
        made.append({**kept, "choices": [f" {option}" for option in options], "answer": options.index(right)})
    return made
