"""What a preference stage does beside its loss: batches of pairs, reference log-probabilities, held-out accuracy.

Knows no engine and no store: whoever trains passes `score`, a forward in evaluation that all ranks run equally often.
The reference is the checkpoint that training starts from, scored before the first step of every attempt: no second
model is ever held, and a resumed attempt finds the very same numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bessemer_api.v1alpha1.train import Train
from bessemer_trainer.dist import Gang
from bessemer_trainer.objectives.dpo import NORMALISED
from bessemer_trainer.objectives.kto import kl_estimate
from bessemer_trainer.pairs import PairBatch, Pairs, micro_batches, shares
from bessemer_trainer.schedule import Indices, RunPlan, global_batch

Floats = npt.NDArray[np.float32]
Batch = Mapping[str, npt.NDArray[Any]]
Score = Callable[[Batch], tuple[Floats, Floats]]
"""Sum (or reward) and length of each row of a batch."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What one model gives both completions of every pair, shape (pairs, 2): sums of log-probabilities, and tokens."""

    sums: Floats
    lengths: Floats


class Preference:
    """The pairs of one run and what is known about them."""

    def __init__(self, method: str, train: Train, pairs: Pairs, held: Pairs, plan: RunPlan) -> None:
        self._method = method
        self._by_mean = method == "orpo" or (method == "dpo" and train.loss_type in NORMALISED)
        self._beta = train.beta
        self._has_reference = method in ("dpo", "kto")
        self._pairs, self._held = pairs, held
        self._plan = plan
        self._lengths = pairs.lengths
        # A prompt's mismatched completion is that of the next pair; the mixture has shuffled them.
        self._others = np.roll(np.arange(len(pairs)), -1)
        self._reference: Scored | None = None
        self._mismatched: Scored | None = None
        self._held_reference: Scored | None = None
        self._before: dict[str, float] = {}

    def prepare(self, score: Score, gang: Gang) -> None:
        """Score the pairs with the reference policy. All ranks together, before anything is trained or resumed."""
        if self._has_reference:
            self._reference = self._score_all(self._pairs, score, gang)
        if self._method == "kto":
            self._mismatched = self._score_all(self._pairs, score, gang, self._others)
        if len(self._held) and self._has_reference:
            self._held_reference = self._score_all(self._held, score, gang)

    def measure_before(self, score: Score, gang: Gang) -> None:
        """Held-out accuracy of the model that training starts from."""
        if len(self._held):
            self._before = {"preferenceAccuracyBefore": self._accuracy(self._score_all(self._held, score, gang))}

    def measure(self, score: Score, gang: Gang) -> dict[str, float]:
        """Held-out accuracy before and now; with a reference, the rewards' margin and accuracy too."""
        if not len(self._held):
            return {}
        now = self._score_all(self._held, score, gang)
        return {**self._before, "preferenceAccuracy": self._accuracy(now), **self._rewards(now)}

    def batches(self, step: int, score: Score, gang: Gang) -> list[Batch]:
        """Micro batches of this rank in `step`."""
        batches = [self._batch(numbers) for numbers in micro_batches(self._plan, step, gang.rank, self._lengths)]
        if self._method != "kto":
            return batches
        kl = np.array(self._kl(step, score, gang), dtype=np.float32)
        return [{**batch, "kl": kl} for batch in batches]

    def trained_tokens(self, step: int) -> tuple[int, int]:
        """Tokens of the global batch of `step`, each prompt counted once, and the targets among them."""
        return self._pairs.trained_tokens(global_batch(self._plan, step))

    def _batch(self, numbers: Indices) -> Batch:
        batch = arrays(self._pairs.batch(numbers))
        if self._reference is None:
            return batch
        return {**batch, "reference": self._reference.sums[numbers].T.reshape(-1)}

    def _kl(self, step: int, score: Score, gang: Gang) -> float:
        """z0 of KTO over the whole global batch, under the policy as it is now."""
        if self._mismatched is None:
            raise RuntimeError("prepare comes first")
        total = 0.0
        for numbers in micro_batches(self._plan, step, gang.rank, self._lengths):
            batch = self._pairs.batch(numbers, self._others[numbers], self._plan.sequence_length)
            sums, _ = score(arrays(batch))
            total += float(sums.astype(np.float64).sum() - self._mismatched.sums[numbers].astype(np.float64).sum())
        return kl_estimate(gang.sum([total])[0], 2 * self._plan.batch)

    def _score_all(self, pairs: Pairs, score: Score, gang: Gang, others: Indices | None = None) -> Scored:
        """Every pair once, dealt out to the ranks."""
        found: list[tuple[Indices, Floats, Floats]] = []
        for numbers in shares(pairs.lengths, self._plan.micro, gang.rank, gang.world_size):
            real = numbers if len(numbers) else np.zeros(1, dtype=np.int64)  # an idle rank runs along, for nothing
            given = None if others is None else others[real]
            sums, lengths = score(arrays(pairs.batch(real, given, self._plan.sequence_length)))
            if len(numbers):
                found.append((numbers, sums.reshape(2, -1).T, lengths.reshape(2, -1).T))
        scored = Scored(*(np.zeros((len(pairs), 2), dtype=np.float32) for _ in "ab"))
        for part in gang.gather(found):
            for numbers, sums, lengths in part:
                scored.sums[numbers], scored.lengths[numbers] = sums, lengths
        return scored

    def _accuracy(self, scored: Scored) -> float:
        """Share of pairs whose chosen completion the model itself gives more; a tie is half."""
        values = scored.sums / scored.lengths if self._by_mean else scored.sums
        return _half_ties(values[:, 0] - values[:, 1])

    def _rewards(self, now: Scored) -> dict[str, float]:
        if self._held_reference is None:
            return {}
        ratios = now.sums - self._held_reference.sums
        if self._by_mean:
            ratios = ratios / now.lengths
        margins = self._beta * (ratios[:, 0] - ratios[:, 1])
        return {"holdoutRewardsMargin": float(margins.mean()), "holdoutRewardsAccuracy": _half_ties(margins)}


def arrays(batch: PairBatch) -> Batch:
    """The batch by name, as objectives take it."""
    return {"tokens": batch.tokens, "begins": batch.begins, "ends": batch.ends}


def _half_ties(margins: Floats) -> float:
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())
