"""jsonAnswer: the answer is a JSON object with the item's `answer` in it; text around it is allowed.

`exact`: every field is right and none is too many; `fields`: the share of right fields.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.answering import by_verifier, measure_by
from bessemer_trainer.evals.common import Sample
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items; each says whether there was valid JSON at all."""
    is_exact = axis.metric_name == "exact"

    def verifier(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"kind": "json", "answer": fields["answer"]}

    return measure_by(
        subject, items, axis, progress,
        (by_verifier(verifier), lambda verdict, _: float(verdict.is_met) if is_exact else verdict.score),
    )  # fmt: skip
