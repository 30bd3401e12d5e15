"""The verbs `dpo`, `orpo`, `kto` and `reward`: train on pairs of a chosen and a rejected completion."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.dist import Gang, start
from bessemer_trainer.loop import Inputs, fetch, plan_of, read_inputs, starting_model, train
from bessemer_trainer.model import load_model
from bessemer_trainer.objectives.dpo import Dpo
from bessemer_trainer.objectives.kto import Kto
from bessemer_trainer.objectives.orpo import Orpo
from bessemer_trainer.objectives.reward import Reward
from bessemer_trainer.pairs import open_pairs
from bessemer_trainer.preference import PairData, Preference, Reference, mismatch, reference_of
from bessemer_trainer.reward_model import reward_model
from bessemer_trainer.schedule import RunPlan
from bessemer_trainer.shards import Batch

_OBJECTIVES: Mapping[str, Any] = {"dpo": Dpo, "orpo": Orpo, "kto": Kto, "reward": Reward}


def run(context: Context) -> Outcome:
    """Publish the trained checkpoint. Raises TrainerError, or Preempted after the state was saved."""
    gang = start(context.spec.world_size)
    inputs = read_inputs(context, gang)
    data = gang.agree(lambda: _data(inputs))
    plan = plan_of(context, inputs, gang, len(data.pairs))
    data = replace(data, tell=lambda text: context.progress.update(0, plan.steps, text))
    # Another reference is loaded, asked and forgotten before the model that is trained is there.
    reference = _other_reference(context, inputs.stage, data, plan, gang)
    objective = gang.agree(lambda: _objective(inputs))
    task = Preference(inputs.stage.method, inputs.train, data, plan, reference)
    return train(context, gang, inputs, plan, objective, task)


def _data(inputs: Inputs) -> PairData:
    pairs = open_pairs(inputs.data_folder)
    return PairData(pairs, open_pairs(inputs.data_folder, held_out=True), mismatch(len(pairs)))


def _objective(inputs: Inputs) -> nn.Module:
    model = starting_model(inputs)
    if inputs.stage.method == "reward":
        model = reward_model(model, inputs.stage.seed)
    objective: nn.Module = _OBJECTIVES[inputs.stage.method](model, inputs.train)
    return objective


def _other_reference(
    context: Context, stage: StageInputs, data: PairData, plan: RunPlan, gang: Gang
) -> Reference | None:
    """Of a reference policy that is not where training starts. Each rank holds all of it for a while."""
    digest = stage.reference_from
    if digest is None or digest == stage.start_from or stage.train is None:
        return None
    folder = fetch(context, gang, digest)
    dtype = torch.float32 if stage.train.precision == "fp32" else torch.bfloat16
    objective = gang.agree(lambda: Dpo(load_model(folder), stage.train).to(gang.device, dtype).eval())  # type: ignore[arg-type]

    @torch.no_grad()
    def score(batch: Batch) -> tuple[Any, ...]:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(each)).to(gang.device) for name, each in batch.items()}
        return tuple(part.float().cpu().numpy() for part in objective(tensors))

    return reference_of(score, data, stage.method, plan, gang)
