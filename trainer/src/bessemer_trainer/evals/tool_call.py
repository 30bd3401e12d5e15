"""toolCall: the answer is a JSON call of the item's `tool`: `{"name": ..., "arguments": {...}}`.

`arguments`: the share of right arguments, where one too many counts as a wrong one; 0 for another tool or no JSON.
`call`: everything is right.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.answering import by_verifier, measure_by
from bessemer_trainer.evals.common import Sample
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items; each says whether there was valid JSON, and the right tool."""
    is_whole = axis.metric_name == "call"

    def verifier(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"kind": "toolCall", "tool": fields["tool"]}

    return measure_by(
        subject, items, axis, progress,
        (by_verifier(verifier), lambda verdict, _: float(verdict.is_met) if is_whole else verdict.score),
    )  # fmt: skip
