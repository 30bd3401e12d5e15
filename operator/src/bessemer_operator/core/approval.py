"""Approval: whether a person has agreed to promote exactly this candidate on exactly this evidence.

Pure. What was approved is named by both digests, so that an approval can not slip over to another candidate or to other
numbers. Who may write the annotations is not decided here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from bessemer_operator.core.naming import (
    ANNOTATION_APPROVE,
    ANNOTATION_APPROVED_BY,
    ANNOTATION_REJECT,
    ANNOTATION_REJECTED_BY,
    short,
)

_PAIR = re.compile(r"sha256:[0-9a-f]{64}/sha256:[0-9a-f]{64}")
_WHO = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


@dataclass(frozen=True, slots=True)
class Approval:
    """Where the decision of a person stands, and what there is to say about it."""

    state: Literal["Waiting", "Approved", "Rejected", "TimedOut"]
    by: str = ""
    message: str = ""
    requeue: timedelta | None = None


def find_approval(
    notes: Mapping[str, str], wanted: str, deadline: datetime | None, now: datetime, *, was_late: bool = False
) -> Approval:
    """What the annotations say about `wanted`, `<candidate>/<evidence>`. A rejection counts more than an approval.

    `was_late`: it had timed out before; what is approved after that counts no more.
    """
    who = notes.get(ANNOTATION_REJECTED_BY, "").strip() or "nobody named"
    if notes.get(ANNOTATION_REJECT) == wanted:
        return Approval("Rejected", who, f"rejected by {who}")
    by = notes.get(ANNOTATION_APPROVED_BY, "").strip()
    if notes.get(ANNOTATION_APPROVE) == wanted and by and not was_late:
        return Approval("Approved", by, f"approved by {by}")
    if was_late or (deadline is not None and now >= deadline):
        return Approval("TimedOut", "", "nobody has approved it in time")
    until = f", until {deadline:%Y-%m-%dT%H:%M:%SZ}" if deadline else ""
    message = f"waits for a person{until}: {ANNOTATION_APPROVE}={wanted} with {ANNOTATION_APPROVED_BY}"
    return Approval("Waiting", "", f"{message}{_why_not(notes, wanted, by)}", deadline - now if deadline else None)


def _why_not(notes: Mapping[str, str], wanted: str, by: str) -> str:
    """Why an approval that is there does not count."""
    found = notes.get(ANNOTATION_APPROVE)
    if found is None:
        return ""
    if found != wanted:
        candidate, _, evidence = found.partition("/")
        named = f"candidate {short(candidate, 12)} on evidence {short(evidence, 12)}"
        return f"; the approval that is there is of {named}, so it approves nothing here"
    return "" if by else f"; {ANNOTATION_APPROVED_BY} is missing, so nobody has approved it"


def bad_approval(notes: Mapping[str, str]) -> str | None:
    """What is wrong with the form of the annotations about approval; None when nothing is."""
    for key in (ANNOTATION_APPROVE, ANNOTATION_REJECT):
        if key in notes and not _PAIR.fullmatch(notes[key]):
            return f"{key}: expected <candidate digest>/<evidence digest>, each sha256: and 64 hexadecimal digits"
    for key in (ANNOTATION_APPROVED_BY, ANNOTATION_REJECTED_BY):
        if key in notes and not _WHO.fullmatch(notes[key]):
            return f"{key}: expected a name of 1 to 256 printable characters"
    return None
