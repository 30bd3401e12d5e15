"""Strategies side by side: what differs in how candidates were made, what the stored comparisons showed, what it cost.

Pure. Every number is one that a gate, a diagnostic or a pod left in a status: nothing is measured or computed anew, and
two strategies are only compared directly where a gate compared exactly these two.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bessemer_api.v1alpha1.diagnostic import DiagnosticSummary
from bessemer_api.v1alpha1.evaluation import WorkStatus
from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, AxisSummary, GateSummary, PipelineSpec
from bessemer_api.v1alpha1.promotion import CandidateSummary
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core.lineage import BASE, mixture_node, origin
from bessemer_operator.core.merges import all_merges, made_from
from bessemer_operator.core.profile import Profile

Work = TrainingStage | MergeJob
SEEDS_FOR_A_CLAIM = 3
"""Item errors describe a checkpoint; a strategy is only described by several of its seeds."""
_HOW_IT_RUNS = frozenset({"name", "limits", "profile", "nodes", "deepspeed", "checkpoint", "gate", "from", "seed"})


@dataclass(frozen=True, slots=True)
class Resources:
    """What a strategy's work took, by the records of its attempts; what other pipelines had made is not in it.

    `processor_seconds`: seconds of attempts times processes. `unknown`: work of which no record is left.
    """

    gpu_hours: float
    processor_hours: float
    tokens: int
    steps: int
    attempts: int
    reused: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Strategy:
    """One candidate: how it was made and all that is stored about it."""

    pipeline: str
    candidate: str
    digest: str | None
    seed: int
    approach: tuple[str, ...]
    settings: Mapping[str, str]
    gates: tuple[GateSummary, ...]
    dev: CandidateSummary | None
    alarms: tuple[DiagnosticSummary, ...]
    unmeasured: tuple[str, ...]
    resources: Resources

    @property
    def name(self) -> str:
        """Of the candidate within its pipeline."""
        return f"{self.pipeline}/{self.candidate}"

    @property
    def recipe(self) -> tuple[tuple[str, str], ...]:
        """How it is made but for its seed: equal recipes with several seeds describe a strategy."""
        return tuple(sorted(self.settings.items()))


def strategies_of(
    pipeline: AdaptationPipeline, work: Iterable[Work], profiles: Mapping[str, Profile]
) -> tuple[Strategy, ...]:
    """The candidates of a pipeline; without a promotion, what no other stage or merge goes on from."""
    spec, by_name = pipeline.spec, {item.metadata.name: item for item in work}
    names = spec.promotion.candidates if spec.promotion else _ends(spec)
    return tuple(_strategy(pipeline, name, by_name, profiles) for name in names)


def _ends(spec: PipelineSpec) -> list[str]:
    used = {origin(spec, stage) for stage in spec.stages} | {n for merge in all_merges(spec) for n in made_from(merge)}
    names = [*(stage.name for stage in spec.stages), *(merge.name for merge in all_merges(spec))]
    return [name for name in names if name not in used]


def _strategy(
    pipeline: AdaptationPipeline, name: str, work: Mapping[str, Work], profiles: Mapping[str, Profile]
) -> Strategy:
    spec, status = pipeline.spec, pipeline.status
    line = path_to(spec, name)
    digest = next((row.output_digest for row in status.stages if row.name == name), None)
    mine = {*line, *(mixture_node(item) for item in line)}
    found = [item for item in status.diagnostics if item.subject in mine]
    return Strategy(
        pipeline=pipeline.metadata.name,
        candidate=name,
        digest=digest,
        seed=spec.seed,
        approach=tuple(_words(spec, item) for item in line),
        settings=settings_of(spec, line),
        gates=tuple(gate for gate in status.gates if digest is not None and gate.candidate == digest),
        dev=next((item for item in status.candidates if item.name == name), None),
        alarms=tuple(item for item in found if item.state == "Alarm"),
        unmeasured=tuple(f"{item.name} of {item.subject}" for item in found if item.state == "NotMeasured"),
        resources=_resources(pipeline, mine, work, profiles),
    )


# --- how it was made --------------------------------------------------------------------------------------------


def path_to(spec: PipelineSpec, name: str) -> tuple[str, ...]:
    """Stages and merges that lead to a candidate, oldest first; of a merge along all of its parents."""
    merges, stages = {merge.name: merge for merge in all_merges(spec)}, {stage.name: stage for stage in spec.stages}
    found: list[str] = []

    def visit(item: str) -> None:
        if item in found or (item not in merges and item not in stages):
            return
        before = made_from(merges[item]) if item in merges else [origin(spec, stages[item])]
        for other in before:
            if other is not None and other != BASE:
                visit(other)
        found.append(item)

    visit(name)
    return tuple(found)


def _words(spec: PipelineSpec, name: str) -> str:
    merge = next((merge for merge in all_merges(spec) if merge.name == name), None)
    if merge is not None:
        return f"{merge.method} of {' and '.join(made_from(merge))}"
    return next(stage.method for stage in spec.stages if stage.name == name)


def settings_of(spec: PipelineSpec, line: Sequence[str]) -> dict[str, str]:
    """Everything that determines the result of a candidate, as `stage.field: value`; how it is run is left out."""
    merges = {merge.name: merge.wire() for merge in all_merges(spec)}
    stages = {stage.name: stage.wire() for stage in spec.stages}
    found: dict[str, str] = {"base": spec.base.model if spec.base else "none, from random weights"}
    for name in line:
        document = merges.get(name) or stages[name]
        kept = {key: value for key, value in document.items() if key not in _HOW_IT_RUNS}
        found |= _flat(name, kept)
        for entry in document.get("data", {}).get("mixture", []):
            sources = [source.uri for source in spec.data[entry["ref"]].sources]
            found[f"data {entry['ref']}"] = ", ".join(sources) or "derived"
    return found


def _flat(path: str, value: Any) -> dict[str, str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: text for name, item in value.items() for key, text in _flat(f"{path}.{name}", item).items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {k: text for index, item in enumerate(value) for k, text in _flat(f"{path}[{index}]", item).items()}
    return {path: str(value)}


def differences(strategies: Sequence[Strategy]) -> dict[str, tuple[str, ...]]:
    """Settings in which the strategies differ, with the value of each; `-` where one has no such setting."""
    names = sorted({name for strategy in strategies for name in strategy.settings})
    values = {name: tuple(strategy.settings.get(name, "-") for strategy in strategies) for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}


# --- what it took -----------------------------------------------------------------------------------------------


def _resources(
    pipeline: AdaptationPipeline, names: set[str], work: Mapping[str, Work], profiles: Mapping[str, Profile]
) -> Resources:
    rows = [row for row in pipeline.status.stages if row.name in names]
    known = [(row, work[row.object]) for row in rows if row.object in work]
    spent = [(item, _seconds(item.status)) for row, item in known if not row.reused]
    trained = [item for item, _ in spent if isinstance(item, TrainingStage) and item.spec.inputs.train is not None]
    return Resources(
        gpu_hours=sum(seconds * _gpus(item, profiles) for item, seconds in spent) / 3600,
        processor_hours=sum(seconds * _processes(item, profiles) for item, seconds in spent) / 3600,
        tokens=round(sum(item.status.metrics.get("tokens", 0.0) for item in trained)),
        steps=round(sum(item.status.metrics.get("steps", 0.0) for item in trained)),
        attempts=sum(len(item.status.attempts) for item, _ in spent),
        reused=tuple(row.name for row, _ in known if row.reused),
        unknown=tuple(row.name for row in rows if row.object not in work),
    )


def _seconds(status: WorkStatus) -> float:
    """Wall time of all attempts that ended."""
    ended = [item for item in status.attempts if item.started_at and item.finished_at]
    stamp = datetime.fromisoformat
    return sum((stamp(item.finished_at) - stamp(item.started_at)).total_seconds() for item in ended)


def _pods(item: Work) -> int:
    return item.spec.nodes if isinstance(item, TrainingStage) else 1


def _gpus(item: Work, profiles: Mapping[str, Profile]) -> int:
    profile = profiles.get(item.spec.profile)
    return _pods(item) * profile.gpus if profile else 0


def _processes(item: Work, profiles: Mapping[str, Profile]) -> int:
    profile = profiles.get(item.spec.profile)
    trains = isinstance(item, TrainingStage) and item.spec.inputs.train is not None
    return _pods(item) * (profile.ranks if profile and trains else 1)


# --- what may be said -------------------------------------------------------------------------------------------


def direct(one: Strategy, other: Strategy) -> GateSummary | None:
    """The stored comparison of exactly these two, if a gate ever made it."""
    return next((gate for gate in one.gates if other.digest is not None and gate.baseline == other.digest), None)


def share_a_baseline(strategies: Sequence[Strategy]) -> bool:
    """Whether all were judged against one and the same checkpoint."""
    baselines = {gate.baseline for strategy in strategies for gate in strategy.gates}
    return len(baselines) == 1 and all(strategy.gates for strategy in strategies)


def seeds_sentence(strategies: Sequence[Strategy]) -> str:
    """How many seeds each recipe was run with, and what that allows to say."""
    seeds: dict[tuple[tuple[str, str], ...], set[int]] = {}
    for strategy in strategies:
        seeds.setdefault(strategy.recipe, set()).add(strategy.seed)
    fewest = min(map(len, seeds.values()), default=0)
    if fewest >= SEEDS_FOR_A_CLAIM:
        return f"{fewest} seeds or more of each recipe."
    few = "One seed" if fewest == 1 else f"{fewest} seeds"
    return (
        f"{few}: intervals describe these checkpoints, not the recipes; another seed may give another order. "
        f"{SEEDS_FOR_A_CLAIM} seeds of each recipe are needed to say that one is better."
    )


def scenarios(strategy: Strategy) -> tuple[str, ...]:
    """For what this candidate is suited, by rule: from the states of its axes, its alarms and its verdict alone."""
    axes = {axis.name: axis for gate in strategy.gates for axis in gate.axes}
    won = [name for name, axis in axes.items() if axis.state == "Won"]
    worse = [name for name, axis in axes.items() if axis.state == "Worse"]
    open_ = [name for name, axis in axes.items() if axis.state == "NotShown"]
    if not axes:
        return ("not judged: dev figures choose, they do not show",) if strategy.dev else ("not judged",)
    said = [f"where {name} counts: it was shown to gain" for name in won]
    said += [f"not where {name} counts: it was shown to lose" for name in worse]
    said += [f"where {', '.join(open_)} may not fall, only after more items: not shown to hold"] if open_ else []
    if not won and not worse:
        said.append("no gain was shown: keep the baseline unless it is cheaper")
    said += [f"look at {item.name} of {item.subject} first: {item.message}" for item in strategy.alarms[:3]]
    return tuple(said)


def axes_shown(strategies: Sequence[Strategy]) -> list[str]:
    """Names of all axes of the gates of these strategies, in order."""
    return list(dict.fromkeys(axis.name for s in strategies for gate in s.gates for axis in gate.axes))


def axis_of(strategy: Strategy, name: str) -> AxisSummary | None:
    """The result of an axis by the last gate that judged the strategy."""
    found = [axis for gate in strategy.gates for axis in gate.axes if axis.name == name]
    return found[-1] if found else None
