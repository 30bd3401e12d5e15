"""Bessemer's kinds from a YAML file: the model of each document, or its problems with file, line and field.

Errors of pydantic become sentences that say what was expected and what to do. It must not apply rules over a whole
pipeline (core/lint.py has them).
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from bessemer_api import API_VERSION, GROUP
from bessemer_api.v1alpha1 import KINDS, AdaptationPipeline
from bessemer_operator.cli.explain import explain
from bessemer_operator.cli.problems import InvalidFileError, Problem
from bessemer_operator.cli.yamltree import Tree, YamlTextError, read_trees
from bessemer_operator.core.findings import Path as FieldPath
from bessemer_operator.core.findings import field_path, nearest

MODELS: dict[str, type[BaseModel]] = {kind.__name__: kind for kind in KINDS}


@dataclass(frozen=True)
class Document:
    """One object of a file, checked. `value` is its JSON with places made absolute, and without defaults."""

    file: str
    tree: Tree
    value: dict[str, Any]
    model: BaseModel

    def line_of(self, path: FieldPath) -> int:
        """Line of a field, or of the nearest thing around it."""
        return self.tree.line_of(path)


def read_documents(file: str) -> list[Document]:
    """Every object of our kinds in a file (`-`: standard input); objects of other groups are left alone.

    Relative places are made absolute from the folder of the file. Raises InvalidFileError with all problems.
    """
    folder = Path.cwd() if file == "-" else Path(os.path.abspath(file)).parent  # noqa: PTH100 - follows no links
    trees = [tree for tree in _trees(file) if _is_ours(tree.value)]
    if not trees:
        fix = f"a document needs `apiVersion: {API_VERSION}` and `kind: AdaptationPipeline`"
        raise InvalidFileError(
            [_problem(file, 1, "", "NothingHere", "there is no object of Bessemer in this file", fix)]
        )
    results = [_document(file, tree, folder) for tree in trees]
    problems = [problem for result in results if not isinstance(result, Document) for problem in result]
    if problems:
        raise InvalidFileError(sorted(problems, key=lambda problem: problem.line))
    return [result for result in results if isinstance(result, Document)]


def read_pipeline(file: str) -> tuple[AdaptationPipeline, Document]:
    """The one AdaptationPipeline of a file. Raises InvalidFileError."""
    found = [(item.model, item) for item in read_documents(file) if isinstance(item.model, AdaptationPipeline)]
    if len(found) != 1:
        message = f"expected one AdaptationPipeline in this file, found {len(found)}"
        raise InvalidFileError(
            [_problem(file, 1, "", "NotOnePipeline", message, "put each pipeline in a file of its own")]
        )
    return found[0]


def _problem(file: str, line: int, field: str, rule: str, message: str, fix: str) -> Problem:
    return Problem(file, line, field, "error", rule, message, fix)


def _trees(file: str) -> list[Tree]:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return read_trees(data.decode("utf-8"))
    except OSError as error:
        message = f"can not be read: {error.strerror}"
        raise InvalidFileError([_problem(file, 1, "", "Unreadable", message, "check the path")]) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte {error.start} is no UTF-8"
        raise InvalidFileError([_problem(file, line, "", "Encoding", message, "save the file as UTF-8")]) from None
    except YamlTextError as error:
        raise InvalidFileError([_problem(file, error.line, "", "Yaml", error.message, error.fix)]) from None
    except RecursionError:
        raise InvalidFileError([_problem(file, 1, "", "Yaml", "nested too deeply", "remove brackets")]) from None


def _is_ours(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Whether a document is meant for us; what is no object or says no group is, so that it is complained about."""
    if value is None:
        return False
    version = value.get("apiVersion") if isinstance(value, dict) else None
    return not isinstance(version, str) or "/" not in version or version.startswith(f"{GROUP}/")


