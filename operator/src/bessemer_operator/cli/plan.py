"""`bessemer plan FILE`: what would run and what would be reused, as far as can be known before. Changes nothing.

What a source holds is known only from earlier work on the same place, so the answer says "if the sources are as they
were". The rest is reconcile's own lineage.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_api.v1alpha1.stage import TRAINING_METHODS, TrainingStage
from bessemer_operator.core.lineage import Facts, Node, build_nodes
from bessemer_operator.core.naming import short
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.regression import SUITES, suite_tasks

Fate = Literal["reuse", "run", "later"]


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work. `later`: its inputs are known only when what it waits for is done."""

    name: str
    method: str
    fate: Fate
    pods: int
    ranks: int
    after: tuple[str, ...]
    output: str | None

    def wire(self) -> dict[str, Any]:
        """As a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


def make_steps(
    spec: PipelineSpec, work: Iterable[TrainingStage | MergeJob], profiles: Mapping[str, Profile]
) -> list[Step]:
    """All work of a pipeline in order; `work` is what earlier runs left."""
    return [_step(node, profiles) for node in known_nodes(spec, work).values()]


def known_nodes(spec: PipelineSpec, work: Iterable[TrainingStage | MergeJob]) -> dict[str, Node]:
    """The pieces of work by name, with the outputs that earlier runs left."""
    known = list(work)
    outputs = {
        stage.spec.input_digest: stage.status.output_digest
        for stage in known
        if stage.status.phase == "Succeeded" and stage.status.output_digest is not None
    }
    stages = [item for item in known if isinstance(item, TrainingStage)]
    facts = Facts(known_contents(spec, stages), outputs, lambda stage, output, nodes: "")
    return build_nodes(spec, facts)


def _step(node: Node, profiles: Mapping[str, Profile]) -> Step:
    fate: Fate = "reuse" if node.output else "run" if node.inputs is not None or not node.after else "later"
    trains = node.method in TRAINING_METHODS
    pods = node.stage.nodes if trains and node.stage else 1
    profile = profiles.get(node.profile)
    ranks = pods * profile.ranks if trains and profile else pods
    return Step(node.name, node.method, fate, pods, ranks, node.after, node.output)


def known_contents(spec: PipelineSpec, stages: Iterable[TrainingStage]) -> dict[str, str]:
    """Digests of sources as earlier work found them, under the names that a resolve reports them by."""
    contents: dict[str, str] = {}
    for stage in stages:
        inputs = stage.spec.inputs
        if inputs.base and spec.base and inputs.base.source.uri == spec.base.model:
            contents["base"] = inputs.base.content
        for name, data in spec.data.items():
            if inputs.prepare and data.sources and inputs.prepare.sources == data.sources:
                contents[f"data/{name}"] = inputs.prepare.content
        for bank in spec.evaluation.banks:
            if inputs.bank and inputs.bank.tasks == bank.tasks:
                contents[f"bank/{bank.name}"] = inputs.bank.content
        if inputs.bank and inputs.bank.whole and inputs.bank.tasks == suite_tasks(spec.evaluation):
            contents[f"bank/{SUITES}"] = inputs.bank.content
    return contents


def as_lines(steps: Iterable[Step]) -> list[str]:
    """The plan as text."""
    listed = list(steps)
    width = max((len(step.name) for step in listed), default=0)
    lines = [f"{step.fate:<6} {step.name:<{width}}  {_note(step)}" for step in listed]
    reused = sum(step.fate == "reuse" for step in listed)
    note = ", if the sources are as they were" if reused else ""
    return [*lines, f"{reused} of {len(listed)} reused{note}."]


def _note(step: Step) -> str:
    if step.output is not None:
        return f"{step.method}, sha256:{short(step.output, 12)}"
    where = f", {step.pods} pods, {step.ranks} ranks" if step.ranks > 1 else ""
    return f"{step.method}{where}" + (f", after {', '.join(step.after)}" if step.after else "")
