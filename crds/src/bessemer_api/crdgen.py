"""Writes the CRDs and the reference pages from the models: `python -m bessemer_api.crdgen [--check] crds/`.

`--check` writes nothing and exits 1 when a committed file differs. It must not decide anything about the API: rules and
descriptions stand in the models, and only what has no place there (short names, printer columns) stands here.
"""

import argparse
import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bessemer_api import GROUP, VERSION
from bessemer_api.reference import reference_page
from bessemer_api.structural import Schema, structural_schema
from bessemer_api.v1alpha1 import KINDS

Column = dict[str, Any]

API_VERSION_DESCRIPTION = f"Version of this API: {GROUP}/{VERSION}."
READY = '.status.conditions[?(@.type=="Ready")].status'


def _column(name: str, path: str, description: str, kind: str = "string", priority: int = 0) -> Column:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return {**column, "priority": priority} if priority else column


_READY = _column("Ready", READY, "Whether the object is done and well.")
_AGE = _column("Age", ".metadata.creationTimestamp", "Time since it was created.", "date")
_PHASE = _column("Phase", ".status.phase", "Where it is.")
_PROGRESS = _column("Progress", ".status.progress.progressPercentage", "Per cent of the work that is done.", "integer")
_OUTPUT = _column("Output", ".status.outputDigest", "Artifact that was made.", priority=1)


@dataclass(frozen=True)
class _Names:
    """What a CRD says of a kind beside its schema."""

    plural: str
    short: tuple[str, ...]
    columns: tuple[Column, ...]


_NAMES: Mapping[str, _Names] = {
    "AdaptationPipeline": _Names(
        "adaptationpipelines",
        ("apipe",),
        (
            _column("Stage", ".status.currentStage", "What runs now."),
            _column("Progress", ".status.progress", "Stages done, of all."),
            _column("Gate", ".status.gate", "Verdict of the release gate."),
            _column("Promoted", ".status.promoted", "Short digest of the promoted checkpoint."),
            _READY,
            _AGE,
        ),
    ),
    "TrainingStage": _Names(
        "trainingstages",
        ("tstage",),
        (
            _column("Method", ".spec.inputs.method", "What is done."),
            _PHASE,
            _PROGRESS,
            _column("Remaining", ".status.progress.estimatedRemainingSeconds", "Seconds left.", "integer", 1),
            _OUTPUT,
            _READY,
            _AGE,
        ),
    ),
    "MergeJob": _Names(
        "mergejobs",
        ("mergejob",),
        (_column("Method", ".spec.inputs.method", "How parents are merged."), _PHASE, _PROGRESS, _OUTPUT, _READY, _AGE),
    ),
    "Evaluation": _Names(
        "evaluations",
        ("eval",),
        (
            _column("Part", ".spec.inputs.part", "Part of the bank."),
            _column("Start", ".spec.inputs.start", "First item.", "integer"),
            _column("End", ".spec.inputs.end", "One past the last item.", "integer"),
            _PHASE,
            _PROGRESS,
            _column("Checkpoint", ".spec.inputs.checkpoint", "Checkpoint that is measured.", priority=1),
            _READY,
            _AGE,
        ),
    ),
}


def build_crd(kind: type[BaseModel]) -> Schema:
    """The CustomResourceDefinition of one kind, as a JSON document."""
    names = _NAMES[kind.__name__]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": list(names.columns),
        "schema": {"openAPIV3Schema": _object_schema(kind)},
    }
    all_names = {
        "kind": kind.__name__,
        "listKind": f"{kind.__name__}List",
        "plural": names.plural,
        "singular": kind.__name__.lower(),
        "shortNames": [name for name in names.short if name != kind.__name__.lower()],
        "categories": ["bessemer"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {key: value for key, value in all_names.items() if value},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def _object_schema(kind: type[BaseModel]) -> Schema:
    """Schema of a whole object. The server knows apiVersion, kind and metadata; status comes later."""
    return {
        "description": inspect.getdoc(kind),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": API_VERSION_DESCRIPTION, "type": "string"},
            "kind": {"description": f"The kind: {kind.__name__}.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": structural_schema(_field_model(kind, "spec")),
            "status": structural_schema(_field_model(kind, "status")),
        },
    }


def _field_model(kind: type[BaseModel], name: str) -> type[BaseModel]:
    model = kind.model_fields[name].annotation
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"{kind.__name__}.{name} is no model")
    return model


def to_yaml(value: Any, indent: int = 0) -> str:  # noqa: ANN401 - any JSON document
    """A JSON document as block YAML that ends in a newline. Scalars are JSON, which every YAML parser reads alike."""
    return "\n".join(_lines(value, " " * indent)) + "\n"


def _lines(value: Any, pad: str) -> Iterator[str]:  # noqa: ANN401 - any JSON document
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _entry(f"{pad}{_plain(key)}:", item, pad)
    elif isinstance(value, list) and value:
        for item in value:
            first, *rest = _lines(item, pad + "  ")
            yield f"{pad}- {first.lstrip()}"
            yield from rest
    else:
        yield pad + _plain(value)


def _entry(head: str, item: Any, pad: str) -> Iterator[str]:  # noqa: ANN401 - any JSON document
    if isinstance(item, (dict, list)) and item:
        yield head
        yield from _lines(item, pad + ("  " if isinstance(item, dict) else ""))
    else:
        yield f"{head} {_plain(item)}"


_AMBIGUOUS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "t", "f"})


def _plain(value: Any) -> str:  # noqa: ANN401 - any scalar, or an empty collection
    """A scalar; words that no YAML version takes for something else stay without quotes."""
    is_word = isinstance(value, str) and value.isascii() and value.replace("-", "").isalnum() and value[0].isalpha()
    if is_word and value.lower() not in _AMBIGUOUS:
        return str(value)
    text = json.dumps(value, ensure_ascii=False)
    is_bare_power = isinstance(value, float) and "e" in text and "." not in text
    return text.replace("e", ".0e") if is_bare_power else text  # YAML 1.1 takes 2e-05 for a string


def generated_files(crds: Path, reference: Path) -> dict[Path, str]:
    """Every file that is generated, with its content."""
    documents = [build_crd(kind) for kind in KINDS]
    head = "# Generated by `python -m bessemer_api.crdgen crds/`; edit the models instead.\n"
    definitions = {crds / f"{GROUP}_{crd['spec']['names']['plural']}.yaml": head + to_yaml(crd) for crd in documents}
    pages = {reference / f"{crd['spec']['names']['singular']}.md": reference_page(crd) for crd in documents}
    return definitions | pages


def stale_files(files: Mapping[Path, str]) -> list[Path]:
    """Files that are missing or have another content, and files in their folders that no kind generates."""
    folders = {(path.parent, path.suffix) for path in files}
    left_over = [path for folder, suffix in folders for path in folder.glob(f"*{suffix}") if path not in files]
    changed = [path for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text]
    return sorted(changed + left_over)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with --check compare them. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bessemer_api.crdgen", description="Generate CRDs and their pages.")
    parser.add_argument("crds", type=Path, help="folder of the CRDs")
    parser.add_argument("--reference", type=Path, help="folder of the pages (default: docs/reference beside crds)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    options = parser.parse_args(arguments)
    files = generated_files(options.crds, options.reference or options.crds.resolve().parent / "docs" / "reference")
    if options.check:
        stale = stale_files(files)
        for path in stale:
            sys.stderr.write(f"{path} differs from the models; run: python -m bessemer_api.crdgen {options.crds}\n")
        return 1 if stale else 0
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
