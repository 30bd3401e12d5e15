"""handoff: does a structured payload survive several turns?

The user gives facts in one turn, talks of other things, and asks for a JSON object in the last of the item's `turns`.
`payload`: every field of the item's `payload` is in the last answer, and nothing else; `fields`: the share of them.
"""

from collections.abc import Callable, Sequence

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.answering import told
from bessemer_trainer.evals.common import Sample, sample_of
from bessemer_trainer.evals.conversation import converse
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject
from bessemer_trainer.evals.verifiers import verify


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items; each keeps every answer of the conversation."""
    samples = []
    for item, dialogue in zip(items, converse(subject, items, axis, progress), strict=True):
        verdict = verify({"kind": "json", "answer": item.fields["payload"]}, dialogue.answers[-1].text)
        score = verdict.score if axis.metric_name == "fields" else float(verdict.is_met)
        detail = told(dialogue.answers) | {"fields": verdict.score, **verdict.detail}
        samples.append(sample_of(item, axis, score, detail))
    return samples
