"""exactMatch: a short answer, by generation: cloze and questions with few right answers.

`exact`: the answer, or its first line, is one of the item's `answers` (case, white space and outer punctuation aside).
`contains`: one of them stands in it. A base model goes on writing after its answer: give items a `stop`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.answering import by_verifier, measure_by
from bessemer_trainer.evals.common import Sample
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items; `score` 0 or 1."""
    kind = "contains" if axis.metric_name == "contains" else "exactMatch"

    def verifier(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"kind": kind, "answers": fields["answers"]}

    return measure_by(subject, items, axis, progress, (by_verifier(verifier), lambda verdict, _: verdict.score))
