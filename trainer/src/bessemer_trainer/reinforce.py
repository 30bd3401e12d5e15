"""Prompts as a task of the loop: samples, their rewards and advantages, and the reward of held-out prompts.

The samples of a prompt are drawn from (seed, step, prompt), so an attempt that resumes draws what the first one would
have drawn. All samples of a step come from the policy as it is before that step, with a cache, in evaluation mode.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bessemer_api.v1alpha1.train import Grpo, Train
from bessemer_trainer.chat import FILE as TEMPLATE_FILE
from bessemer_trainer.chat import ChatTemplate, load_template
from bessemer_trainer.dist import Gang
from bessemer_trainer.engine import Engine
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals.verifiers import reward as verified_reward
from bessemer_trainer.evals.verifiers import verifier_of
from bessemer_trainer.examples import RowReader
from bessemer_trainer.loop import StepSize
from bessemer_trainer.objectives.grpo import group_advantages
from bessemer_trainer.objectives.logprobs import span, token_log_probs
from bessemer_trainer.objectives.reward import reward_scores
from bessemer_trainer.pairs import PairBatch, micro_batches, pad_rows, shares
from bessemer_trainer.preference import arrays
from bessemer_trainer.sampling import Sampler, sample, uniform_numbers
from bessemer_trainer.schedule import Indices, RunPlan
from bessemer_trainer.shards import Array, Batch
from bessemer_trainer.token_cache import Vocabulary

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prompts:
    """Rows of prompts.jsonl, and each one's tokens."""

    rows: tuple[Mapping[str, Any], ...]
    tokens: tuple[Array, ...]

    @property
    def lengths(self) -> Array:
        return np.array([len(tokens) for tokens in self.tokens], dtype=np.int64)


def open_prompts(path: Path, *, verified: bool) -> Prompts:
    """The prompts of a mixture. Raises PermanentError(MixtureInvalid | PromptInvalid) that names the row.

    `verified`: whether each row must say how an answer is checked.
    """
    if not path.is_file():
        raise PermanentError("MixtureInvalid", f"{path} is missing; grpo needs a mixture of prompts")
    rows = tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    for row in rows:
        if not row.get("tokens"):
            raise PermanentError("PromptInvalid", f"prompt {row.get('id')}: has no token")
        if verified:
            _check_verifier(row)
    return Prompts(rows, tuple(np.array(row["tokens"], dtype=np.int64) for row in rows))


def _check_verifier(row: Mapping[str, Any]) -> None:
    try:
        verifier_of(row)
    except ValueError as error:
        raise PermanentError("PromptInvalid", f"prompt {row.get('id')}: {error}") from None


