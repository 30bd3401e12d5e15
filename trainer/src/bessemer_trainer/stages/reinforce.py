"""The verb `grpo`: reinforcement by verifiers in the prompts' rows or by a reward model (that is RLHF)."""

from dataclasses import dataclass
from typing import Any

import torch

from bessemer_api.v1alpha1.train import Grpo as Settings
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.dist import Gang, start
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.loop import Inputs, fetch, plan_of, read_inputs, starting_model, train
from bessemer_trainer.model import load_model
from bessemer_trainer.objectives.grpo import Grpo
from bessemer_trainer.reinforce import Judges, Language, Prompts, Reinforce, answer_ends, open_prompts
from bessemer_trainer.reward_model import load_reward_model
from bessemer_trainer.token_cache import load_vocabulary


@dataclass(frozen=True, slots=True)
class _Data:
    prompts: Prompts
    probe: Prompts


def run(context: Context) -> Outcome:
    """Publish the trained checkpoint. Raises TrainerError, or Preempted after the state was saved."""
    gang = start(context.spec.world_size)
    inputs = read_inputs(context, gang)
    data = gang.agree(lambda: _data(inputs))
    plan = plan_of(context, inputs, gang, len(data.prompts.rows))
    judges = _judges(context, inputs, gang)
    objective = gang.agree(lambda: Grpo(starting_model(inputs), inputs.train))
    language = gang.agree(lambda: _language(inputs))
    gang.agree(lambda: _require_room(inputs, data, objective.model))
    task = Reinforce(inputs.train, (data.prompts, data.probe), language, plan, judges)
    return train(context, gang, inputs, plan, objective, task)


def _data(inputs: Inputs) -> _Data:
    verified = inputs.stage.reward_from is None
    prompts = open_prompts(inputs.data_folder / "prompts.jsonl", verified=verified)
    held = inputs.data_folder / "holdout-prompts.jsonl"
    probe = open_prompts(held, verified=verified) if held.is_file() else Prompts((), ())
    return _Data(prompts, probe)


def _language(inputs: Inputs) -> Language:
    vocabulary = load_vocabulary(inputs.start_folder)
    return Language(vocabulary, answer_ends(inputs.data_folder, inputs.start_folder, vocabulary))


def _require_room(inputs: Inputs, data: _Data, model: Any) -> None:  # noqa: ANN401 - transformers is untyped
    """The longest prompt and the longest answer fit the model's positions."""
    settings = inputs.train.grpo or Settings.model_validate({})
    prompt = max(len(tokens) for tokens in (*data.prompts.tokens, *data.probe.tokens))
    longest = model.config.max_position_embeddings
    if prompt + settings.max_new_tokens > longest:
        raise PermanentError(
            "SequenceTooLong",
            f"a prompt of {prompt} tokens and maxNewTokens {settings.max_new_tokens}; the model is made for {longest} "
            "positions",
        )


def _judges(context: Context, inputs: Inputs, gang: Gang) -> Judges:
    """Frozen models that each rank holds whole: none without a reward model and without a KL term."""
    stage = inputs.stage
    dtype = torch.float32 if inputs.train.precision == "fp32" else torch.bfloat16

    def ready(model: Any) -> Any:  # noqa: ANN401 - transformers is untyped
        return model.to(gang.device, dtype).eval().requires_grad_(False)

    reward = reference = None
    if stage.reward_from is not None:
        gang.agree(lambda: _require_reward(context, str(stage.reward_from)))
        rewards = fetch(context, gang, stage.reward_from)
        reward = gang.agree(lambda: ready(load_reward_model(rewards)))
    if inputs.train.beta:
        digest = stage.reference_from or str(stage.start_from)
        folder = fetch(context, gang, digest)
        reference = gang.agree(lambda: ready(load_model(folder)))
    return Judges(reward, reference)


def _require_reward(context: Context, digest: str) -> None:
    kind = context.store.manifest(digest).kind
    if kind != "reward":
        raise PermanentError("WrongKind", f"stage.rewardFrom {digest} is a {kind}; expected a reward model")
