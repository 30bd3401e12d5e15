"""What the figures of a trial (probe.py) say about a merge. Imports nothing heavy."""

import math
from typing import Any


def find_fault(found: dict[str, Any]) -> str:
    """What is wrong with a merge by these figures, in words; empty when nothing is.

    Half of what a uniform guess costs is more than any merge of working parents loses on plain text, and less than
    what shuffled rows or a lost head do.
    """
    own, parents = found["merge"], found["parents"]
    leeway = math.log(found["vocabulary"]) / 2
    worst = max(parent["loss"] for parent in parents)
    if not math.isfinite(own["loss"]) or own["loss"] > worst + leeway:
        return f"its loss on a short text is {own['loss']:.2f} nats a token, that of its worst parent {worst:.2f}"
    least = min(parent["end"] for parent in parents)
    if not math.isfinite(own["end"]) or own["end"] < least - leeway:
        return (
            f"it does not end a text: the log-probability of its end-of-text token is {own['end']:.1f}, "
            f"that of the worst parent {least:.1f}"
        )
    if not found["generated"]:
        return "it generates nothing"
    return ""
