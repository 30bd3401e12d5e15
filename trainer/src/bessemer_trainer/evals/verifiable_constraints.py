"""verifiableConstraints: prompts with one to three constraints that a program can check.

`strictPrompt`: 1 when the answer satisfies all of them; `instructions`: the share that it satisfies; `validEos`: 1 when
the answer ended by itself. All three are in every stored sample, whichever is the score.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.tasks import MetricName
from bessemer_trainer.evals.answering import Answer, by_verifier, measure_by
from bessemer_trainer.evals.common import Sample
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject
from bessemer_trainer.evals.verifiers import Verdict

_SCORES: Mapping[MetricName, Callable[[Verdict, Answer], float]] = {
    "strictPrompt": lambda verdict, _: float(verdict.is_met),
    "instructions": lambda verdict, _: verdict.score,
    "validEos": lambda _, answer: float(answer.ended),
}


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items."""

    def verifier(fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"kind": "constraints", "constraints": fields["constraints"]}

    return measure_by(subject, items, axis, progress, (by_verifier(verifier), _SCORES[axis.metric_name]))
