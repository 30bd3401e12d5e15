"""How long a run is and what each step does: pure functions of the hyper-parameters. No torch, no files.

Which sequences a step trains on depends only on (seed, step): the global batch fixes the mathematics, whatever the
number of ranks and the micro batch.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.errors import PermanentError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Length of a run and shape of a step. `batch` and `micro` are sequences, `accumulation` micro batches a rank."""

    sequences: int
    sequence_length: int
    batch: int
    micro: int
    accumulation: int
    world_size: int
    steps: int
    seed: int

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.sequence_length


def plan_run(train: Train, sequences: int, sequence_length: int, world_size: int, micro: int, seed: int) -> RunPlan:
    """The plan of a run over `sequences` of `sequence_length` tokens.

    A last step that the epochs do not fill is filled from the next epoch, so that every sequence is seen.
    Raises PermanentError(MixtureEmpty | BatchInvalid) with the numbers that do not fit.
    """
    if sequences < 1:
        raise PermanentError("MixtureEmpty", "the mixture holds no sequence; look at what preparation rejected")
    batch, rest = divmod(train.global_batch_tokens, sequence_length)
    field = "globalBatchTokens"
    if train.global_batch_examples is not None:
        batch, rest, field = train.global_batch_examples, 0, "globalBatchExamples"
    if rest or not batch:
        raise PermanentError(
            "BatchInvalid",
            f"globalBatchTokens {train.global_batch_tokens} is no multiple of sequenceLength {sequence_length}",
        )
    accumulation, rest = divmod(batch, world_size * micro)
    if rest:
        raise PermanentError(
            "BatchInvalid",
            f"a global batch of {batch} sequences can not be divided over {world_size} ranks with microBatchSize "
            f"{micro}; change {field}, microBatchSize or the number of GPUs",
        )
    steps = _steps(train, sequences, batch, sequence_length)
    return RunPlan(sequences, sequence_length, batch, micro, accumulation, world_size, steps, seed)


def _steps(train: Train, sequences: int, batch: int, sequence_length: int) -> int:
    if train.max_steps is not None:
        return train.max_steps
    if train.max_tokens is not None:
        return math.ceil(train.max_tokens / (batch * sequence_length))
    return max(1, math.ceil(round((train.epochs or 0) * sequences, 6) / batch))


def learning_rate(train: Train, step: int, steps: int) -> float:
    """Learning rate of `step` (counted from 0) of `steps`.

    Warm-up: linear from peak/w to peak over the first w = round(warmupRatio * steps) steps. After it, with
    x = 0 at the first step and 1 at the last, and m = minLearningRateRatio:
    constant 1; linear 1 - (1-m) x; cosine m + (1-m)(1 + cos(pi x))/2 (Loshchilov and Hutter, 2017);
    wsd 1 until the last tenth of all steps, then linear to m (warmup-stable-decay, Hu et al., MiniCPM, 2024).
    """
    warmup = round(train.warmup_ratio * steps)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    last = max(1, steps - 1 - warmup)
    return train.learning_rate * _shape(train, (step - warmup) / last, (steps - warmup) / steps)


def _shape(train: Train, x: float, share_after_warmup: float) -> float:
    low = train.min_learning_rate_ratio
    if train.schedule == "constant":
        return 1.0
    if train.schedule == "linear":
        return 1.0 - (1.0 - low) * x
    if train.schedule == "cosine":
        return low + (1.0 - low) * (1.0 + math.cos(math.pi * x)) / 2.0
    decay = min(1.0, 0.1 / share_after_warmup)
    return 1.0 - (1.0 - low) * max(0.0, x - (1.0 - decay)) / decay


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, sequences: int) -> Indices:
    """The permutation of one epoch; nobody may write to it."""
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(sequences)
    order.flags.writeable = False
    return order


def global_batch(plan: RunPlan, step: int) -> Indices:
    """Sequence numbers of the global batch of `step` (counted from 0), shape (batch,)."""
    position = np.arange(step * plan.batch, (step + 1) * plan.batch, dtype=np.int64)
    epochs = position // plan.sequences
    parts = [
        _order(plan.seed, int(e), plan.sequences)[position[epochs == e] % plan.sequences] for e in np.unique(epochs)
    ]
    return np.concatenate(parts)


def micro_batch(plan: RunPlan, step: int, rank: int, index: int) -> Indices:
    """Sequence numbers of micro batch `index` of `rank` in `step`, shape (micro,).

    Rank r of micro batch i takes block i * world + r of the global batch.
    """
    block = index * plan.world_size + rank
    return global_batch(plan, step)[block * plan.micro : (block + 1) * plan.micro]
