"""What the training stages of a pipeline need, before they run: tokens, memory, time and GPU hours. Pure.

Everything here is an estimate; what it lacks to make one stands in `unknown`, in words for people. It must not decide
anything: lint_memory.py and budget.py do.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from bessemer_api.v1alpha1.pipeline import PipelineSpec, Stage
from bessemer_api.v1alpha1.train import Grpo
from bessemer_operator.core.accelerators import Device, device_of
from bessemer_operator.core.cost import (
    SECONDS_PER_HOUR,
    Passes,
    operations_per_token,
    reading_operations,
    training_seconds,
)
from bessemer_operator.core.lineage import BASE, ordered_work, origin
from bessemer_operator.core.memory import Layout, Memory, estimate_memory
from bessemer_operator.core.merges import all_merges, made_from, parents_of
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.shapes import Shape, from_base_shape, from_model_shape

PAIRS = frozenset({"dpo", "orpo", "kto", "reward"})
"""Methods whose examples are pairs of answers."""
ASKED_ONCE = frozenset({"dpo", "kto"})
"""Methods whose reference policy reads every pair once, before training."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside the declaration. `tokens`: of data sets; `mixtures`: of one pass over the data of a stage,
    as they were counted; `done`: stages whose result is there.
    """

    base: Shape | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    mixtures: Mapping[str, int] = field(default_factory=dict)
    done: frozenset[str] = frozenset()


NOTHING = Known()


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """One training stage. None: not known, and `unknown` says why. `gpu_hours` are those of the whole stage."""

    name: str
    method: str
    profile: str
    ranks: int
    is_done: bool
    device: Device | None = None
    shape: Shape | None = None
    layout: Layout | None = None
    memory: Memory | None = None
    tokens: int | None = None
    seconds: float | None = None
    gpu_hours: float | None = None
    rows_per_example: int = 1
    unknown: tuple[str, ...] = ()


def estimate(spec: PipelineSpec, profiles: Mapping[str, Profile], known: Known) -> tuple[StageEstimate, ...]:
    """An estimate for each training stage, in the order in which they can run. Names of profiles must be known."""
    trained = [item for item in ordered_work(spec) if isinstance(item, Stage) and item.train is not None]
    return tuple(_stage(spec, stage, profiles, known) for stage in trained)


def _stage(spec: PipelineSpec, stage: Stage, profiles: Mapping[str, Profile], known: Known) -> StageEstimate:
    name = stage.profile or spec.profiles.train
    profile = profiles[name]
    device = device_of(profile)
    shape, tokens = shape_of(spec, stage.name, known), trained_tokens(spec, stage, known)
    layout = layout_of(stage, profile, shape)
    ranks = stage.nodes * profile.ranks
    seconds = None
    if shape is not None and tokens is not None and device is not None:
        operations = tokens * operations_per_token(shape, layout.length, passes_of(stage))
        if stage.method in ASKED_ONCE and stage.train is not None:
            operations += tokens / max(1.0, stage.train.epochs or 1.0) * reading_operations(shape, layout.length)
        seconds = training_seconds(operations, ranks, device)
    hours = None if seconds is None else seconds * stage.nodes * profile.gpus / SECONDS_PER_HOUR
    return StageEstimate(
        name=stage.name,
        method=stage.method,
        profile=name,
        ranks=ranks,
        is_done=stage.name in known.done,
        device=device,
        shape=shape,
        layout=layout,
        memory=estimate_memory(shape, layout) if shape else None,
        tokens=tokens,
        seconds=seconds,
        gpu_hours=0.0 if profile.gpus == 0 else hours,
        rows_per_example=rows_of(stage),
        unknown=tuple(_unknown(spec, stage, device, shape, tokens)),
    )


def _unknown(
    spec: PipelineSpec, stage: Stage, device: Device | None, shape: Shape | None, tokens: int | None
) -> Iterable[str]:
    if shape is None:
        yield "the shape of the base model (base.shape, or --suppose shape=NAME)"
    if tokens is None and stage.method == "grpo":
        yield "the number of steps (maxSteps)"
    elif tokens is None:
        sets = ", ".join(entry.ref for entry in stage.data.mixture[:1])
        yield f"the size of data set {sets} (its expectedTokens, or --suppose tokens.{sets}=N)"
    if device is None or device.flops is None:
        name = stage.profile or spec.profiles.train
        yield f"how fast profile {name} computes (its accelerator)"


# --- shape ------------------------------------------------------------------------------------------------------


def shape_of(spec: PipelineSpec, name: str, known: Known) -> Shape | None:
    """The shape of what a stage makes: that of the pretrain stage, or of the base, that it descends from."""
    merge = next((merge for merge in all_merges(spec) if merge.name == name), None)
    if merge is not None:
        return shape_of(spec, parents_of(merge)[0], known)
    stages = {stage.name: stage for stage in spec.stages}
    stage = stages.get(name)
    if stage is None:
        return base_shape(spec, known) if name == BASE else None
    before = origin(spec, stage)
    if stage.model is not None:
        words = stages[before].tokenizer if before in stages else None
        return from_model_shape(stage.model, words.vocabulary_size) if words else None
    shape = shape_of(spec, before, known) if before is not None else None
    if shape is not None and stage.tokenizer is not None and stage.tokenizer.extend is not None:
        return replace(shape, vocabulary=shape.vocabulary + stage.tokenizer.extend)
    return shape


def base_shape(spec: PipelineSpec, known: Known) -> Shape | None:
    """As it was read, else as it is declared."""
    declared = spec.base.shape if spec.base else None
    return known.base or (from_base_shape(declared) if declared else None)


# --- how it is spread -------------------------------------------------------------------------------------------


def layout_of(stage: Stage, profile: Profile, shape: Shape | None) -> Layout:
    """How the trainer will spread this stage over the ranks of its profile."""
    train = stage.train
    is_bf16 = train is not None and train.precision == "bf16"
    zero = stage.deepspeed.zero_stage
    lora = train.lora if train else None
    return Layout(
        ranks=stage.nodes * profile.ranks,
        ranks_per_node=profile.ranks,
        # Without ZeRO DeepSpeed keeps no fp32 weights beside bf16; the trainer then takes stage 1.
        zero=1 if is_bf16 and zero == 0 else zero,
        rows=stage.deepspeed.micro_batch_size * rows_of(stage),
        length=stage.data.sequence_length,
        value_bytes=2 if is_bf16 else 4,
        checkpointing=train is not None and train.gradient_checkpointing,
        trained=shape.lora_parameters(lora.r, lora.targets) if lora and shape else None,
        copies=copies_of(stage),
    )


def rows_of(stage: Stage) -> int:
    """Sequences that one example puts into a forward pass: a pair has two answers, a prompt of grpo its samples."""
    if stage.method == "grpo":
        return stage.train.grpo.samples if stage.train and stage.train.grpo else Grpo.model_validate({}).samples
    return 2 if stage.method in PAIRS else 1


def copies_of(stage: Stage) -> int:
    """Frozen models that stay in memory: grpo's reward model, and its reference policy where beta weighs it.

    The reference of dpo and kto is asked once, before training, and its answers are kept.
    """
    if stage.method != "grpo" or stage.train is None:
        return 0
    return (stage.reward is not None) + (stage.train.beta > 0)


def passes_of(stage: Stage) -> Passes:
    """What a trained token costs in this stage."""
    train = stage.train
    return Passes(
        weights=train is None or train.lora is None,
        recompute=train is not None and train.gradient_checkpointing,
        reference=copies_of(stage) > 0,
    )


# --- tokens -----------------------------------------------------------------------------------------------------


def trained_tokens(spec: PipelineSpec, stage: Stage, known: Known) -> int | None:
    """Tokens that the stage trains on over all its steps; None where the size of its data is not known.

    Pairs and prompts with a number of steps are counted as if each filled its sequence: at most that many. Epochs of
    grpo count prompts, of which no size of a data set tells.
    """
    train = stage.train
    if train is None:
        return 0
    batch = train.global_batch_tokens
    if stage.method in {*PAIRS, "grpo"} or train.global_batch_examples:
        examples = train.global_batch_examples or train.global_batch_tokens // stage.data.sequence_length
        batch = examples * rows_of(stage) * stage.data.sequence_length
    if train.max_steps is not None:
        return train.max_steps * batch
    if train.max_tokens is not None:
        return math.ceil(train.max_tokens / batch) * batch
    if stage.method == "grpo":
        return None
    once = known.mixtures.get(stage.name) or mixture_tokens(spec, stage, known)
    return None if once is None else math.ceil((train.epochs or 0) * once)


def data_tokens(spec: PipelineSpec, name: str, known: Known) -> int | None:
    """Size of a data set: as it was measured or told on the command line, else as it is declared."""
    data = spec.data.get(name)
    return known.tokens.get(name) or (data.expected_tokens if data else None)


def mixture_tokens(spec: PipelineSpec, stage: Stage, known: Known) -> int | None:
    """Tokens of one pass: the first part once, the others by their weights."""
    first = stage.data.mixture[0]
    tokens = data_tokens(spec, first.ref, known)
    if tokens is None:
        return None
    return math.ceil(tokens * sum(entry.weight for entry in stage.data.mixture) / first.weight)


def repeats(spec: PipelineSpec, stage: Stage, known: Known) -> dict[str, float]:
    """How often one pass over the mixture reads each part, where the sizes are known."""
    first = stage.data.mixture[0]
    yardstick = data_tokens(spec, first.ref, known)
    if yardstick is None:
        return {}
    sizes = {entry.ref: data_tokens(spec, entry.ref, known) for entry in stage.data.mixture}
    return {
        entry.ref: yardstick * entry.weight / first.weight / size
        for entry in stage.data.mixture
        if (size := sizes[entry.ref])
    }


# --- all of it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over stages. `seconds` is the longest chain of stages: branches run side by side where there are GPUs for
    that. `is_complete`: no stage's time is missing from the sums.
    """

    gpu_hours: float
    seconds: float
    is_complete: bool


def total(spec: PipelineSpec, stages: Iterable[StageEstimate], *, remaining: bool = False) -> Total:
    """Of all stages, or of those that are still to run."""
    counted = {stage.name: stage for stage in stages if not (remaining and stage.is_done)}
    ends: dict[str, float] = {}
    for item in ordered_work(spec):
        before = [origin(spec, item)] if isinstance(item, Stage) else made_from(item)
        own = counted[item.name].seconds or 0.0 if item.name in counted else 0.0
        ends[item.name] = max((ends.get(name or "", 0.0) for name in before), default=0.0) + own
    return Total(
        gpu_hours=sum(stage.gpu_hours or 0.0 for stage in counted.values()),
        seconds=max(ends.values(), default=0.0),
        is_complete=all(stage.seconds is not None for stage in counted.values()),
    )
