"""`bessemer lint`: every problem of files, and the exit code. Reads files and nothing else."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel

from bessemer_api.digest import input_digest
from bessemer_api.v1alpha1 import AdaptationPipeline, Evaluation, MergeJob, TrainingStage
from bessemer_operator.cli.problems import (
    EXIT_INVALID,
    EXIT_OK,
    EXIT_USAGE,
    InvalidFileError,
    Problem,
    UserError,
    from_finding,
)
from bessemer_operator.cli.yamlfile import Document, read_documents
from bessemer_operator.core.estimate import NOTHING, Known
from bessemer_operator.core.findings import Finding, error
from bessemer_operator.core.lint import lint
from bessemer_operator.core.profile import Profile
from bessemer_operator.settings import SettingsError, read_profiles

Profiles = Mapping[str, Profile]


def profiles_of(file: str) -> Profiles | None:
    """The profiles in a file; None without one. Raises UserError."""
    if not file:
        return None
    try:
        return read_profiles(Path(file))
    except SettingsError as wrong:
        raise UserError(str(wrong), EXIT_USAGE) from None


def problems_of(file: str, profiles: Profiles | None = None) -> list[Problem]:
    """Everything that is wrong or dubious in a file, in the order of its lines."""
    try:
        documents = read_documents(file)
    except InvalidFileError as invalid:
        return list(invalid.problems)
    return sorted((p for item in documents for p in problems_in(item, profiles)), key=lambda problem: problem.line)


def problems_in(document: Document, profiles: Profiles | None = None, known: Known = NOTHING) -> list[Problem]:
    """Everything about one document; with what is `known`, estimates of memory too."""
    findings = _findings(document.model, profiles, known)
    return [from_finding(finding, document.file, document.line_of(finding.path)) for finding in findings]


def check(document: Document, profiles: Profiles | None = None) -> list[Problem]:
    """The warnings about one document. Raises InvalidFileError when it has errors."""
    problems = problems_in(document, profiles)
    if exit_code(problems, strict=False):
        raise InvalidFileError(problems)
    return problems


def _findings(model: BaseModel, profiles: Profiles | None, known: Known) -> tuple[Finding, ...]:
    if isinstance(model, AdaptationPipeline):
        return lint(model.spec, profiles, known)
    if isinstance(model, (TrainingStage, MergeJob, Evaluation)):
        digest = input_digest(model.spec.inputs)
        if digest != model.spec.input_digest:
            message = "this is not the digest of spec.inputs, so results would be stored under a wrong identity"
            return (error(("spec", "inputDigest"), "WrongDigest", message, f"write {digest}"),)
    return ()


def exit_code(problems: Iterable[Problem], strict: bool) -> int:
    """0, or EXIT_INVALID when there is an error, or with `strict` any problem."""
    counted = [problem for problem in problems if strict or problem.severity == "error"]
    return EXIT_INVALID if counted else EXIT_OK


def as_text(files: Iterable[str], problems: Iterable[Problem]) -> str:
    """A line a problem, then a line a file."""
    found = list(problems)
    lines = [str(problem) for problem in found]
    for file in dict.fromkeys(files):
        severities = [problem.severity for problem in found if problem.file == file]
        counts = [_count(severities.count(kind), kind) for kind in ("error", "warning") if kind in severities]
        lines.append(f"{file}: {', '.join(counts) or 'ok'}")
    return "\n".join(lines)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("s" if number > 1 else "")
