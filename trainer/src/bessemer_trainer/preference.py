"""Preference pairs as a task of the loop: batches, reference log-probabilities, held-out accuracy before and after.

The reference is the checkpoint that training starts from, scored before the first step of every attempt: no second
model is ever held, and an attempt that resumes finds the very same numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.dist import Gang
from bessemer_trainer.engine import Engine
from bessemer_trainer.loop import StepSize
from bessemer_trainer.objectives.dpo import NORMALISED
from bessemer_trainer.objectives.kto import kl_estimate
from bessemer_trainer.pairs import PairBatch, Pairs, micro_batches, shares
from bessemer_trainer.schedule import Indices, RunPlan, global_batch
from bessemer_trainer.shards import Batch

Floats = npt.NDArray[np.float32]
Score = Callable[[Batch], tuple[Floats, ...]]
"""Two values of each row of a batch: the sum of its completion's log-probabilities (or its reward), and its length."""

Tell = Callable[[str], None]
"""Says how far the scoring is: long work is never silent."""

REFERENCE_METHODS = frozenset({"dpo", "kto"})


@dataclass(frozen=True, slots=True)
class Scored:
    """What one model gives both completions of every pair, shape (pairs, 2)."""

    sums: Floats
    lengths: Floats


@dataclass(frozen=True, slots=True)
class PairData:
    """The pairs of one run, and for each the pair whose completions its prompt is mismatched with (KTO)."""

    pairs: Pairs
    held: Pairs
    others: Indices
    tell: Tell = lambda _text: None


@dataclass(frozen=True, slots=True)
class Reference:
    """What the reference policy gives the pairs, the held-out pairs, and the mismatched pairs of KTO."""

    pairs: Scored
    held: Scored
    mismatched: Scored | None = None


def mismatch(pairs: int) -> Indices:
    """Each prompt meets the completions of the next pair; the mixture has shuffled them."""
    return np.roll(np.arange(pairs, dtype=np.int64), -1)


def reference_of(score: Score, data: PairData, method: str, plan: RunPlan, gang: Gang) -> Reference:
    """Score all pairs. All ranks together."""
    return Reference(
        score_all(score, data.pairs, plan, gang, tell=data.tell),
        score_all(score, data.held, plan, gang),
        score_all(score, data.pairs, plan, gang, data.others, data.tell) if method == "kto" else None,
    )


def score_all(
    score: Score,
    pairs: Pairs,
    plan: RunPlan,
    gang: Gang,
    others: Indices | None = None,
    tell: Tell = lambda _text: None,
) -> Scored:
    """Every pair once, dealt out to the ranks; `others`: the pairs whose completions are taken instead."""
    found: list[tuple[Indices, Floats, Floats]] = []
    batches = shares(pairs.lengths, plan.micro, gang.rank, gang.world_size)
    for done, numbers in enumerate(batches):
        tell(f"the reference has scored {done * plan.micro * gang.world_size} of {len(pairs)} pairs")
        real = numbers if len(numbers) else np.zeros(1, dtype=np.int64)  # an idle rank runs along, for nothing
        given = None if others is None else others[real]
        sums, lengths = score(arrays(pairs.batch(real, given, plan.sequence_length)))
        if len(numbers):
            found.append((numbers, sums.reshape(2, -1).T, lengths.reshape(2, -1).T))
    scored = Scored(*(np.zeros((len(pairs), 2), dtype=np.float32) for _ in "ab"))
    for part in gang.gather(found):
        for numbers, sums, lengths in part:
            scored.sums[numbers], scored.lengths[numbers] = sums, lengths
    return scored


class Preference:
    """The task of the methods on pairs."""

    def __init__(
        self, method: str, train: Train, data: PairData, plan: RunPlan, reference: Reference | None = None
    ) -> None:
        """`reference`: of another checkpoint than the one that training starts from."""
        self._method, self._train, self._data, self._plan = method, train, data, plan
        self._by_mean = method == "orpo" or (method == "dpo" and train.loss_type in NORMALISED)
        self._lengths = data.pairs.lengths
        self._reference = reference
        self._before: dict[str, float] = {}

    def start(self, engine: Engine, gang: Gang) -> None:
        """The weights are still those that training starts from: score the pairs with them."""
        if self._method in REFERENCE_METHODS and self._reference is None:
            self._reference = reference_of(engine.score, self._data, self._method, self._plan, gang)
        if len(self._data.held):
            before = score_all(engine.score, self._data.held, self._plan, gang)
            self._before = {"preferenceAccuracyBefore": self._accuracy(before)}

    def batches(self, step: int, engine: Engine, gang: Gang) -> list[Batch]:
        numbers = micro_batches(self._plan, step, gang.rank, self._lengths)
        batches = [self._batch(each) for each in numbers]
        if self._reference is None or self._reference.mismatched is None:
            return batches
        kl = np.array(self._kl(numbers, self._reference.mismatched, engine, gang), dtype=np.float32)
        return [{**batch, "kl": kl} for batch in batches]

    def size(self, step: int) -> StepSize:
        tokens, targets = self._data.pairs.trained_tokens(global_batch(self._plan, step))
        return StepSize(self._plan.batch, tokens, targets)

    def told(self, step: int) -> Mapping[str, float]:
        return {}

    def measure(self, engine: Engine, gang: Gang) -> Mapping[str, float]:
        """Held-out accuracy before and now; with a reference the rewards' margin and accuracy too."""
        if not len(self._data.held):
            return {}
        now = score_all(engine.score, self._data.held, self._plan, gang)
        return {**self._before, "preferenceAccuracy": self._accuracy(now), **self._rewards(now)}

    def _batch(self, numbers: Indices) -> Batch:
        batch = arrays(self._data.pairs.batch(numbers))
        if self._reference is None:
            return batch
        return {**batch, "reference": self._reference.pairs.sums[numbers].T.reshape(-1)}

    def _kl(self, numbers: list[Indices], reference: Scored, engine: Engine, gang: Gang) -> float:
        """z0 of KTO over the whole global batch, under the policy as it is now."""
        total = 0.0
        for each in numbers:
            batch = self._data.pairs.batch(each, self._data.others[each], self._plan.sequence_length)
            sums = engine.score(arrays(batch))[0].astype(np.float64)
            total += float(sums.sum() - reference.sums[each].astype(np.float64).sum())
        return kl_estimate(gang.sum([total])[0], 2 * self._plan.batch)

    def _accuracy(self, scored: Scored) -> float:
        """Share of pairs whose chosen completion the model itself gives more; a tie is half."""
        values = scored.sums / scored.lengths if self._by_mean else scored.sums
        return _half_ties(values[:, 0] - values[:, 1])

    def _rewards(self, now: Scored) -> dict[str, float]:
        if self._reference is None:
            return {}
        ratios = now.sums - self._reference.held.sums
        if self._by_mean:
            ratios = ratios / now.lengths
        margins = self._train.beta * (ratios[:, 0] - ratios[:, 1])
        return {"holdoutRewardsMargin": float(margins.mean()), "holdoutRewardsAccuracy": _half_ties(margins)}


def arrays(batch: PairBatch) -> Batch:
    """The batch by name, as objectives take it."""
    return {"tokens": batch.tokens, "begins": batch.begins, "ends": batch.ends}


def _half_ties(margins: npt.NDArray[Any]) -> float:
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())
