"""The shell of `bessemer plan`: reads the file, earlier runs, profiles and sizes of local files; prints the plan."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.cli import planview as view
from bessemer_operator.cli.lintfile import problems_in, profiles_of
from bessemer_operator.cli.place import Place
from bessemer_operator.cli.plan import as_lines, known_nodes, make_steps
from bessemer_operator.cli.problems import (
    EXIT_INVALID,
    EXIT_USAGE,
    InvalidFileError,
    Problem,
    UserError,
    as_yaml,
    printable_json,
)
from bessemer_operator.cli.supposed import Supposed
from bessemer_operator.cli.target import KIND, Target, opened
from bessemer_operator.cli.yamlfile import Document, read_pipeline
from bessemer_operator.cluster.protocol import Ref
from bessemer_operator.core.budget import BYTES_PER_TOKEN, exceeded, known_of
from bessemer_operator.core.estimate import NOTHING, Known, StageEstimate, estimate, total
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.shapes import NAMED, Shape, from_config
from bessemer_operator.local import local_profiles

Json = dict[str, Any]
Work = TrainingStage | MergeJob
SURVEYED = frozenset({"DoesNotFit"})
"""Errors of the lint that a plan shows with its numbers, instead of refusing to plan."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read for a plan."""

    spec: PipelineSpec
    profiles: Mapping[str, Profile]
    work: list[Work]
    known: Known
    guessed: dict[str, int] = field(default_factory=dict)


async def show_plan(file: str, place: Place, asked: Supposed, profiles: str, output: str) -> int:
    """Print what would run, what it needs, and how likely the gates are to pass; the exit code."""
    pipeline, document = read_pipeline(file)
    target = Target(Ref(KIND, pipeline.metadata.name, pipeline.metadata.namespace), place, file)
    named = profiles_of(profiles) or local_profiles(pipeline.spec)
    check_for_plan(document, named, NOTHING)
    facts = read_facts(pipeline.spec, named, await _known_work(target), asked)
    problems = check_for_plan(document, facts.profiles, facts.known)
    stages = estimate(facts.spec, facts.profiles, facts.known)
    plan = plan_document(facts, stages, asked) | {"problems": [problem.wire() for problem in problems]}
    text = {"json": printable_json, "yaml": as_yaml}.get(output)
    print(text(plan) if text else "\n".join([*map(str, problems), *as_text(facts, stages, plan)]))
    is_over = bool(plan["budget"] and plan["budget"]["exceeded"])
    return EXIT_INVALID if is_over or any(problem.severity == "error" for problem in problems) else 0


def check_for_plan(document: Document, profiles: Mapping[str, Profile], known: Known) -> list[Problem]:
    """What the lint says. Raises InvalidFileError when there is more than what a plan can show."""
    problems = problems_in(document, profiles, known)
    if any(problem.severity == "error" and problem.rule not in SURVEYED for problem in problems):
        raise InvalidFileError(problems)
    return problems


def plan_document(facts: Facts, stages: tuple[StageEstimate, ...], asked: Supposed) -> Json:
    """The whole plan as a JSON document."""
    spec = facts.spec
    truth = asked.truth(spec)
    budget = spec.budget and {"gpuHours": spec.budget.gpu_hours, "exceeded": exceeded(spec, stages)}
    gates = [view.gate_document(gate, truth) for gate in spec.gates] if asked.effects else []
    return {
        "steps": [step.wire() for step in make_steps(spec, facts.work, facts.profiles)],
        "stages": [view.stage_document(stage) for stage in stages],
        "total": view.total_document(total(spec, stages)),
        "remaining": view.total_document(total(spec, stages, remaining=True)),
        "budget": budget,
        "gates": gates,
        "assumed": view.assumptions(stages, facts.guessed) + (view.truth_lines(truth) if gates else []),
    }


def as_text(facts: Facts, stages: tuple[StageEstimate, ...], plan: Json) -> list[str]:
    """The plan for people."""
    spec = facts.spec
    lines = as_lines(make_steps(spec, facts.work, facts.profiles))
    if stages:
        budget = spec.budget.gpu_hours if spec.budget else None
        sums = view.total_line(total(spec, stages), total(spec, stages, remaining=True), budget)
        lines += ["", *view.stage_lines(stages), sums]
    if plan["budget"] and plan["budget"]["exceeded"]:
        lines.append(f"BudgetExceeded: {plan['budget']['exceeded']}.")
    for gate in plan["gates"]:
        lines += ["", *view.gate_lines(gate)]
    return [
        *lines,
        *(["", "Estimates. Assumed:", *(f"- {line}" for line in plan["assumed"])] if plan["assumed"] else []),
    ]


# --- what is read -----------------------------------------------------------------------------------------------


def read_facts(spec: PipelineSpec, profiles: Mapping[str, Profile], work: list[Work], asked: Supposed) -> Facts:
    """Shape and sizes: as supposed, else from earlier runs, else from the declaration and local files."""
    stages = [item for item in work if isinstance(item, TrainingStage)]
    found = known_of(spec, known_nodes(spec, work), stages)
    told = {name: round(value) for name, value in asked.of("tokens", spec.data).items()}
    guessed = {
        name: size
        for name, data in spec.data.items()
        if name not in {**found.tokens, **told} and data.expected_tokens is None
        if (size := _guess(source.uri for source in data.sources))
    }
    base = _shape(asked.shape) or found.base or _config_of(spec.base.model if spec.base else "")
    known = Known(base, {**guessed, **found.tokens, **told}, found.mixtures, found.done)
    return Facts(spec, profiles, work, known, guessed)


def _shape(word: str) -> Shape | None:
    """A shape by name, or from the config.json at a path."""
    if not word:
        return None
    shape = NAMED.get(word) or _config_of(word)
    if shape is None:
        known = ", ".join(NAMED)
        raise UserError(f"--suppose shape={word}: expected one of {known}, or a folder with a config.json", EXIT_USAGE)
    return shape


def _config_of(place: str) -> Shape | None:
    """The shape of a model in a local folder; None where there is none that can be read."""
    path = _local(place)
    if path is None:
        return None
    try:
        document = json.loads((path / "config.json" if path.is_dir() else path).read_bytes())
    except (OSError, ValueError):
        return None
    return from_config(document) if isinstance(document, dict) else None


def _local(place: str) -> Path | None:
    """The path of a local place."""
    if not place or ("://" in place and not place.startswith("file://")):
        return None
    return Path(unquote(place.removeprefix("file://")))


def _guess(uris: Iterable[str]) -> int | None:
    """Tokens of local files by their bytes; None where one of them is elsewhere, missing or compressed."""
    size = 0
    for path in map(_local, uris):
        if path is None or not path.exists():
            return None
        files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
        if any(item.suffix in {".gz", ".zst", ".bz2", ".xz", ".parquet"} for item in files):
            return None
        size += sum(item.stat().st_size for item in files)
    return round(size / BYTES_PER_TOKEN) or None


async def _known_work(target: Target) -> list[Work]:
    if target.run is None or not (target.run.state / "cluster").is_dir():
        return []
    async with opened(target) as cluster:
        stages = await cluster.list("TrainingStage", target.ref.namespace)
        merges = await cluster.list("MergeJob", target.ref.namespace)
    return [
        *(TrainingStage.model_validate(item) for item in stages.items),
        *(MergeJob.model_validate(item) for item in merges.items),
    ]
