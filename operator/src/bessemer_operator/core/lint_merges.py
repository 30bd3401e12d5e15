"""Lint rules about merges: what they name, and which parents can not be merged or will hardly gain by it.

What only the checkpoints themselves can tell (keys, dtype, templates, NaN) is checked by the merge before it begins.
"""

import re
from collections.abc import Iterable, Iterator

from bessemer_api.v1alpha1.merge import Merge, MergeParent
from bessemer_api.v1alpha1.pipeline import PipelineSpec, Stage
from bessemer_api.v1alpha1.train import ModelShape
from bessemer_operator.core.findings import Finding, Path, error, unknown, warning
from bessemer_operator.core.lineage import BASE, origin
from bessemer_operator.core.merges import all_merges, made_from, parent_name, parents_of

SMALL = 2e9
"""Parameters below which the published benefit of spherical merges was not seen (Lu, Luu and Buehler 2025)."""
_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bBmM])(?![A-Za-z0-9])")


def merge_references(spec: PipelineSpec) -> list[Finding]:
    """What merges name that is not there, or that is no checkpoint."""
    found: list[Finding] = []
    for index, merge in enumerate(spec.merges):
        path: Path = ("spec", "merges", index)
        for number, parent in enumerate(merge.parents):
            found += _parent(spec, merge, parent, (*path, "parents", number))
        if merge.base is not None:
            found += _parent(spec, merge, merge.base, (*path, "base"))
        found += _held_out(spec, merge, (*path, "heldOut"))
    return found


def merge_findings(spec: PipelineSpec) -> list[Finding]:
    """Merges that can not work or will hardly help. Only where references hold and there is no cycle."""
    found: list[Finding] = []
    for index, merge in enumerate(spec.merges):
        path: Path = ("spec", "merges", index)
        found += [*_same_parents(merge, path), *_strangers(spec, merge, path), *_small(spec, merge, path)]
    return found


# --- references -------------------------------------------------------------------------------------------------


def _parent(spec: PipelineSpec, merge: Merge, parent: MergeParent, path: Path) -> Iterator[Finding]:
    if parent.stage is None:
        if spec.base is None:
            message = "the pipeline has no base model that could be merged"
            yield error((*path, "base"), "NoBase", message, "set spec.base, or name a stage")
        return
    stages = {stage.name: stage for stage in spec.stages}
    known = [name for name, stage in stages.items() if stage.method not in {"tokenizer", "reward"} or _extends(stage)]
    known += [other.name for other in all_merges(spec) if other.name != merge.name]
    if parent.stage in stages and parent.stage not in known:
        made = "a tokenizer" if stages[parent.stage].method == "tokenizer" else "a reward model"
        message = f'stage "{parent.stage}" makes {made}, no checkpoint that answers'
        yield error((*path, "stage"), "NoCheckpoint", message, "name a stage that trains a model")
    elif parent.stage not in known:
        yield unknown((*path, "stage"), "stage", parent.stage, known)


def _extends(stage: Stage) -> bool:
    """Whether a tokenizer stage gives a checkpoint: one whose vocabulary was extended."""
    return stage.tokenizer is not None and stage.tokenizer.extend is not None


def _held_out(spec: PipelineSpec, merge: Merge, path: Path) -> Iterator[Finding]:
    if merge.held_out is None:
        return
    if merge.held_out not in spec.data:
        yield unknown(path, "data set", merge.held_out, spec.data, "declare it in spec.data")
    elif not spec.data[merge.held_out].holdout:
        message = f'data set "{merge.held_out}" sets no documents aside'
        yield error(path, "NothingHeldOut", message, f"give spec.data.{merge.held_out} a holdout, for example 0.02")


# --- what can not be merged -------------------------------------------------------------------------------------


def _same_parents(merge: Merge, path: Path) -> Iterator[Finding]:
    names = parents_of(merge)
    for index, name in enumerate(names):
        if name in names[:index]:
            message = f'"{name}" is merged with itself, which changes nothing'
            yield warning((*path, "parents", index), "NoEffect", message, "name another stage, or the base")


