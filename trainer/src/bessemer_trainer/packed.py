"""Packed sequences as a task of the loop: their batches in a fixed order, and the loss on what was set aside."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bessemer_trainer.dist import Gang
from bessemer_trainer.engine import Engine
from bessemer_trainer.holdout import measure_holdout, pack_holdout, score_shards
from bessemer_trainer.loop import Inputs, StepSize
from bessemer_trainer.schedule import RunPlan, global_batch, micro_batch
from bessemer_trainer.shards import Batch, Shards, open_shards


@dataclass(frozen=True, slots=True)
class Packed:
    """The shards of a mixture, in the order that the plan gives them."""

    inputs: Inputs
    plan: RunPlan
    shards: Shards
    scratch: Path

    def start(self, engine: Engine, gang: Gang) -> None:
        """Nothing: sequences depend on no model."""

    def batches(self, step: int, engine: Engine, gang: Gang) -> Iterator[Batch]:
        for index in range(self.plan.accumulation):
            yield self.shards.rows(micro_batch(self.plan, step, gang.rank, index))

    def size(self, step: int) -> StepSize:
        targets = self.shards.targets_in(global_batch(self.plan, step))
        return StepSize(targets, self.plan.tokens_per_step, targets)

    def told(self, step: int) -> Mapping[str, float]:
        return {}

    def measure(self, engine: Engine, gang: Gang) -> Mapping[str, float]:
        """Loss on the holdout: of text, tokenised here; of examples, as the mixture tokenised and marked them."""
        data = self.inputs.data_folder
        if self.shards.targets is not None:
            return self._measure_examples(engine, gang)
        held = gang.on_node(lambda: pack_holdout(data, self.inputs.start_folder, self.plan, self.scratch))
        return measure_holdout(engine, gang, self.plan, held)

    def _measure_examples(self, engine: Engine, gang: Gang) -> Mapping[str, float]:
        data = self.inputs.data_folder
        if not any(data.glob("holdout-tokens.*")):
            return {}
        shards = open_shards(data, self.plan.sequence_length, "holdout-")
        targets = shards.targets_in(np.arange(shards.sequences))
        return {"holdoutLoss": score_shards(engine, gang, self.plan, shards) / targets} if targets else {}
