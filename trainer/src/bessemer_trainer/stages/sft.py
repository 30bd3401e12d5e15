"""The verb `sft`: train a checkpoint on examples, of which only the marked tokens are targets."""

from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.dist import start
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.loop import plan_of, read_inputs, starting_model, train
from bessemer_trainer.objectives.likelihood import Likelihood
from bessemer_trainer.packed import Packed
from bessemer_trainer.shards import open_shards


def run(context: Context) -> Outcome:
    """Publish the tuned checkpoint. Raises TrainerError, or Preempted after the state was saved."""
    gang = start(context.spec.world_size)
    inputs = read_inputs(context, gang)
    shards = open_shards(inputs.data_folder, inputs.sequence_length)
    if shards.targets is None:
        raise PermanentError("MixtureInvalid", f"{inputs.stage.data}: targets.u8 is missing; sft needs to know targets")
    plan = plan_of(context, inputs, gang, shards.sequences)
    objective = gang.agree(lambda: Likelihood(starting_model(inputs), inputs.train.neftune_alpha))
    return train(context, gang, inputs, plan, objective, Packed(inputs, plan, shards, context.scratch))
