"""What is wrong in a user's file: where (file, line, field), what, what to do. And the error that ends a command."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from typing import Any

from bessemer_operator.core.findings import Finding, Severity

EXIT_OK = 0
EXIT_UNEXPECTED = 1
"""A bug in this program."""
EXIT_USAGE = 2
"""The command line itself was wrong."""
EXIT_INVALID = 3
"""The file, or what it declares, is invalid (with --strict: or dubious)."""
EXIT_GATE = 4
"""A gate was not passed: Failed, Inconclusive or Invalid; or the promotion was refused."""
EXIT_STAGE = 5
"""A stage, an evaluation or another piece of work failed."""
EXIT_UNREACHABLE = 6
"""The cluster, or the state folder of a local run, could not be reached."""
EXIT_NOT_FOUND = 7
"""There is no such pipeline, or nothing of the kind that was asked for."""
EXIT_WAITING = 8
"""All is done but what a person or a time is waited for: an approval, or a soak."""
EXIT_UNFIT = 9
"""`doctor` found something that keeps pipelines from running."""
EXIT_INTERRUPTED = 130
"""Stopped by the user; what ran was saved."""


def printable(text: str) -> str:
    """The text without what could move a terminal's cursor or turn its writing around."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def printable_json(document: object) -> str:
    """The document as indented JSON, in which every character that `printable` would replace is escaped."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def as_yaml(document: object) -> str:
    """The document as YAML."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - slow to import

    text = StringIO()
    YAML(typ="safe", pure=True).dump(json.loads(json.dumps(document)), text)
    return text.getvalue().rstrip()


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a file."""

    file: str
    line: int
    field: str
    severity: Severity
    rule: str
    message: str
    fix: str

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        fix = f" ({self.fix})" if self.fix else ""
        return printable(f"{self.file}:{self.line}: {self.severity}: {field}{self.message}{fix}")

    def wire(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


def from_finding(finding: Finding, file: str, line: int) -> Problem:
    """A finding of the lint at its line."""
    return Problem(file, line, finding.field, finding.severity, finding.rule, finding.message, finding.fix)


class UserError(Exception):
    """Ends a command with a message for the user and an exit code, without a traceback."""

    def __init__(self, message: str, code: int = EXIT_INVALID) -> None:
        super().__init__(message)
        self.code = code


class InvalidFileError(UserError):
    """A file whose problems are known one by one."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