def _document(file: str, tree: Tree, folder: Path) -> Document | list[Problem]:
    value = tree.value
    if not isinstance(value, dict):
        return [_problem(file, tree.line, "", "NoObject", "a document must be a mapping of fields", "add apiVersion")]
    wrong = list(_wrong_type(file, tree))
    if wrong:
        return wrong
    model, value = MODELS[value["kind"]], resolved(value, folder)
    try:
        return Document(file, tree, value, model.model_validate(value, strict=True))
    except ValidationError as refusal:
        return [_explained(file, tree, model, dict(error)) for error in refusal.errors(include_url=False)]


def _wrong_type(file: str, tree: Tree) -> Iterator[Problem]:
    kind, version = tree.value.get("kind"), tree.value.get("apiVersion")
    if version != API_VERSION:
        message = f"the version is {version!r}" if version else "there is no apiVersion"
        yield _problem(file, tree.line_of(("apiVersion",)), "apiVersion", "Version", message, f"write {API_VERSION}")
    if not isinstance(kind, str) or kind not in MODELS:
        message = f"there is no kind {kind!r}" if kind else "there is no kind"
        yield _problem(file, tree.line_of(("kind",)), "kind", "Kind", message, nearest(str(kind), MODELS))


def _explained(file: str, tree: Tree, model: type[BaseModel], error: dict[str, Any]) -> Problem:
    path, message, fix = explain(model, error)
    return _problem(file, tree.line_of(path), field_path(path), str(error["type"]), message, fix)


# --- places -----------------------------------------------------------------------------------------------------


def resolved(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The document with relative places (store, base, sources, tasks) made absolute. Bad shapes stay as they are."""
    spec = document.get("spec")
    if document.get("kind") != "AdaptationPipeline" or not isinstance(spec, dict):
        return document
    store = spec.get("store")
    is_local = isinstance(store, str) and store.startswith("file://")
    changed = {**spec, **(_place(spec, "store", folder) if is_local else {})}
    changed |= _inside(spec, "base", lambda base: {**base, **_place(base, "model", folder)})
    changed |= _inside(spec, "data", lambda data: {name: _data_set(item, folder) for name, item in data.items()})
    changed |= _inside(spec, "evaluation", lambda evaluation: _evaluation(evaluation, folder))
    return {**document, "spec": changed}


def _inside(parent: dict[str, Any], name: str, change: Any) -> dict[str, Any]:  # noqa: ANN401 - a function over a dict
    return {name: change(parent[name])} if isinstance(parent.get(name), dict) else {}


def _data_set(data: Any, folder: Path) -> Any:  # noqa: ANN401 - any JSON value
    sources = data.get("sources") if isinstance(data, dict) else None
    return {**data, "sources": [_with_uri(source, folder) for source in sources]} if isinstance(sources, list) else data


def _evaluation(evaluation: dict[str, Any], folder: Path) -> dict[str, Any]:
    changes = {"banks": _bank, "regression": _with_uri}
    lists = {name: evaluation[name] for name in changes if isinstance(evaluation.get(name), list)}
    return {**evaluation, **{name: [changes[name](item, folder) for item in found] for name, found in lists.items()}}


def _bank(bank: Any, folder: Path) -> Any:  # noqa: ANN401 - any JSON value
    tasks = bank.get("tasks") if isinstance(bank, dict) else None
    if not isinstance(tasks, dict):
        return bank
    return {**bank, "tasks": {name: _with_uri(task, folder) for name, task in tasks.items()}}


def _with_uri(item: Any, folder: Path) -> Any:  # noqa: ANN401 - any JSON value
    return {**item, **_place(item, "uri", folder)} if isinstance(item, dict) else item


def _place(parent: dict[str, Any], name: str, folder: Path) -> dict[str, str]:
    place = parent.get(name)
    return {name: absolute(place, folder)} if isinstance(place, str) and place else {}


def absolute(place: str, folder: Path) -> str:
    """A relative path, or `file://` and a relative path, as file:///...; anything else as it is."""
    scheme, mark, rest = place.partition("://")
    path = rest if mark and scheme == "file" else place
    is_other_place = (mark and scheme != "file") or path.startswith("/") or not path
    if is_other_place:
        return place
    return "file://" + quote(os.path.normpath(folder / path))