def _strangers(spec: PipelineSpec, merge: Merge, path: Path) -> Iterator[Finding]:
    """Parents that do not share what a merge needs: vocabulary, shape and number format."""
    names = made_from(merge)
    kinds: tuple[tuple[str, str, list[str]], ...] = (
        ("OtherVocabulary", "tokenizer", [_vocabulary(spec, name) for name in names]),
        ("OtherShape", "shape", [_shape_words(spec, name) for name in names]),
        ("OtherDtype", "number format", [_precision(spec, name) for name in names]),
    )
    for reason, what, values in kinds:
        known = [(name, value) for name, value in zip(names, values, strict=True) if value]
        other = next((pair for pair in known if pair[1] != known[0][1]), None)
        if other is not None:
            (first, is_first), (second, is_second) = known[0], other
            message = f'the parents differ in their {what}: "{first}" has {is_first}, "{second}" has {is_second}'
            fix = (
                "merge models that descend from the same one; an extended tokenizer can not be merged with its sibling"
            )
            yield error((*path, "parents"), reason, message, fix)


def _line(spec: PipelineSpec, name: str) -> Iterator[Stage | str]:
    """Stages from a checkpoint back to where it began (of a merge: along its first parent), then BASE if it did."""
    stages, merges = {item.name: item for item in spec.stages}, {item.name: item for item in all_merges(spec)}
    at: str | None = name
    while at is not None and at != BASE:
        if at in merges:
            at = parent_name(merges[at].parents[0])
            continue
        if at not in stages:
            return
        yield stages[at]
        at = origin(spec, stages[at])
    if at == BASE:
        yield BASE


def _vocabulary(spec: PipelineSpec, name: str) -> str:
    """Where a checkpoint has its tokenizer from."""
    for item in _line(spec, name):
        if isinstance(item, str):
            return "that of the base model"
        if item.method == "tokenizer":
            return f'that of stage "{item.name}"'
    return ""


def shape_of(spec: PipelineSpec, name: str) -> ModelShape | None:
    """The shape of a checkpoint that the pipeline pretrains itself."""
    return next((item.model for item in _line(spec, name) if not isinstance(item, str) and item.model), None)


def _shape_words(spec: PipelineSpec, name: str) -> str:
    shape = shape_of(spec, name)
    if shape is None:
        return "that of the base model" if BASE in _line(spec, name) else ""
    words = f"{shape.layers} layers, hidden size {shape.hidden_size}, feed-forward {shape.intermediate_size}"
    head = "tied" if shape.tie_embeddings else "an untied head"
    return f"{words}, {shape.heads} heads of {shape.key_value_heads or shape.heads} keys, {head}"


def _precision(spec: PipelineSpec, name: str) -> str:
    """The number format in which a stage writes its weights; of the base model it is not known here."""
    first = next(iter(_line(spec, name)), None)
    return first.train.precision if first is not None and not isinstance(first, str) and first.train else ""


# --- what will hardly help --------------------------------------------------------------------------------------


def _small(spec: PipelineSpec, merge: Merge, path: Path) -> Iterator[Finding]:
    if merge.method not in {"slerp", "nuslerp"}:
        return
    size = _parameters(spec, parents_of(merge))
    if size is not None and size < SMALL:
        message = f"{merge.method} of models of about {_words(size)} parameters: the published benefit of spherical "
        message += "merges was not seen under 2 billion (Lu et al. 2025)"
        fix = "let a gate be the judge, and measure it beside a control: controls: [linear]"
        yield warning((*path, "method"), "SmallModel", message, fix)


def _parameters(spec: PipelineSpec, names: Iterable[str]) -> float | None:
    """About how many parameters the parents have: from the shape, or from the name of the base model."""
    shape = next((found for name in names if (found := shape_of(spec, name)) is not None), None)
    if shape is not None:
        keys = (shape.key_value_heads or shape.heads) / shape.heads
        layer = shape.hidden_size**2 * (2 + 2 * keys) + 3 * shape.hidden_size * shape.intermediate_size
        return float(shape.layers * layer)
    sizes = _SIZE.findall(spec.base.model.rsplit("/", 1)[-1].replace("-", " ")) if spec.base else []
    return float(sizes[0][0]) * (1e9 if sizes[0][1] in "bB" else 1e6) if sizes else None


def _words(size: float) -> str:
    return f"{size / 1e9:.1f} billion" if size >= 1e9 else f"{size / 1e6:.1f} million" if size >= 1e6 else f"{size:.0f}"
