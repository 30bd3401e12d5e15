"""Lint rules about gates and promotion: what they measure, against whom, and whether that can show anything."""

import math
from collections.abc import Iterator

from bessemer_api.v1alpha1.evaluation import Bank
from bessemer_api.v1alpha1.gate import Gate
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_operator.core.findings import Finding, Path, error, nearest, unknown, warning
from bessemer_operator.core.gate import MIN_CLUSTERS, designed_margin
from bessemer_operator.core.lineage import BASE
from bessemer_operator.core.merges import all_merges

MAX_AXES = 8
"""Axes of which a comparison can report within 4,096 bytes; an axis that must only hold counts as `HOLD_SHARE`."""
HOLD_SHARE = 0.75


def gate_findings(spec: PipelineSpec) -> list[Finding]:
    """All findings about gates, banks, axes and promotion."""
    found: list[Finding] = []
    for index, gate in enumerate(spec.gates):
        path: Path = ("spec", "gates", index)
        found += [*_axes(spec, gate, path), *_items(spec, gate, path), *_use(spec, gate, path)]
        found += [*_baseline(spec, gate, path), *_also(spec, gate, path), *_contaminated(spec, gate, path)]
        found += _suites(spec, gate, path)
    return [*found, *_banks(spec)]


def users(spec: PipelineSpec, gate: str) -> list[str]:
    """What a gate judges: stages by name, and the candidates of the promotion."""
    stages = [stage.name for stage in spec.stages if stage.gate == gate]
    is_release = spec.promotion is not None and spec.promotion.gate == gate
    return [*stages, *(spec.promotion.candidates if is_release and spec.promotion else [])]


def bank_for(spec: PipelineSpec, gate: Gate) -> Bank | None:
    """The bank that has items for every axis of the gate."""
    names = {axis.name for axis in gate.axes}
    return next((bank for bank in spec.evaluation.banks if names <= bank.tasks.keys()), None)


# --- measurement ------------------------------------------------------------------------------------------------


def _axes(spec: PipelineSpec, gate: Gate, path: Path) -> Iterator[Finding]:
    known = {axis.name for axis in spec.evaluation.axes}
    for index, axis in enumerate(gate.axes):
        if axis.name not in known:
            yield unknown(
                (*path, "axes", index, "name"), "axis", axis.name, known, "declare it in spec.evaluation.axes"
            )
    yield from _many_axes(gate, path)
    if bank_for(spec, gate) is None:
        names = ", ".join(axis.name for axis in gate.axes)
        fix = "give one bank in spec.evaluation.banks a task under each of these names"
        yield error((*path, "axes"), "NotMeasured", f"no bank has items for all axes of the gate ({names})", fix)


def _many_axes(gate: Gate, path: Path) -> Iterator[Finding]:
    """Against a channel every axis may have an anchor of its own, which is reported too; so is what holds besides."""
    others = sum(len(axes) for axes in gate.also_against.values())
    anchors = len(gate.axes) if gate.baseline.channel else 0
    if len(gate.axes) + HOLD_SHARE * (anchors + others) <= MAX_AXES:
        return
    most = int((MAX_AXES - HOLD_SHARE * others) / (1 + HOLD_SHARE if gate.baseline.channel else 1))
    against = "against a channel, whose anchors count too" if gate.baseline.channel else "against this baseline"
    besides = f", and {others} further comparisons" if others else ""
    message = f"{len(gate.axes)} axes {against}{besides}: a pod can report {max(most, 0)}"
    yield error((*path, "axes"), "TooManyAxes", message, "gate on fewer axes, or split the gate")


def _items(spec: PipelineSpec, gate: Gate, path: Path) -> Iterator[Finding]:
    bank = bank_for(spec, gate)
    for index, look in enumerate(gate.looks):
        if bank is not None and look > bank.gate:
            message = f"a look at {look} items, but bank {bank.name} has {bank.gate} for gating"
            yield error((*path, "looks", index), "TooFewItems", message, "raise `gate` of the bank, or look earlier")
    if gate.looks[0] < MIN_CLUSTERS:
        message = f"{gate.looks[0]} items are never evidence; a look needs {MIN_CLUSTERS} clusters at least"
        yield error((*path, "looks", 0), "TooFewItems", message, f"look at {MIN_CLUSTERS} items or more")
    yield from _margins(spec, gate, path)


def _suites(spec: PipelineSpec, gate: Gate, path: Path) -> Iterator[Finding]:
    """A veto by cases that do not exist could never fire, and would be an error in the comparison."""
    if "regression" in gate.vetoes and not spec.evaluation.regression:
        message = "the veto regression has no cases: spec.evaluation.regression is empty"
        yield error((*path, "vetoes"), "NoSuites", message, "add a suite, or remove the veto")


def _margins(spec: PipelineSpec, gate: Gate, path: Path) -> Iterator[Finding]:
    """Axes of right and wrong answers whose margin the last look can not show; the gate would end as Underpowered."""
    binary = {axis.name for axis in spec.evaluation.axes if axis.measure.is_binary and axis.answers == 1}
    shown = designed_margin(gate)
    for index, axis in enumerate(gate.axes):
        if axis.name in binary and axis.not_worse_than < shown:
            needed = math.ceil(gate.looks[-1] * (shown / axis.not_worse_than) ** 2)
            message = f"{gate.looks[-1]} items can show a margin of {shown:.3f}, not {axis.not_worse_than:g}"
            fix = f"look at about {needed} items, or accept a larger margin"
            yield error((*path, "axes", index, "notWorseThan"), "Underpowered", message, fix)


