"""Lineage: which pieces of work a pipeline consists of, what each is made from, and which inputs are known already.

A node's identity is the digest of its inputs; inputs are known once everything before it has an output digest. So an
edit changes the identity of exactly the nodes that depend on it, and everything else is found by its digest.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bessemer_api.digest import input_digest
from bessemer_api.v1alpha1.data import DataSet, Prepare, Source
from bessemer_api.v1alpha1.merge import Merge, MergeInputs
from bessemer_api.v1alpha1.pipeline import PipelineSpec, Stage
from bessemer_api.v1alpha1.stage import (
    FORMATS,
    BankInputs,
    BaseInputs,
    MixtureInputs,
    MixturePart,
    PrepareInputs,
    StageInputs,
)
from bessemer_operator.core.merges import BASE_NODE, all_merges, made_from, merge_inputs, names_of
from bessemer_operator.core.regression import SUITES, suite_stage

BASE = BASE_NODE
"""`from: base` starts a stage from the base model."""


@dataclass(frozen=True, slots=True)
class Node:
    """One TrainingStage or MergeJob to be. `inputs` is None while something before it has no output yet."""

    name: str
    method: str
    after: tuple[str, ...]
    inputs: StageInputs | MergeInputs | None
    profile: str
    stage: Stage | None = None
    merge: Merge | None = None
    output: str | None = None
    held: str = ""

    @property
    def digest(self) -> str | None:
        """Identity; None while inputs are not known."""
        return None if self.inputs is None else input_digest(self.inputs)

    @property
    def settings(self) -> dict[str, object]:
        """Fields of a StageSpec or MergeSpec that are not part of the identity."""
        if self.merge is not None:
            return {"limits": self.merge.limits, "parent_names": names_of(self.merge)}
        if self.stage is None:
            return {}
        settings: dict[str, object] = {"limits": self.stage.limits}
        if self.method not in {"mixture", "tokenizer"}:
            settings |= {
                "nodes": self.stage.nodes,
                "deepspeed": self.stage.deepspeed,
                "checkpoint": self.stage.checkpoint,
            }
        return settings


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the world: pinned contents of sources, outputs by input digest, gates that hold a stage back."""

    contents: Mapping[str, str]
    outputs: Mapping[str, str]
    hold: Callable[[Stage, str, Mapping[str, Node]], str]
    rerun: tuple[str, str] | None = None


def bank_node(name: str) -> str:
    """Name of the node that prepares a bank."""
    return f"bank-{name}"


def data_node(name: str) -> str:
    """Name of the node that prepares a data set."""
    return f"data-{name}"


def mixture_node(stage: str) -> str:
    """Name of the node that makes the shards of a stage."""
    return f"{stage}-data"


def origin(spec: PipelineSpec, stage: Stage) -> str | None:
    """Name of the node whose output the stage starts from; None for a new tokenizer or a first stage without a base."""
    if stage.tokenizer is not None and stage.tokenizer.extend is None:
        return None
    if stage.from_ is not None:
        return stage.from_
    position = [item.name for item in spec.stages].index(stage.name)
    if position > 0:
        return spec.stages[position - 1].name
    return BASE if spec.base is not None else None


def predecessors(spec: PipelineSpec, item: Stage | Merge) -> list[str]:
    """Names of the stages and merges that must come before: what it starts from, reads, merges or is compared with.

    A merge that is its own parent comes before itself, which is a cycle like any other.
    """
    if isinstance(item, Merge):
        return [name for name in made_from(item) if name in names_of_work(spec)]
    gate = next((gate for gate in spec.gates if gate.name == item.gate), None)
    baselines = [gate.baseline, gate.baseline.or_else] if gate else []
    names = [origin(spec, item), *reads(item), *(found.stage for found in baselines if found is not None)]
    names += list(gate.also_against) if gate else []
    known = names_of_work(spec) - {item.name}
    return [name for name in dict.fromkeys(names) if name in known]


def reads(stage: Stage) -> list[str]:
    """Names of the nodes whose output the stage reads beside the one that it starts from."""
    return [name for name in (stage.reward, stage.reference) if name is not None]


def names_of_work(spec: PipelineSpec) -> set[str]:
    """Names of all stages and merges, controls among them."""
    return {*(stage.name for stage in spec.stages), *(merge.name for merge in all_merges(spec))}


def ordered_work(spec: PipelineSpec) -> list[Stage | Merge]:
    """Stages and merges so that each comes after its predecessors; ValueError names the members of a cycle."""
    work: tuple[Stage | Merge, ...] = (*spec.stages, *all_merges(spec))
    by_name = {item.name: item for item in work}
    done: dict[str, Stage | Merge] = {}

    def visit(item: Stage | Merge, path: tuple[str, ...]) -> None:
        if item.name in path:
            cycle = [*path[path.index(item.name) :], item.name]
            raise ValueError(f"stages wait for each other in a cycle: {' -> '.join(cycle)}")
        if item.name in done:
            return
        for name in predecessors(spec, item):
            visit(by_name[name], (*path, item.name))
        done[item.name] = item

    for item in work:
        visit(item, ())
    return list(done.values())


