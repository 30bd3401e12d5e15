"""Rules over a whole pipeline that no single field can decide: references, cycles, origins, what is unused.

The same findings are printed by `bessemer lint` and become the condition Stalled with reason InvalidSpec. Pure; it must
not repeat what the models (and with them the API server) check already. Rules about gates stand in lint_gates.py.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from bessemer_api.v1alpha1.merge import Merge
from bessemer_api.v1alpha1.pipeline import PipelineSpec, Stage
from bessemer_operator.core.estimate import NOTHING, Known
from bessemer_operator.core.findings import Finding, Path, error, unknown, warning
from bessemer_operator.core.lineage import BASE, bank_node, data_node, mixture_node, ordered_work, origin, reads
from bessemer_operator.core.lint_alignment import alignment_findings
from bessemer_operator.core.lint_data import data_findings, missing_parents
from bessemer_operator.core.lint_gates import gate_findings
from bessemer_operator.core.lint_memory import memory_findings, repeat_findings
from bessemer_operator.core.lint_merges import merge_findings, merge_references
from bessemer_operator.core.lint_methods import method_findings
from bessemer_operator.core.lint_promotion import git_findings, promotion_findings
from bessemer_operator.core.merges import all_merges, made_from
from bessemer_operator.core.profile import Profile

Profiles = Mapping[str, Profile]
MAX_SOURCES = 30
"""Data sets and banks together whose contents resolve can report within 4,096 bytes."""


@dataclass(frozen=True)
class Subject:
    """The pipeline that is looked at, with what rules ask of it. `profiles` is None where they are not known."""

    spec: PipelineSpec
    profiles: Profiles | None = None
    known: Known = NOTHING

    @cached_property
    def stages(self) -> dict[str, Stage]:
        return {stage.name: stage for stage in self.spec.stages}

    @cached_property
    def merges(self) -> dict[str, Merge]:
        """Controls among them."""
        return {merge.name: merge for merge in all_merges(self.spec)}

    @property
    def controls(self) -> list[Merge]:
        """Merges that are built beside others."""
        declared = {id(merge) for merge in self.spec.merges}
        return [merge for merge in all_merges(self.spec) if id(merge) not in declared]

    def origin_method(self, stage: Stage) -> str:
        """Method of what the stage starts from; `base`, `merge`, or empty when there is nothing."""
        name = origin(self.spec, stage)
        if name in self.merges:
            return "merge"
        if name == BASE:
            return BASE if self.spec.base else ""
        if name not in self.stages:
            return ""
        stage = self.stages[name]
        return "extension" if stage.tokenizer is not None and stage.tokenizer.extend else stage.method

    def chain(self, name: str) -> list[str]:
        """`name` and every stage or merge that it descends from, nearest first. Only where there is no cycle."""
        names = [name]
        for found in names:
            names += [before for before in self._before(found) if before not in names]
        return names

    def _before(self, name: str) -> list[str]:
        if name in self.merges:
            return made_from(self.merges[name])
        before = origin(self.spec, self.stages[name]) if name in self.stages else None
        return [before] if before is not None else []

    def needed(self, name: str) -> set[str]:
        """`name`, and every stage whose output it or its ancestors start from or read. Only without a cycle."""
        names = set(self.chain(name))
        beside = [other for item in names if item in self.stages for other in reads(self.stages[item])]
        return names.union(*(self.needed(other) for other in beside))


def lint(spec: PipelineSpec, profiles: Profiles | None = None, known: Known = NOTHING) -> tuple[Finding, ...]:
    """Everything that is wrong or dubious, errors first. With `profiles`: names, world sizes and memory too.

    Rules that follow references run only when all references hold.
    """
    subject = Subject(spec, profiles, known)
    found = [*_run(_REFERENCE_RULES, subject), *merge_references(spec)]
    if not has_errors(found):
        found += [*data_findings(spec), *_run(_GRAPH_RULES, subject)]
        if not any(_cycles(subject)):
            found += [*method_findings(spec, subject.chain), *merge_findings(spec), *repeat_findings(spec, known)]
            found += alignment_findings(spec, subject.chain)
        found += memory_findings(spec, profiles, known) if profiles and not has_errors(found) else []
    found += [*gate_findings(spec), *promotion_findings(spec), *git_findings(spec, profiles or {})]
    return tuple(sorted(found, key=lambda finding: finding.severity))


def has_errors(found: Iterable[Finding]) -> bool:
    """Whether anything in it makes a pipeline invalid."""
    return any(finding.severity == "error" for finding in found)


def errors(spec: PipelineSpec, profiles: Profiles | None = None) -> tuple[Finding, ...]:
    """The findings for which a pipeline is not run."""
    return tuple(finding for finding in lint(spec, profiles) if finding.severity == "error")


Rule = Callable[[Subject], Iterable[Finding]]


def _run(rules: Iterable[Rule], subject: Subject) -> list[Finding]:
    return [finding for rule in rules for finding in rule(subject)]


def _each_stage(subject: Subject) -> Iterator[tuple[Path, Stage]]:
    for index, stage in enumerate(subject.spec.stages):
        yield ("spec", "stages", index), stage


# --- names and references ---------------------------------------------------------------------------------------


def _duplicates(subject: Subject) -> Iterator[Finding]:
    """The API server refuses these too; a local run has only this rule."""
    spec, evaluation = subject.spec, subject.spec.evaluation
    yield from _twice(("spec", "stages"), [stage.name for stage in spec.stages], "name")
    yield from _twice(("spec", "merges"), [merge.name for merge in spec.merges], "name")
    yield from _twice(("spec", "gates"), [gate.name for gate in spec.gates], "name")
    yield from _twice(("spec", "evaluation", "banks"), [bank.name for bank in evaluation.banks], "name")
    yield from _twice(("spec", "evaluation", "axes"), [axis.name for axis in evaluation.axes], "name")
    for index, gate in enumerate(spec.gates):
        yield from _twice(("spec", "gates", index, "axes"), [axis.name for axis in gate.axes], "name")
    for path, stage in _each_stage(subject):
        yield from _twice((*path, "data", "mixture"), [entry.ref for entry in stage.data.mixture], "ref")
    for name, data in spec.data.items():
        filters = ("spec", "data", name, "prepare", "filters")
        yield from _twice(filters, [rule.name for rule in data.prepare.filters], "name")


def _twice(path: Path, names: list[str], key: str) -> Iterator[Finding]:
    counts = Counter(names)
    for index, name in enumerate(names):
        if counts[name] > 1 and name in names[:index]:
            message = f'"{name}" is here twice'
            yield error((*path, index, key), "DuplicateName", message, "remove one, or give it another name")


def _taken_names(subject: Subject) -> Iterator[Finding]:
    """Stages and merges share one namespace of names with the work that a pipeline implies."""
    spec = subject.spec
    implied = {BASE: "the base model"}
    implied |= {bank_node(bank.name): f"bank {bank.name}" for bank in spec.evaluation.banks}
    implied |= {data_node(name): f"data set {name}" for name in spec.data}
    implied |= {mixture_node(s.name): f"the data of stage {s.name}" for s in spec.stages if s.method != "tokenizer"}
    implied |= {m.name: f"the control of merge {m.name.removesuffix('-linear')}" for m in subject.controls}
    for path, stage in _each_stage(subject):
        if stage.name in implied:
            message = f'the name "{stage.name}" is that of {implied[stage.name]}'
            yield error((*path, "name"), "NameTaken", message, "give the stage another name")
    implied |= {stage.name: f"stage {stage.name}" for stage in spec.stages}
    for index, merge in enumerate(spec.merges):
        if merge.name in implied:
            message = f'the name "{merge.name}" is that of {implied[merge.name]}'
            yield error(("spec", "merges", index, "name"), "NameTaken", message, "give the merge another name")


def _missing_data(subject: Subject) -> Iterator[Finding]:
    for path, stage in _each_stage(subject):
        for index, entry in enumerate(stage.data.mixture):
            if entry.ref not in subject.spec.data:
                here = (*path, "data", "mixture", index, "ref")
                yield unknown(here, "data set", entry.ref, subject.spec.data, "declare it in spec.data")
    yield from missing_parents(subject.spec)


def _missing_banks(subject: Subject) -> Iterator[Finding]:
    banks = [bank.name for bank in subject.spec.evaluation.banks]
    for name, data in subject.spec.data.items():
        against = data.prepare.decontaminate.against if data.prepare.decontaminate else []
        for index, bank in enumerate(against):
            if bank not in banks:
                path = ("spec", "data", name, "prepare", "decontaminate", "against", index)
                yield unknown(path, "bank", bank, banks, "declare it in spec.evaluation.banks")


def _missing_origins(subject: Subject) -> Iterator[Finding]:
    for path, stage in _each_stage(subject):
        known = {*subject.stages, *subject.merges, *([BASE] if subject.spec.base else [])} - {stage.name}
        for field, name in (("from", stage.from_), ("reward", stage.reward), ("reference", stage.reference)):
            if name is not None and name not in known:
                yield unknown((*path, field), "stage", name, known)


def _missing_gates(subject: Subject) -> Iterator[Finding]:
    gates = [gate.name for gate in subject.spec.gates]
    for path, stage in _each_stage(subject):
        if stage.gate is not None and stage.gate not in gates:
            yield unknown((*path, "gate"), "gate", stage.gate, gates, "declare it in spec.gates")


def _missing_profiles(subject: Subject) -> Iterator[Finding]:
    if subject.profiles is None:
        return
    named: list[tuple[Path, str]] = []
    named += [(("spec", "profiles", kind), name) for kind, name in subject.spec.profiles.wire().items()]
    named += [((*path, "profile"), stage.profile) for path, stage in _each_stage(subject) if stage.profile]
    merges = enumerate(subject.spec.merges)
    named += [(("spec", "merges", index, "profile"), merge.profile) for index, merge in merges if merge.profile]
    for path, name in named:
        if name not in subject.profiles:
            yield unknown(path, "profile", name, subject.profiles, "ask the cluster's administrator for one")


def _many_sources(subject: Subject) -> Iterator[Finding]:
    count = len(subject.spec.data) + len(subject.spec.evaluation.banks)
    if count > MAX_SOURCES:
        message = f"{count} data sets and banks: a pod can report the contents of {MAX_SOURCES}"
        yield error(
            ("spec", "data"), "TooManySources", message, "give a data set several sources, or make a second pipeline"
        )


def _relative_places(subject: Subject) -> Iterator[Finding]:
    """Local commands make paths absolute before; a cluster has nothing that they could be relative to."""
    spec = subject.spec
    places: list[tuple[Path, str]] = [(("spec", "store"), spec.store)]
    if spec.base:
        places.append((("spec", "base", "model"), spec.base.model))
    for name, data in spec.data.items():
        places += [(("spec", "data", name, "sources", i, "uri"), source.uri) for i, source in enumerate(data.sources)]
    for index, bank in enumerate(spec.evaluation.banks):
        tasks = ("spec", "evaluation", "banks", index, "tasks")
        places += [((*tasks, name, "uri"), task.uri) for name, task in bank.tasks.items() if task.uri]
    suites = spec.evaluation.regression
    places += [(("spec", "evaluation", "regression", i, "uri"), suite.uri) for i, suite in enumerate(suites)]
    for path, uri in places:
        if not uri.startswith(("s3://", "file:///", "/")):
            fix = "write s3://bucket/... or file:///... (a relative path is for local runs)"
            yield error(path, "RelativeUri", f'"{uri}" is no absolute place', fix)


# --- the graph --------------------------------------------------------------------------------------------------


def _cycles(subject: Subject) -> Iterator[Finding]:
    try:
        ordered_work(subject.spec)
    except ValueError as cycle:
        fix = "a stage waits for what it starts from (`from`, else the stage before it) and for its gate's baseline, a"
        fix += " merge for its parents and its base"
        fix += "; change one of them"
        yield error(("spec", "stages"), "Cycle", str(cycle), fix)


def _wrong_origins(subject: Subject) -> Iterator[Finding]:
    for path, stage in _each_stage(subject):
        found = subject.origin_method(stage)
        name = origin(subject.spec, stage)
        kind = "the base model" if name == BASE else found if found == "merge" else f"{found} stage"
        start = f'{stage.method} starts from {kind} "{name}"'
        start = start if found else f"{stage.method} has nothing to start from"
        if stage.method == "pretrain" and found != "tokenizer":
            fix = "put a stage of method tokenizer before it, or name one in `from`"
            yield error((*path, "from"), "NeedsTokenizer", f"{start}, not from a tokenizer", fix)
        is_new = stage.tokenizer is not None and stage.tokenizer.extend is None
        if stage.method != "pretrain" and not is_new and found in {"", "tokenizer", "reward"}:
            fix = "set spec.base, or start it from a stage that trains a model"
            yield error((*path, "from"), "NeedsCheckpoint", f"{start}, not from a checkpoint", fix)
        if is_new and stage.from_ is not None:
            message = "a new tokenizer starts from data alone; `from` has no effect"
            yield warning((*path, "from"), "NoEffect", message, "remove it")


def _long_sequences(subject: Subject) -> Iterator[Finding]:
    if any(_cycles(subject)):
        return
    for path, stage in _each_stage(subject):
        shapes = [subject.stages[name].model for name in subject.chain(stage.name) if name in subject.stages]
        shape = next((shape for shape in shapes if shape is not None), None)
        if stage.train and shape is not None and stage.data.sequence_length > shape.max_positions:
            message = f"{stage.data.sequence_length} tokens, but the model is made for {shape.max_positions}"
            fix = "shorten it, or raise model.maxPositions of the pretrain stage"
            yield error((*path, "data", "sequenceLength"), "SequenceTooLong", message, fix)


def _batches(subject: Subject) -> Iterator[Finding]:
    """Every rank does the same number of forward passes in one optimizer step."""
    for path, stage in _each_stage(subject):
        if stage.train is None:
            continue
        profile = (subject.profiles or {}).get(stage.profile or subject.spec.profiles.train)
        ranks = stage.nodes * (profile.ranks if profile else 1)
        examples = stage.train.global_batch_examples
        sequences = examples or stage.train.global_batch_tokens // stage.data.sequence_length
        at_once = ranks * stage.deepspeed.micro_batch_size
        if sequences % at_once:
            many = f"{ranks} ranks" if profile else f"{stage.nodes} nodes (of one rank at least)"
            message = f"{sequences} sequences in a step can not be shared by {many} at microBatchSize"
            message += f" {stage.deepspeed.micro_batch_size}"
            field, size = ("globalBatchExamples", 1) if examples else ("globalBatchTokens", stage.data.sequence_length)
            fix = f"make {field} a multiple of {at_once * size}"
            yield error((*path, "train", field), "UnevenBatch", message, fix)


# --- what is unused ---------------------------------------------------------------------------------------------


def _unused_data(subject: Subject) -> Iterator[Finding]:
    used = {entry.ref for stage in subject.spec.stages for entry in stage.data.mixture}
    used |= {merge.held_out for merge in subject.spec.merges if merge.held_out}
    used |= {data.derive.from_ for data in subject.spec.data.values() if data.derive}
    for name in subject.spec.data:
        if name not in used:
            path = ("spec", "data", name)
            yield warning(path, "Unused", "no stage reads this data set, yet it is prepared", "remove it")


def _unused_stages(subject: Subject) -> Iterator[Finding]:
    """Only where something is promoted: else each branch may be an end in itself."""
    if subject.spec.promotion is None or any(_cycles(subject)):
        return
    baselines = [gate.baseline for gate in subject.spec.gates]
    ends = [*subject.spec.promotion.candidates, *(stage.name for stage in subject.spec.stages if stage.gate)]
    ends += [name for b in baselines for name in (b.stage, b.or_else and b.or_else.stage) if name]
    ends += [name for gate in subject.spec.gates for name in gate.also_against]
    used = {name for end in ends for name in subject.needed(end)}
    for path, stage in _each_stage(subject):
        if stage.name not in used:
            message = f'nothing that is gated or promoted comes from stage "{stage.name}"'
            yield warning(path, "Unused", message, "remove it, or name it in promotion.candidates")
    for index, merge in enumerate(subject.spec.merges):
        if merge.name not in used:
            message = f'nothing that is gated or promoted comes from merge "{merge.name}"'
            yield warning(("spec", "merges", index), "Unused", message, "remove it, or name it in promotion.candidates")
    if subject.spec.base is not None and BASE not in used and not _compares_with_base(subject.spec):
        yield warning(("spec", "base"), "Unused", "no stage and no gate uses the base model", "remove it")


def _compares_with_base(spec: PipelineSpec) -> bool:
    baselines = [gate.baseline for gate in spec.gates]
    return any(b.base or (b.or_else is not None and b.or_else.base) for b in baselines)


def _lone_weights(subject: Subject) -> Iterator[Finding]:
    for path, stage in _each_stage(subject):
        only = stage.data.mixture[0]
        if len(stage.data.mixture) == 1 and only.weight != 1:
            message = f"a weight of {only.weight:g} has no effect on the only data set of a stage"
            yield warning((*path, "data", "mixture", 0, "weight"), "NoEffect", message, "remove it")


def _nothing_learned(subject: Subject) -> Iterator[Finding]:
    for path, stage in _each_stage(subject):
        if stage.train is not None and stage.train.learning_rate == 0:
            message = "a learning rate of 0 changes no weight"
            yield warning((*path, "train", "learningRate"), "NoEffect", message, "set a rate, for example 2e-5")


def _empty(subject: Subject) -> Iterator[Finding]:
    spec = subject.spec
    if not spec.stages and spec.promotion is None:
        message = "there is nothing to do: no stages and no promotion"
        yield warning(("spec",), "Empty", message, "add stages, or a gate and a promotion that judge the base model")


_REFERENCE_RULES: tuple[Rule, ...] = (
    _duplicates,
    _taken_names,
    _missing_data,
    _missing_banks,
    _missing_origins,
    _missing_gates,
    _missing_profiles,
    _relative_places,
    _many_sources,
)
_GRAPH_RULES: tuple[Rule, ...] = (
    _cycles,
    _wrong_origins,
    _long_sequences,
    _batches,
    _unused_data,
    _unused_stages,
    _lone_weights,
    _nothing_learned,
    _empty,
)
