"""What the figures of a trial (probe.py) say about a merge. Imports nothing heavy."""

import math
from typing import Any


def find_fault(found: dict[str, Any]) -> str:
    """What is wrong with a merge by these figures, in words; empty when nothing is.

    What a parent writes costs that parent next to nothing; a merge for which the text of every parent is less likely
    than a uniform guess has lost the language of all of them.
    """
    own, parents = found["merge"], found["parents"]
    guess = math.log(found["vocabulary"])
    written = min(own["written"])
    if not math.isfinite(own["loss"]) or not written <= guess:
        words = "what its parents write is less likely to it than a guess"
        return f"{words}: {written:.2f} nats a token, a guess costs {guess:.2f}"
    least = min(parent["end"] for parent in parents)
    if not math.isfinite(own["end"]) or own["end"] < least - guess / 2:
        return (
            f"it does not end a text: the log-probability of its end-of-text token is {own['end']:.1f}, "
            f"that of the worst parent {least:.1f}"
        )
    if not found["generated"]:
        return "it generates nothing"
    return ""
