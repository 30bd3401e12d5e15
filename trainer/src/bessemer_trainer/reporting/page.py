"""The page: a view of the facts, section by section, through one template. The only file that knows the template.

Whatever a user or a pod wrote is escaped by the template engine; the page forbids scripts and requests by its policy.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bessemer_trainer.reporting import (
    alternatives,
    choices,
    curves,
    data,
    diagnostics,
    examples,
    lineage,
    resources,
    verdict,
)
from bessemer_trainer.reporting.facts import Facts, Work
from bessemer_trainer.reporting.words import FILTERS, artifact_names

TEMPLATES = Path(__file__).parent.parent / "templates"


def render(facts: Facts) -> str:
    """One HTML document that loads nothing."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template("report.html.j2").render(view=build_view(facts))


def build_view(facts: Facts) -> dict[str, Any]:
    """All that the template shows."""
    names = artifact_names(facts)
    return {
        "name": facts.name,
        "namespace": facts.namespace,
        "store": facts.spec.store,
        "names": names,
        "banner": verdict.banner(facts, names),
        "gates": [verdict.gate_view(gate, facts, names) for gate in facts.gates],
        "channels": facts.channels,
        "lineage": lineage.view(facts),
        "training": curves.sections(facts),
        "data": data.data_sets(facts),
        "mixtures": data.mixtures(facts),
        "candidates": choices.candidates(facts),
        "merges": choices.merges(facts),
        "alternatives": alternatives.view(facts),
        "examples": examples.view(facts),
        "diagnostics": diagnostics.view(facts),
        "resources": resources.view(facts),
        "seeds": alternatives.seeds(facts),
        "conditions": facts.conditions,
        "evaluations": facts.evaluations,
        "works": [_work_view(work) for work in facts.works],
    }


def _work_view(work: Work) -> dict[str, Any]:
    """How a piece of work was obtained: every setting that differs from its default, as it stands in its identity."""
    settings: Mapping[str, Any] = work.inputs.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {"work": work, "settings": list(_flatten(settings, ""))}


def _flatten(value: Any, path: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{path}.{key}".strip("."))
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from _flatten(item, f"{path}[{i}]")
    else:
        yield path, str(value)
