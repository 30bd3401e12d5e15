"""The budget: whether what is still to run may cost what it is estimated to cost. Pure; it must not start anything."""

from collections.abc import Iterable, Mapping

from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core.estimate import Known, StageEstimate, estimate, total
from bessemer_operator.core.lineage import BASE, Node, data_node, mixture_node
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.shapes import from_metrics

BYTES_PER_TOKEN = 4.0
"""Of English text, for data that was prepared but not yet tokenised."""


def known_of(spec: PipelineSpec, nodes: Mapping[str, Node], stages: Iterable[TrainingStage]) -> Known:
    """What the finished work of a pipeline tells about the rest."""
    by_digest = {stage.spec.input_digest: stage.status.metrics for stage in stages}
    metrics = {name: by_digest.get(node.digest or "", {}) for name, node in nodes.items() if node.output}
    sizes = {name: metrics.get(data_node(name), {}).get("bytes") for name in spec.data}
    passes = {stage.name: metrics.get(mixture_node(stage.name), {}).get("sequences") for stage in spec.stages}
    lengths = {stage.name: stage.data.sequence_length for stage in spec.stages}
    return Known(
        base=from_metrics(metrics.get(BASE, {})),
        tokens={name: max(1, round(size / BYTES_PER_TOKEN)) for name, size in sizes.items() if size},
        mixtures={name: round(count) * lengths[name] for name, count in passes.items() if count},
        done=frozenset(name for name, node in nodes.items() if node.output),
    )


def over_budget(
    spec: PipelineSpec, profiles: Mapping[str, Profile], nodes: Mapping[str, Node], stages: Iterable[TrainingStage]
) -> str:
    """Why the pipeline may not go on, with the numbers; empty while it may.

    A stage whose cost is not known yet costs nothing here: it is asked again when its data are prepared.
    """
    if spec.budget is None:
        return ""
    found = estimate(spec, profiles, known_of(spec, nodes, stages))
    return exceeded(spec, found)


def exceeded(spec: PipelineSpec, stages: Iterable[StageEstimate]) -> str:
    """The sentence about estimates that are over the budget; empty when they are not."""
    listed = list(stages)
    if spec.budget is None:
        return ""
    hours, most = total(spec, listed, remaining=True).gpu_hours, spec.budget.gpu_hours
    if hours <= most:
        return ""
    dear = max((stage for stage in listed if not stage.is_done), key=lambda stage: stage.gpu_hours or 0.0)
    return (
        f"what is still to run takes about {hours:,.1f} GPU hours, and budget.gpuHours is {most:,.1f}; the most is "
        f"stage {dear.name} with {dear.gpu_hours or 0.0:,.1f}. Raise the budget, or train on less"
    )
