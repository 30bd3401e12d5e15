"""Lint rules about what stages need: memory, the budget, and how often data are read. They speak only where sizes are
known.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_operator.core.accelerators import GIB
from bessemer_operator.core.estimate import Known, StageEstimate, estimate, repeats
from bessemer_operator.core.findings import Finding, Path, error, warning
from bessemer_operator.core.memory import HEADROOM, Memory, estimate_memory
from bessemer_operator.core.profile import Profile

MOST_PASSES = 4
"""Muennighoff et al. 2023 (arXiv 2305.16264): up to four passes are nearly as good as fresh data, then returns fall."""
_SUFFIXES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def memory_findings(spec: PipelineSpec, profiles: Mapping[str, Profile], known: Known) -> list[Finding]:
    """All findings about memory and cost. References must hold."""
    found: list[Finding] = []
    stages = estimate(spec, profiles, known)
    places = {stage.name: ("spec", "stages", index) for index, stage in enumerate(spec.stages)}
    for stage in stages:
        found += [*_on_the_gpu(stage, places[stage.name]), *_in_the_pod(stage, places[stage.name], profiles)]
    return [*found, *_budget(spec, stages)]


def repeat_findings(spec: PipelineSpec, known: Known) -> list[Finding]:
    """Sources that the weights of a mixture repeat until they teach nothing new."""
    found: list[Finding] = []
    for index, stage in enumerate(spec.stages):
        epochs = (stage.train.epochs if stage.train else None) or 1.0
        times = repeats(spec, stage, known)
        for number, entry in enumerate(stage.data.mixture):
            passes = times.get(entry.ref, 0.0) * epochs
            if times.get(entry.ref, 0.0) > 1 and passes > MOST_PASSES:
                path = ("spec", "stages", index, "data", "mixture", number, "weight")
                message = f"data set {entry.ref} would be read {passes:.1f} times ({times[entry.ref]:.1f} in each of "
                message += f"{epochs:g} epochs); beyond about {MOST_PASSES} times a text teaches little"
                fix = f"lower its weight to {entry.weight * MOST_PASSES / passes:.3g}, or add data to it"
                found.append(warning(path, "RepeatedTooOften", message, fix))
    return found


def _on_the_gpu(stage: StageEstimate, path: Path) -> Iterator[Finding]:
    memory, device = stage.memory, stage.device
    if memory is None or device is None or device.memory is None:
        return
    usable = device.memory * (1 - HEADROOM)
    if memory.total <= usable:
        return
    message = f"about {memory.total / GIB:.1f} GiB on each {device.name} of profile {stage.profile}, which has "
    message += f"{device.memory / GIB:.1f} GiB ({parts_text(memory)})"
    fix = advice(stage, usable) or "take a profile with more memory, more nodes at zeroStage 3, or a smaller model"
    if memory.states + memory.copies > device.memory:
        yield error((*path, "deepspeed"), "DoesNotFit", f"this can not fit: {message}", fix)
    else:
        yield warning((*path, "deepspeed"), "MayNotFit", f"this may not fit: {message}", fix)


def parts_text(memory: Memory) -> str:
    """What the memory is for, the large parts first, in GiB."""
    parts = {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "gathered weights": memory.gathered,
        "frozen models": memory.copies,
        "activations": memory.activations,
        "logits": memory.logits,
        "buckets": memory.buckets,
    }
    shown = sorted((item for item in parts.items() if item[1] >= GIB / 20), key=lambda item: -item[1])
    return ", ".join(f"{name} {size / GIB:.1f}" for name, size in shown)


def advice(stage: StageEstimate, usable: float) -> str:
    """The first change, or pair of changes, under which it would fit; empty when none of them helps."""
    if stage.shape is None or stage.layout is None:
        return ""
    layout = stage.layout
    steps: list[tuple[str, dict[str, int]]] = [
        ("gradientCheckpointing: true", {"checkpointing": True}),
        ("zeroStage: 3", {"zero": 3}),
        ("microBatchSize: 1", {"rows": stage.rows_per_example}),
    ]
    changes = [steps[:1], steps[1:2], steps[2:], steps[:2], [steps[0], steps[2]], steps]
    changes += [[*steps, (f"nodes: {count}", {"ranks": layout.ranks_per_node * count})] for count in (2, 4, 8, 16)]
    for change in changes:
        changed = replace(layout, **{key: value for _, step in change for key, value in step.items()})  # type: ignore[arg-type]
        need = estimate_memory(stage.shape, changed).total
        if need <= usable:
            words = [name for name, step in change if any(getattr(layout, key) != step[key] for key in step)]
            return f"set {', '.join(words)}: about {need / GIB:.1f} GiB"
    return ""


def _in_the_pod(stage: StageEstimate, path: Path, profiles: Mapping[str, Profile]) -> Iterator[Finding]:
    has = quantity(profiles[stage.profile].memory)
    if stage.memory is None or stage.device is None or stage.memory.host <= has:
        return
    message = f"a pod of profile {stage.profile} has {has / GIB:.1f} GiB, and loading the model in each of its "
    message += (
        f"{stage.layout.ranks_per_node if stage.layout else 1} processes takes up to {stage.memory.host / GIB:.1f} GiB"
    )
    yield warning((*path, "profile"), "HostMemory", message, "take a profile with more memory")


def quantity(text: str) -> float:
    """A Kubernetes quantity in bytes. Raises ValueError."""
    for suffix, factor in _SUFFIXES.items():
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)


def _budget(spec: PipelineSpec, stages: tuple[StageEstimate, ...]) -> Iterator[Finding]:
    if spec.budget is None:
        return
    for stage in stages:
        if stage.gpu_hours is None:
            message = f"the GPU hours of stage {stage.name} can not be estimated without {' and '.join(stage.unknown)}"
            yield warning(("spec", "budget", "gpuHours"), "BudgetUnknown", message, "declare it")
