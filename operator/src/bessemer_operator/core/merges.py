"""Merges of a pipeline as lineage sees them: what is built, what each is made from, and when its inputs are known.

A control is a merge of its own, with a name, an identity and evaluations like any other. Pure; nodes are made in
lineage.py.
"""

from collections.abc import Callable, Iterator

from bessemer_api.v1alpha1.merge import CONTROL_SUFFIX, Merge, MergeInputs, MergeParent
from bessemer_api.v1alpha1.pipeline import PipelineSpec

BASE_NODE = "base"
"""Name of the node that imports the base model."""


def all_merges(spec: PipelineSpec) -> list[Merge]:
    """The declared merges, each followed by its controls."""
    return [item for merge in spec.merges for item in (merge, *controls_of(merge))]


def controls_of(merge: Merge) -> Iterator[Merge]:
    """The merges that `controls` stands for: the same parents and the same t or weights, without the geometry.

    Differences from a common ancestor that are averaged are averaged weights, so a control needs no `base`.
    """
    for control in merge.controls or ():
        plain = {"controls": None, "base": None, "density": None, "lambda_": None, "granularity": None, "seed": None}
        weights = None if merge.t else shares(merge)
        yield merge.model_copy(
            update={**plain, "name": f"{merge.name}-{control}", "method": control, "space": "weights"}
            | {"weights": weights}
        )


def shares(merge: Merge) -> list[float]:
    """Weights for a mean of the parents: as in the merge, but never negative; all equal where nothing is left."""
    given = merge.weights or [1.0] * len(merge.parents)
    kept = [max(0.0, weight) for weight in given]
    return kept if sum(kept) > 0 else [1.0] * len(given)


def control_name(merge: Merge) -> str | None:
    """Name of the linear control of a merge; None when it has none."""
    return f"{merge.name}{CONTROL_SUFFIX}" if merge.controls else None


def parent_name(parent: MergeParent) -> str:
    """Name of the node that a parent is."""
    return BASE_NODE if parent.stage is None else parent.stage


def parents_of(merge: Merge) -> list[str]:
    """Names of the nodes that are merged, in order."""
    return [parent_name(parent) for parent in merge.parents]


def names_of(merge: Merge) -> list[str]:
    """Names of the parents, then of the common ancestor, as a MergeJob lists them."""
    return [*parents_of(merge), *([parent_name(merge.base)] if merge.base else [])]


def made_from(merge: Merge) -> list[str]:
    """Names of all checkpoints that a merge needs: its parents, and the ancestor of task vectors."""
    return list(dict.fromkeys(names_of(merge)))


def merge_inputs(spec: PipelineSpec, merge: Merge, output: Callable[[str], str | None]) -> MergeInputs | None:
    """Inputs of a merge; None while one of them is not known. `output` gives the artifact of a node by its name."""
    parents = [output(name) for name in parents_of(merge)]
    base = output(parent_name(merge.base)) if merge.base else None
    held_out = output(f"data-{merge.held_out}") if merge.held_out else None
    known = [item for item in parents if item is not None]
    if len(known) < len(parents) or (merge.base and base is None) or (merge.held_out and held_out is None):
        return None
    seed = spec.seed if merge.seed is None else merge.seed
    return MergeInputs(
        method=merge.method,
        space=merge.space,
        t=merge.t,
        weights=merge.weights,
        density=merge.density,
        lambda_=merge.lambda_,
        granularity=merge.granularity,
        parents=known,
        base=base,
        held_out=held_out,
        seed=seed if merge.method == "dareTies" else 0,
    )
