"""sessionCost: what does a whole conversation cost? In weighted tokens; smaller is better.

Each turn pays for all tokens that the model reads (the conversation so far) and for those that it writes, by the item's
`price` (`{"input": 1, "output": 1}` by default, so the score is a count of tokens). Two arms are compared by the
logarithm of their ratio: 0.05 means 5 %.
"""

from collections.abc import Callable, Mapping, Sequence

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.answering import told
from bessemer_trainer.evals.common import Sample, sample_of
from bessemer_trainer.evals.conversation import converse
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items."""
    samples = []
    for item, dialogue in zip(items, converse(subject, items, axis, progress), strict=True):
        price: Mapping[str, float] = item.fields.get("price") or {}
        read, written = sum(dialogue.read), sum(max(1, answer.tokens) for answer in dialogue.answers)
        cost = read * float(price.get("input", 1)) + written * float(price.get("output", 1))
        detail = told(dialogue.answers) | {"read": read, "written": written}
        samples.append(sample_of(item, axis, cost, detail))
    return samples
