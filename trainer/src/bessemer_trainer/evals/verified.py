"""verified and reasoningGym: an answer that the item's own verifier judges.

`score`: what the verifier gives, from 0 to 1; `exact`: 1 where all is met. reasoning-gym's items carry the verifier of
their generator; regression cases and suites of users carry any of `evals.verifiers`.
"""

from collections.abc import Callable, Sequence

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.answering import by_verifier, measure_by
from bessemer_trainer.evals.common import Sample
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject
from bessemer_trainer.evals.verifiers import verifier_of


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items."""
    is_exact = axis.metric_name == "exact"
    return measure_by(
        subject, items, axis, progress,
        (by_verifier(verifier_of), lambda verdict, _: float(verdict.is_met) if is_exact else verdict.score),
    )  # fmt: skip