def _banks(spec: PipelineSpec) -> Iterator[Finding]:
    gated = {axis.name for gate in spec.gates for axis in gate.axes}
    axes = {axis.name for axis in spec.evaluation.axes}
    for index, axis in enumerate(spec.evaluation.axes):
        if axis.name not in gated:
            path: Path = ("spec", "evaluation", "axes", index)
            yield warning(path, "Unused", f'no gate asks for axis "{axis.name}"', "remove it, or use it in a gate")
    used = {bank.name for gate in spec.gates if (bank := bank_for(spec, gate))}
    for data in spec.data.values():
        used |= set(data.prepare.decontaminate.against if data.prepare.decontaminate else ())
    for index, bank in enumerate(spec.evaluation.banks):
        path = ("spec", "evaluation", "banks", index)
        if bank.name not in used:
            yield warning(path, "Unused", f'no gate uses bank "{bank.name}"', "remove it")
        for task in sorted(bank.tasks.keys() - axes):
            fix = nearest(task, axes, "declare it in spec.evaluation.axes, or remove it")
            yield warning((*path, "tasks", task), "Unused", f'there is no axis "{task}"', fix)


def _contaminated(spec: PipelineSpec, gate: Gate, path: Path) -> Iterator[Finding]:
    bank = bank_for(spec, gate)
    if bank is None or not users(spec, gate.name):
        return
    trained = {entry.ref for stage in spec.stages for entry in stage.data.mixture} & spec.data.keys()
    for name in sorted(trained):
        rules = spec.data[name].prepare.decontaminate
        if rules is None or bank.name not in rules.against:
            message = (
                f"data set {name} is not decontaminated against bank {bank.name}, which gate {gate.name} judges by"
            )
            fix = f"add prepare.decontaminate: {{against: [{bank.name}]}}"
            yield warning(("spec", "data", name, "prepare"), "NotDecontaminated", message, fix)


# --- whom it judges, and against whom ---------------------------------------------------------------------------


def _use(spec: PipelineSpec, gate: Gate, path: Path) -> Iterator[Finding]:
    stages = [stage.name for stage in spec.stages if stage.gate == gate.name]
    candidates = users(spec, gate.name)[len(stages) :]
    judged = [*stages, *([" or ".join(candidates)] if candidates else [])]  # of several candidates it judges one
    if not judged:
        message = f'nothing is judged by gate "{gate.name}"'
        yield warning(path, "Unused", message, "name it in a stage or in promotion, or remove it")
    if len(judged) > 1:
        message = f"gate {gate.name} judges {' and '.join(judged)}; a gate has one verdict"
        yield error((*path, "name"), "GateShared", message, "write a gate of its own for each")


def _baseline(spec: PipelineSpec, gate: Gate, path: Path) -> Iterator[Finding]:
    baseline = gate.baseline
    here = (*path, "baseline")
    needs_base = baseline.base or (baseline.or_else is not None and baseline.or_else.base)
    if needs_base and spec.base is None:
        yield error(here, "NoBase", "the pipeline has no base model to compare with", "set spec.base, or name a stage")
    named = [((*here, "stage"), baseline.stage)]
    named += [((*here, "orElse", "stage"), baseline.or_else.stage)] if baseline.or_else else []
    for place, name in named:
        if name is not None:
            yield from _baseline_stage(spec, gate, place, name)
    for judged in users(spec, gate.name) if baseline.stage_input else []:
        yield from _stage_input(spec, here, judged)


def _baseline_stage(spec: PipelineSpec, gate: Gate, path: Path, name: str) -> Iterator[Finding]:
    stages = {stage.name: stage for stage in spec.stages}
    judged = users(spec, gate.name)
    known = checkpoint_names(spec)
    if name not in stages and name not in known:
        yield unknown(path, "stage", name, known)
    elif name not in known:
        made = "a tokenizer" if stages[name].method == "tokenizer" else "a reward model"
        message = f'stage "{name}" makes {made}, no checkpoint that answers'
        yield error(path, "NoCheckpoint", message, "name a stage that trains a model")
    elif name in judged:
        yield error(path, "ComparedWithItself", f'gate {gate.name} would compare "{name}" with itself', "name another")


def _also(spec: PipelineSpec, gate: Gate, path: Path) -> Iterator[Finding]:
    """What a gate compares with besides its baseline."""
    for name in gate.also_against:
        here = (*path, "alsoAgainst", name)
        if name != BASE:
            yield from _baseline_stage(spec, gate, here, name)
        elif spec.base is None:
            yield error(here, "NoBase", "the pipeline has no base model to compare with", "set spec.base")


def _stage_input(spec: PipelineSpec, path: Path, judged: str) -> Iterator[Finding]:
    stage = next((stage for stage in spec.stages if stage.name == judged), None)
    if stage is None or stage.method == "pretrain":
        message = f'"{judged}" starts from no checkpoint that it could be compared with'
        yield error((*path, "stageInput"), "NoCheckpoint", message, "name a stage, a channel or the base instead")


def checkpoint_names(spec: PipelineSpec) -> list[str]:
    """Stages and merges that make a checkpoint which answers."""
    stages = [stage.name for stage in spec.stages if stage.method not in {"tokenizer", "reward"}]
    return [*stages, *(merge.name for merge in all_merges(spec))]
