"""Durations such as `90s` or `1d12h` as timedelta; the same form as `bessemer_api.fields.Duration`."""

import re
from datetime import timedelta

_PARTS = re.compile(r"(?:([0-9]{1,5})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,5})s)?")


def parse_duration(text: str) -> timedelta:
    """The duration that `text` names; ValueError when it is none."""
    match = _PARTS.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is no duration; expected for example 90s, 30m or 48h")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
