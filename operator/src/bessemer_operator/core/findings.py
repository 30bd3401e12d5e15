"""A finding of the lint: where, how bad, what is wrong, what to do. And the few words that all rules share."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Path = tuple[str | int, ...]
Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (error: the pipeline can not run) or dubious (warning: it can)."""

    path: Path
    severity: Severity
    rule: str
    message: str
    fix: str

    @property
    def field(self) -> str:
        """The path as kubectl writes it: spec.stages[1].from."""
        return field_path(self.path)

    def __str__(self) -> str:
        return f"{self.field}: {self.message}; {self.fix}"


def field_path(path: Path) -> str:
    """`("spec", "stages", 1, "from")` as spec.stages[1].from."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def error(path: Path, rule: str, message: str, fix: str) -> Finding:
    """A finding that makes the pipeline invalid."""
    return Finding(path, "error", rule, message, fix)


def warning(path: Path, rule: str, message: str, fix: str) -> Finding:
    """A finding that a person should look at."""
    return Finding(path, "warning", rule, message, fix)


def unknown(path: Path, what: str, name: str, known: Iterable[str], fix: str = "") -> Finding:
    """A name that refers to nothing, with the nearest that exists."""
    return error(
        path, f"Unknown{what.title().replace(' ', '')}", f'there is no {what} "{name}"', nearest(name, known, fix)
    )


def nearest(name: str, known: Iterable[str], fix: str = "") -> str:
    """What to do about an unknown name."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f'did you mean "{close[0]}"?'
    return fix or (f"known: {', '.join(names)}" if names else "none is declared")
