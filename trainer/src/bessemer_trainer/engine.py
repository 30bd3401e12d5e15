"""DeepSpeed's engine behind the few operations that a training loop needs. The only file that imports deepspeed.

Gradients are those of the true mean over all targets of the global batch, whatever the number of ranks.
"""

import os
from pathlib import Path
from typing import Any, BinaryIO, cast

import deepspeed
import numpy as np
import numpy.typing as npt
import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from torch import Tensor, nn

from bessemer_api.v1alpha1.train import DeepSpeed, Train
from bessemer_trainer.checkpoint import ShardWriter
from bessemer_trainer.dist import Gang, deepspeed_config, zero_stage
from bessemer_trainer.model import parameter_groups
from bessemer_trainer.schedule import RunPlan
from bessemer_trainer.shards import Batch

Floats = npt.NDArray[np.float32]
_TAG = "state"
_STATE_CLASSES = (LossScaler, ZeroStageEnum, fragment_address)
"""The only classes that DeepSpeed's state may name besides tensors and plain values; anything else is refused."""


class Engine:
    """One rank's share of the model, its optimizer and their state."""

    def __init__(
        self,
        objective: nn.Module,
        plan: RunPlan,
        train: Train,
        settings: DeepSpeed,
        gang: Gang,
    ) -> None:
        """`objective` has the model as `model`.

        In training its forward takes a batch and gives the sum of the losses, or a tuple of it and a vector: the sums
        of what its `metrics` names. In evaluation it gives one or several tensors, of what it likes.
        """
        # DeepSpeed would compile a shared-memory all-reduce at the first start on CPU (minutes); gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.utils.logger.setLevel("WARNING")
        torch.serialization.set_crc32_options(compute_crc32=False)  # every file has its sha256
        if train.gradient_checkpointing:
            cast(Any, objective.model).gradient_checkpointing_enable({"use_reentrant": False})
        self._gang = gang
        self._plan = plan
        self._stage = zero_stage(train, settings)
        self._files = _Files()
        self._engine: Any = deepspeed.initialize(
            model=objective,
            model_parameters=parameter_groups(objective, train.weight_decay),
            config=deepspeed_config(plan, train, settings, on_gpu=gang.device != "cpu"),
        )[0]
        self._engine.checkpoint_engine = self._files
        # DeepSpeed copies scripts beside the state, past our writer: they would be neither hashed nor listed.
        self._engine._copy_recovery_script = lambda _folder: None

    @property
    def model(self) -> Any:  # noqa: ANN401 - transformers is untyped
        return self._engine.module.model

    @property
    def optimizer(self) -> Any:  # noqa: ANN401 - DeepSpeed is untyped
        return self._engine.optimizer

    def train(self, batch: Batch, divisor: float) -> Tensor:
        """Forward and backward of one micro batch; a vector: the sum of its losses, then the objective's metrics.

        `divisor`: what the sum of the losses of the global batch is divided by. The vector stays on the device:
        reading it would make a GPU wait.
        """
        self._engine.train()
        result = self._engine(self._tensors(batch))
        loss, sums = result if isinstance(result, tuple) else (result, None)
        # DeepSpeed divides by the ranks and by the accumulation; together this is the mean over the global batch.
        scale = self._plan.world_size * self._plan.accumulation / max(1, divisor)
        self._engine.backward(loss * scale)
        total: Tensor = loss.detach().double().reshape(1)
        return total if sums is None else torch.cat([total, sums.detach().double()])

    def advance(self) -> None:
        """After every micro batch but the last: count it."""
        self._engine.step()

    def step(self, learning_rate: float) -> float:
        """After the last micro batch: clip, update; the norm of the gradient before clipping."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self._plain_norm() if self._stage == 0 else None
        self._engine.step()
        return float(norm if norm is not None else self._engine.get_global_grad_norm())

    def _plain_norm(self) -> Tensor | None:
        """Without ZeRO and in fp32 DeepSpeed keeps no norm."""
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients) if gradients else None

    @torch.no_grad()
    def score(self, batch: Batch) -> tuple[Floats, ...]:
        """What the objective gives in evaluation, without training. Every rank must call it equally often."""
        self._engine.eval()
        result = self._engine(self._tensors(batch))
        parts = result if isinstance(result, tuple) else (result,)
        return tuple(part.float().cpu().numpy() for part in parts)

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(np.ascontiguousarray(array)).to(self._gang.device) for name, array in batch.items()
        }

    def save(self, writer: ShardWriter) -> None:
        """Write this rank's state. An error of the disk is kept by `writer`: other ranks wait in collectives."""
        self._files.writer = writer
        self._engine.save_checkpoint(str(writer.folder), tag=_TAG, save_latest=False)
        for name, state in _random_state().items():
            writer.write(f"{name}-{self._gang.rank}.bin", bytes(state.numpy()))

    def load(self, folder: Path) -> None:
        """Take over the state that `save` wrote. Every file in `folder` must have been verified."""
        self._engine.load_checkpoint(str(folder), tag=_TAG)
        states = {path.name: path.read_bytes() for path in folder.glob(f"*-{self._gang.rank}.bin")}
        _set_random_state(states, self._gang.rank)

    def weights(self) -> dict[str, Tensor]:
        """Name and value (CPU) of every tensor of the model, on the first rank; empty on the others."""
        parameters = dict(self.model.named_parameters())
        tensors = {}
        for name, parameter in parameters.items():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
                if self._gang.is_first:
                    tensors[name] = parameter.detach().cpu().clone()
        tied = getattr(self.model, "all_tied_weights_keys", {})
        buffers = {name: value for name, value in self.model.state_dict().items() if name not in {*parameters, *tied}}
        return {**tensors, **{name: value.cpu() for name, value in buffers.items()}} if self._gang.is_first else {}


def _random_state() -> dict[str, Tensor]:
    states = {"rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng-cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_state(states: dict[str, bytes], rank: int) -> None:
    cpu = states[f"rng-{rank}.bin"]
    torch.set_rng_state(torch.frombuffer(bytearray(cpu), dtype=torch.uint8))
    cuda = states.get(f"rng-cuda-{rank}.bin")
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.frombuffer(bytearray(cuda), dtype=torch.uint8))


class _Files(CheckpointEngine):  # type: ignore[misc]  # deepspeed is untyped
    """DeepSpeed's file access during save and load, led through our writer: hashed, fsynced, never raising midway."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "bessemer"
        self.writer: ShardWriter | None = None

    def create(self, info: Any) -> None:  # noqa: ANN401 - DeepSpeed's signature
        """Nothing to prepare: the folder is the writer's."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing to prepare: the folder is the writer's."""

    def save(self, state_dict: Any, path: str) -> None:  # noqa: ANN401 - DeepSpeed's signature
        if self.writer is not None:
            relative = os.path.relpath(path, self.writer.folder)
            self.writer.write_with(relative, lambda file: torch.save(state_dict, cast(BinaryIO, file)))

    def load(self, path: str, map_location: Any = None) -> Any:  # noqa: ANN401 - DeepSpeed's signature
        with torch.serialization.safe_globals(list(_STATE_CLASSES)):
            return torch.load(path, map_location=map_location, weights_only=True)

    def commit(self, info: Any) -> bool:  # noqa: ANN401 - DeepSpeed's signature
        return True
