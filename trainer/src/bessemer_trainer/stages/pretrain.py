"""The verbs `pretrain` and `cpt`: train a model on a mixture of text, from a shape or from a checkpoint."""

from typing import Any

from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.dist import start
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.loop import Inputs, plan_of, read_inputs, require_positions, starting_model, train
from bessemer_trainer.model import fresh_model
from bessemer_trainer.objectives.likelihood import Likelihood
from bessemer_trainer.packed import Packed
from bessemer_trainer.shards import open_shards


def run(context: Context) -> Outcome:
    """Publish the trained checkpoint. Raises TrainerError, or Preempted after the state was saved."""
    gang = start(context.spec.world_size)
    inputs = read_inputs(context, gang)
    shards = open_shards(inputs.data_folder, inputs.sequence_length)
    plan = plan_of(context, inputs, gang, shards.sequences)
    objective = gang.agree(lambda: Likelihood(_model(inputs)))
    return train(context, gang, inputs, plan, objective, Packed(inputs, plan, shards, context.scratch))


def _model(inputs: Inputs) -> Any:  # noqa: ANN401 - transformers is untyped
    stage = inputs.stage
    if stage.method == "cpt":
        return starting_model(inputs)
    if stage.model is None:
        raise PermanentError("SpecInvalid", "stage.model: pretrain needs the model's shape")
    model = fresh_model(stage.model, inputs.start_folder, stage.seed)
    require_positions(model, inputs.sequence_length)
    return model
