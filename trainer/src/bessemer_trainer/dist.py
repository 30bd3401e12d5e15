"""Ranks: who they are, how they agree, and DeepSpeed's configuration as a pure dict. Knows no model and no data.

A gang of one needs no launcher. Ranks agree on every error before anyone raises it, so that no rank waits in a
collective for one that has given up, and all exit with the same code.
"""

import datetime
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from bessemer_api.v1alpha1.train import DeepSpeed, Train
from bessemer_trainer.errors import PermanentError, TrainerError, TransientError
from bessemer_trainer.schedule import RunPlan

T = TypeVar("T")
_TIMEOUT = datetime.timedelta(minutes=30)
_KINDS: Mapping[str, type[TrainerError]] = {"PermanentError": PermanentError, "TransientError": TransientError}


@dataclass(frozen=True, slots=True)
class Gang:
    """The ranks of a run. `control` is a CPU process group for small talk; None in a gang of one."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    device: str = "cpu"
    control: Any = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in the order of ranks, on every rank."""
        if self.control is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def sum(self, values: list[float]) -> list[float]:
        """Element-wise sum over ranks in double precision; equal on every rank."""
        if self.control is None:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return [float(value) for value in total]

    def agree(self, work: Callable[[], T]) -> T:
        """Do `work` on every rank and wait for all. When one fails, all raise the error of the lowest such rank."""
        value, error = _attempt(work)
        for other in self.gather(error):
            if other is not None:
                raise _KINDS[other[0]](other[1], other[2])
        return value  # type: ignore[return-value]  # set, or some rank had an error

    def first(self, work: Callable[[], T]) -> T:
        """Do `work` on the first rank only; its value, or its error, on every rank."""
        values = self.gather(_attempt(work) if self.is_first else (None, None))
        value, error = values[0]
        if error is not None:
            raise _KINDS[error[0]](error[1], error[2])
        return value  # type: ignore[return-value]  # set, or there was an error

    def on_node(self, work: Callable[[], T]) -> T:
        """Do `work` on the first rank of each node only; its value on every rank of that node, or an error on all."""
        value = self.agree(lambda: work() if self.local_rank == 0 else None)
        ranks = self.gather((self.local_rank, value))
        local_rank, found = ranks[self.rank - self.local_rank]
        if local_rank:
            raise PermanentError("WorldSizeMismatch", "ranks of one pod must be numbered in a row")
        return found  # type: ignore[return-value]  # the first rank of a node has set it


def _attempt(work: Callable[[], T]) -> tuple[T | None, tuple[str, str, str] | None]:
    try:
        return work(), None
    except TrainerError as error:
        kind = "PermanentError" if isinstance(error, PermanentError) else "TransientError"
        return None, (kind, error.reason, error.message)


def declared_gang(world_size: int, environment: Mapping[str, str]) -> Gang:
    """Who this rank is, from a launcher's environment (`LOCAL_RANK` is there) or alone.

    Raises PermanentError(WorldSizeMismatch): some launchers silently start one rank, and the run would then be
    another one than was declared.
    """
    launched = "LOCAL_RANK" in environment
    world = int(environment.get("WORLD_SIZE", "1")) if launched else 1
    if world != world_size:
        raise PermanentError(
            "WorldSizeMismatch",
            f"{world} ranks were started and {world_size} were declared; start this pod with "
            "`python -m bessemer_trainer.launch` and the PET_* variables that a PyTorchJob sets",
        )
    if not launched:
        return Gang()
    local = int(environment["LOCAL_RANK"])
    local_world = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    return Gang(int(environment["RANK"]), world, local, local_world)


def start(world_size: int) -> Gang:
    """Start torch.distributed (NCCL on GPUs, else gloo) and meet the other ranks."""
    gang = declared_gang(world_size, os.environ)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(gang.local_rank)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if world_size == 1:  # DeepSpeed's optimizers speak to a process group, also alone
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")  # DeepSpeed reads them
        dist.init_process_group("nccl" if on_gpu else "gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
        control = None
    else:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
        control = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    device = f"cuda:{gang.local_rank}" if on_gpu else "cpu"
    return Gang(gang.rank, world_size, gang.local_rank, gang.local_world_size, device, control)


def zero_stage(train: Train, deepspeed: DeepSpeed) -> int:
    """The ZeRO stage that is used. Stage 0 in bf16 runs as stage 1: without ZeRO DeepSpeed keeps no fp32 weights.

    Small updates would then be lost to rounding, and the result would depend on a setting that must not matter.
    """
    return 1 if train.precision == "bf16" and deepspeed.zero_stage == 0 else deepspeed.zero_stage


def deepspeed_config(plan: RunPlan, train: Train, deepspeed: DeepSpeed, *, on_gpu: bool) -> dict[str, Any]:
    """DeepSpeed's configuration of a run. AdamW is torch's own: nothing is compiled at the first start.

    The learning rate here is the peak; the loop sets each step's. Buckets are counted in elements: DeepSpeed
    allocates them whole, and its default (5e8) is 2 GB a rank.
    """
    bucket = 50_000_000 if on_gpu else 4_000_000
    return {
        "train_batch_size": plan.batch,
        "train_micro_batch_size_per_gpu": plan.micro,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": train.gradient_clip,
        "bf16": {"enabled": train.precision == "bf16"},
        # Gradients add up in fp32: in bf16 many micro batches would be lost to rounding.
        "data_types": {"grad_accum_dtype": "fp32"},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "torch_adam": True,
                "lr": train.learning_rate,
                "betas": [train.adam_beta1, train.adam_beta2],
                "eps": 1e-8,
                "weight_decay": train.weight_decay,
                "fused": on_gpu,
            },
        },
        "zero_optimization": {
            "stage": zero_stage(train, deepspeed),
            "overlap_comm": on_gpu,
            "contiguous_gradients": True,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            "stage3_gather_16bit_weights_on_model_save": False,
        },
        "checkpoint": {"tag_validation": "Ignore"},
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