def build_nodes(spec: PipelineSpec, facts: Facts) -> dict[str, Node]:
    """All nodes by name, in an order in which each comes after those that it depends on."""
    nodes: dict[str, Node] = {}
    makers = (_bank_nodes, _suite_nodes, _data_nodes, _base_nodes)
    for node in (node for maker in makers for node in maker(spec, facts, nodes)):
        _add(nodes, node, facts)
    for stage in ordered_work(spec):
        if isinstance(stage, Merge):
            _add(nodes, _merge(spec, stage, nodes), facts)
            continue
        if stage.method != "tokenizer":
            _add(nodes, _mixture(spec, stage, nodes), facts)
        _add(nodes, _stage(spec, stage, nodes), facts)
        hold = facts.hold(stage, nodes[stage.name].output or "", nodes)
        nodes[stage.name] = replace(nodes[stage.name], held=hold)
    return nodes


def downstream(nodes: Mapping[str, Node], name: str) -> set[str]:
    """`name` and every node that depends on it."""
    found = {name}
    for node in nodes.values():
        if found & set(node.after):
            found.add(node.name)
    return found


def ancestors(nodes: Mapping[str, Node], name: str) -> set[str]:
    """Every node that `name` depends on, and itself."""
    found = {name}
    for node in reversed(list(nodes.values())):
        if node.name in found:
            found |= set(node.after)
    return found


def _add(nodes: dict[str, Node], node: Node, facts: Facts) -> None:
    """Mark the node when it is to be run again, then look its output up."""
    if facts.rerun is not None and node.inputs is not None:
        stage, token = facts.rerun
        if node.name == stage or node.name in downstream({**nodes, node.name: node}, stage):
            node = replace(node, inputs=node.inputs.model_copy(update={"rerun": token}))
    digest = node.digest
    nodes[node.name] = replace(node, output=facts.outputs.get(digest) if digest else None)


def _bank_nodes(spec: PipelineSpec, facts: Facts, nodes: Mapping[str, Node]) -> Iterable[Node]:
    axes = spec.evaluation.axes
    clusters = {axis.name: axis.cluster_by for axis in axes if axis.cluster_by}
    strata = {axis.name: axis.stratify_by for axis in axes if axis.stratify_by}
    tasks = {axis.name: axis.task for axis in axes if axis.task not in {"multipleChoice", "bitsPerByte"}}
    for bank in spec.evaluation.banks:
        content = facts.contents.get(f"bank/{bank.name}")
        inputs = content and StageInputs(
            method="bank",
            seed=bank.seed,
            bank=BankInputs(
                tasks=bank.tasks,
                content=content,
                dev=bank.dev,
                gate=bank.gate,
                cluster_by={axis: field for axis, field in clusters.items() if axis in bank.tasks},
                measures={axis: task for axis, task in tasks.items() if axis in bank.tasks},
                stratify_by={axis: field for axis, field in strata.items() if axis in bank.tasks},
            ),
        )
        yield Node(bank_node(bank.name), "bank", (), inputs or None, spec.profiles.prepare)


def ordered_data(spec: PipelineSpec) -> dict[str, DataSet]:
    """Data sets so that each comes after the one that it is derived from; ValueError names the sets of a cycle."""
    done: dict[str, DataSet] = {}
    for name in spec.data:
        path = [name]
        while (derive := spec.data[path[-1]].derive) is not None and derive.from_ in spec.data:
            path.append(derive.from_)
            if derive.from_ in path[:-1]:
                raise ValueError(f"data sets wait for each other in a cycle: {' -> '.join(reversed(path))}")
        done |= {each: spec.data[each] for each in reversed(path) if each not in done}
    return done


def _suite_nodes(spec: PipelineSpec, facts: Facts, nodes: Mapping[str, Node]) -> Iterable[Node]:
    if spec.evaluation.regression:
        content = facts.contents.get(f"bank/{SUITES}")
        inputs = suite_stage(spec.evaluation, content) if content else None
        yield Node(bank_node(SUITES), "bank", (), inputs, spec.profiles.prepare)


def _data_nodes(spec: PipelineSpec, facts: Facts, nodes: dict[str, Node]) -> Iterable[Node]:
    for name, data in ordered_data(spec).items():
        banks = tuple(bank_node(bank) for bank in _against(data.prepare))
        origin = (data_node(data.derive.from_),) if data.derive else ()
        content = nodes[origin[0]].output if origin else facts.contents.get(f"data/{name}")
        digests = [nodes[bank].output for bank in banks]
        known = [digest for digest in digests if digest is not None]
        inputs = None
        if content is not None and len(known) == len(digests):
            prepared = PrepareInputs(
                sources=data.sources,
                content=content,
                kind=data.kind,
                derive=data.derive,
                rules=data.prepare,
                banks=known,
                holdout=data.holdout,
            )
            inputs = StageInputs(method="prepare", seed=spec.seed, prepare=prepared)
        yield Node(data_node(name), "prepare", (*origin, *banks), inputs, spec.profiles.prepare)


