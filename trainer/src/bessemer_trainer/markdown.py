"""Values in Markdown: whatever a user wrote stays text, in a table cell as elsewhere. Knows no card."""

import re
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bessemer_api.fields import DIGEST_PATTERN

_SPECIAL = re.compile(r"[\\`*_{}\[\]()<>#|!~&:@$]|(?<=www)\.", re.IGNORECASE)
"""What has a meaning within a line of Markdown or HTML, or makes a link of what follows."""


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def escape(value: Any) -> Markdown:  # noqa: ANN401 - whatever a template shows
    """The value as one line of plain text."""
    if isinstance(value, Markdown):
        return value
    line = "".join(character if character.isprintable() else " " for character in str(value))
    return Markdown(_SPECIAL.sub(r"\\\g<0>", " ".join(line.split())))


def code(digest: Any) -> Markdown:  # noqa: ANN401
    """A digest as code, which nobody has to escape; anything else as text."""
    return Markdown(f"`{digest}`") if re.fullmatch(DIGEST_PATTERN, str(digest)) else escape(digest)


def number(value: float | None) -> Markdown:
    """Five digits, with separators from a thousand on; a dash where there is none."""
    if value is None:
        return Markdown("-")
    return Markdown(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.5g}")


def environment(folder: str) -> Environment:
    """Templates whose every value is escaped."""
    made = Environment(  # noqa: S701 - not HTML: `finalize` escapes every value for Markdown
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=escape,
    )
    made.filters.update(code=code, number=number)
    return made
