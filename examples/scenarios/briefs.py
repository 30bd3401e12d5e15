"""Design briefs: join two parts that fit. Eight samples a brief; noise is rejected by the verifier, copies by novelty.

A design is a sentence of a fixed form, so that a program can read it: "Join a <part> to a <part> with <joint>." What
fits is a table. Training texts hold a part of what fits; the rest is there to be found.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

Item = dict[str, Any]
Design = tuple[str, str, str]

PATTERN = r"Join an? (\w+) to an? (\w+) with (\w+)"


def designs(parts: Sequence[str], joints: Mapping[str, set[tuple[str, str]]]) -> list[Design]:
    """Every design that fits. `joints`: by joint, the kinds of parts (ordered pairs) that it can hold together."""
    return [
        (one, other, joint) for joint, pairs in sorted(joints.items()) for one, other in product(parts, repeat=2)
        if (one, other) in pairs
    ]  # fmt: skip


def sentence(design: Design) -> str:
    """The design in the form that the verifier reads."""
    one, other, joint = design
    return f"Join a {one} to a {other} with {joint}."


def known_and_hidden(every: Sequence[Design], share: float, seed: int) -> tuple[list[Design], list[Design]]:
    """Designs that training texts may hold, and those that are left to be found."""
    shuffled = list(every)
    random.Random(seed).shuffle(shuffled)
    cut = round(share * len(shuffled))
    return shuffled[:cut], shuffled[cut:]


def items(parts: Sequence[str], every: Sequence[Design]) -> list[Item]:
    """One brief for each part: it must be in the design. Cluster by the brief (its id)."""
    briefs = []
    for part in parts:
        rows = [list(design) for design in every if part in design[:2]]
        if len(rows) < 8:
            raise ValueError(f"part {part} is in {len(rows)} designs that fit; eight samples need 8 at least")
        briefs.append(
            {
                "id": f"brief-{part}",
                "brief": part,
                "prompt": f"A design that uses a {part}:",
                "stop": ["\n"],
                "constraints": [{"type": "keywords", "words": [part]}, {"type": "length", "unit": "words", "max": 12}],
                "verifier": {"kind": "relation", "pattern": PATTERN, "rows": rows},
            }
        )
    return briefs