def _against(rules: Prepare) -> list[str]:
    return list(rules.decontaminate.against) if rules.decontaminate else []


def _base_nodes(spec: PipelineSpec, facts: Facts, nodes: Mapping[str, Node]) -> Iterable[Node]:
    if spec.base is None:
        return
    content = facts.contents.get("base")
    source = Source(uri=spec.base.model, sha256=spec.base.sha256)
    inputs = StageInputs(method="import", base=BaseInputs(source=source, content=content)) if content else None
    yield Node(BASE, "import", (), inputs, spec.profiles.prepare)


def _parts(stage: Stage, nodes: Mapping[str, Node]) -> list[MixturePart] | None:
    parts = []
    for entry in stage.data.mixture:
        output = nodes[data_node(entry.ref)].output
        if output is None:
            return None
        parts.append(MixturePart(name=entry.ref, digest=output, weight=entry.weight))
    return parts


def _data_names(stage: Stage) -> tuple[str, ...]:
    return tuple(data_node(entry.ref) for entry in stage.data.mixture)


def _seed(spec: PipelineSpec, stage: Stage) -> int:
    return spec.seed if stage.seed is None else stage.seed


def _merge(spec: PipelineSpec, merge: Merge, nodes: Mapping[str, Node]) -> Node:
    def output(name: str) -> str | None:
        return None if nodes[name].held else nodes[name].output

    after = (*made_from(merge), *([data_node(merge.held_out)] if merge.held_out else []))
    inputs = merge_inputs(spec, merge, output)
    return Node(merge.name, merge.method, after, inputs, merge.profile or spec.profiles.merge, merge=merge)


def _start(spec: PipelineSpec, stage: Stage, nodes: Mapping[str, Node]) -> tuple[tuple[str, ...], str | None]:
    """Name and, when it may be used, output of the node that the stage starts from."""
    name = origin(spec, stage)
    if name is None:
        return (), None
    return (name,), None if nodes[name].held else nodes[name].output


def _mixture(spec: PipelineSpec, stage: Stage, nodes: Mapping[str, Node]) -> Node:
    after, start = _start(spec, stage, nodes)
    parts = _parts(stage, nodes)
    inputs = None
    if parts is not None and start is not None:
        mixture = MixtureInputs(
            parts=parts,
            sequence_length=stage.data.sequence_length,
            packing=stage.data.packing,
            tokenizer=start,
            **_format(spec, stage),
        )
        inputs = StageInputs(method="mixture", seed=_seed(spec, stage), mixture=mixture)
    return Node(
        mixture_node(stage.name), "mixture", (*_data_names(stage), *after), inputs, spec.profiles.prepare, stage
    )


def _format(spec: PipelineSpec, stage: Stage) -> dict[str, Any]:
    """What rows become. Text needs no template, and only examples have a choice of targets."""
    kind = FORMATS[stage.method]
    if kind == "text" or stage.train is None:
        return {}
    template = stage.chat_template or (spec.base.chat_template if spec.base else "fromModel")
    chosen = {"loss_on": stage.train.loss_on} if kind == "examples" else {}
    return {"format": kind, "chat_template": template, **chosen}


def _stage(spec: PipelineSpec, stage: Stage, nodes: Mapping[str, Node]) -> Node:
    if stage.method == "tokenizer":
        return _tokenizer(spec, stage, nodes)
    after, start = _start(spec, stage, nodes)
    shards = nodes[mixture_node(stage.name)].output
    beside = {name: None if nodes[name].held else nodes[name].output for name in reads(stage)}
    inputs = None
    if start is not None and shards is not None and None not in beside.values():
        inputs = StageInputs(
            method=stage.method,
            seed=_seed(spec, stage),
            model=stage.model,
            train=stage.train,
            start_from=start,
            data=shards,
            reward_from=beside.get(stage.reward or ""),
            reference_from=beside.get(stage.reference or ""),
        )
    names = (*after, *beside, mixture_node(stage.name))
    return Node(stage.name, stage.method, names, inputs, stage.profile or spec.profiles.train, stage)


def _tokenizer(spec: PipelineSpec, stage: Stage, nodes: Mapping[str, Node]) -> Node:
    after, start = _start(spec, stage, nodes)
    parts = _parts(stage, nodes)
    inputs = None
    if parts is not None and (start is not None or not after):
        inputs = StageInputs(
            method="tokenizer",
            seed=_seed(spec, stage),
            tokenizer=stage.tokenizer,
            mixture=MixtureInputs(parts=parts),
            start_from=start,
        )
    names = (*_data_names(stage), *after)
    return Node(stage.name, "tokenizer", names, inputs, stage.profile or spec.profiles.prepare, stage)