def answer_ends(mixture: Path, model: Path, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Tokens at which an answer ends: end of text, what the model says, what the chat template closes a turn with."""
    told = json.loads((model / "config.json").read_text(encoding="utf-8")).get("eos_token_id")
    ends = {vocabulary.end, *(told if isinstance(told, list) else [] if told is None else [told])}
    path = mixture / TEMPLATE_FILE
    if not path.is_file():
        return tuple(sorted(ends))
    named = load_template("chatml", model)  # for the special tokens that templates may name
    tokens = named.tokens if named else {}
    reader = RowReader(vocabulary, ChatTemplate("fromModel", path.read_text(encoding="utf-8"), tokens))
    reader.pair({"prompt": "a", "chosen": "b", "rejected": "c"})
    return tuple(sorted(ends | reader.ends))


@dataclass(frozen=True, slots=True)
class Judges:
    """Models that stay as they are: of the reward (else rows are verified) and of the reference policy."""

    reward: Any = None
    reference: Any = None


@dataclass(frozen=True, slots=True)
class Samples:
    """Answers to some prompts, samples of a prompt in a row, as rows of tokens; `rewards`: (prompts, samples)."""

    batch: PairBatch
    rewards: Floats


@dataclass(frozen=True, slots=True)
class Language:
    """The tokenizer, and the tokens at which an answer ends."""

    vocabulary: Vocabulary
    ends: tuple[int, ...]


class Reinforce:
    """The task of grpo: how answers are drawn and judged."""

    def __init__(
        self, train: Train, prompts: tuple[Prompts, Prompts], language: Language, plan: RunPlan, judges: Judges
    ) -> None:
        """`prompts`: those that are trained on, and those that were set aside (perhaps none)."""
        self._settings = train.grpo or Grpo.model_validate({})
        self._prompts, self._held = prompts
        self._language = language
        self._plan = plan
        self._judges = judges
        self._told: dict[str, float] = {}
        self._size = StepSize(1, 0, 0)
        self._before: dict[str, float] = {}

    def start(self, engine: Engine, gang: Gang) -> None:
        self._before = {f"{name}Before": value for name, value in self._measured(engine, gang).items()}

    def batches(self, step: int, engine: Engine, gang: Gang) -> list[Batch]:
        """Samples of the policy as it is, judged."""
        engine.model.eval()
        numbers = micro_batches(self._plan, step, gang.rank, self._prompts.lengths)
        samples = [self._sample(self._prompts, each, step, engine.model, gang) for each in numbers]
        self._count(samples, gang)
        return [self._judged(each) for each in samples]

    def size(self, step: int) -> StepSize:
        return self._size

    def told(self, step: int) -> Mapping[str, float]:
        """Means over all samples: reward, its spread within a group, tokens of an answer."""
        return self._told

    def measure(self, engine: Engine, gang: Gang) -> Mapping[str, float]:
        return {**self._before, **self._measured(engine, gang)}

    def _measured(self, engine: Engine, gang: Gang) -> dict[str, float]:
        """Mean reward of answers to held-out prompts, always drawn with the same numbers."""
        if not self._held.rows:
            return {}
        engine.model.eval()
        total, count = 0.0, 0
        for numbers in shares(self._held.lengths, self._plan.micro, gang.rank, gang.world_size):
            real = numbers if len(numbers) else np.zeros(1, dtype=np.int64)  # an idle rank runs along, for nothing
            rewards = self._sample(self._held, real, self._plan.steps, engine.model, gang).rewards
            if len(numbers):
                total, count = total + float(rewards.sum()), count + rewards.size
        total, all_of_them = gang.sum([total, float(count)])
        return {"holdoutReward": total / all_of_them}

    def _sample(self, prompts: Prompts, numbers: Indices, step: int, model: Any, gang: Gang) -> Samples:  # noqa: ANN401
        settings = self._settings
        asked = [prompts.tokens[number] for number in numbers]
        sampler = Sampler(self._language.ends, settings.temperature, settings.max_new_tokens, _goes_on(gang))
        draws = [
            uniform_numbers(self._plan.seed, step, int(number), settings.samples, settings.max_new_tokens)
            for number in numbers
        ]
        answers = sample(model, asked, np.concatenate(draws), sampler)
        owners = np.repeat(np.arange(len(asked)), settings.samples)
        batch = pad_rows([(asked[owner], answer) for owner, answer in zip(owners, answers, strict=True)])
        rewards = self._rewards([prompts.rows[numbers[owner]] for owner in owners], answers, batch)
        return Samples(batch, rewards.reshape(len(asked), settings.samples))

    def _rewards(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[Array], batch: PairBatch) -> Floats:
        if self._judges.reward is None:
            texts = self._language.vocabulary.tokenizer.decode_batch([answer.tolist() for answer in answers])
            return np.array([verified_reward(row, text) for row, text in zip(rows, texts, strict=True)])
        model = self._judges.reward
        with torch.no_grad():
            scores = reward_scores(model, _tensor(batch.tokens, model), _tensor(batch.ends, model))
        return scores.double().cpu().numpy()

    def _judged(self, samples: Samples) -> Batch:
        batch = samples.batch
        advantages = group_advantages(torch.from_numpy(samples.rewards)).float().flatten().numpy()
        judged = {**arrays(batch), "advantages": advantages}
        model = self._judges.reference
        if model is None:
            return judged
        tokens, begins, ends = (_tensor(each, model) for each in (batch.tokens, batch.begins, batch.ends))
        with torch.no_grad():
            values = token_log_probs(model, tokens, span(begins, ends, tokens.shape[1]))
        return {**judged, "reference": values.cpu().numpy()}

    def _count(self, samples: Sequence[Samples], gang: Gang) -> None:
        rewards = np.concatenate([each.rewards for each in samples])
        answers = sum(int((each.batch.ends - each.batch.begins).sum()) for each in samples)
        everything = sum(int(each.batch.ends.sum()) for each in samples)
        spread = float(rewards.std(axis=1, ddof=1).sum())
        counted = [float(rewards.sum()), spread, float(answers), float(everything)]
        total, spread, all_answers, all_tokens = gang.sum(counted)
        count = self._plan.batch * self._settings.samples
        self._size = StepSize(count, int(all_tokens), int(all_answers))
        self._told = {
            "reward": total / count,
            "reward_std": spread / self._plan.batch,
            "answer_tokens": all_answers / count,
        }


def _goes_on(gang: Gang) -> Callable[[bool], bool]:
    """Every rank runs as many forwards as the one with the longest answer."""
    return lambda unfinished: gang.sum([float(unfinished)])[0] > 0


def _tensor(array: Array, model: Any) -> Tensor:  # noqa: ANN401 - transformers is untyped
    return torch.from_numpy(array).to(next(model.parameters()).device)
