"""distinctValidNovel: several answers to a design brief; how many of them are of use?

An answer counts when it is **valid** (it satisfies the brief's `constraints`, and the verifier of the domain agrees:
else noise would be rewarded), **novel** (no 8 words in a row stand in the training data) and **distinct** (its
similarity to each answer counted before it is below 0.7). `usable`: their number divided by the number of answers.
`vendi`: the effective number of different answers among the valid and novel ones, whatever their similarity.
"""

from collections.abc import Callable, Sequence

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals import constraints
from bessemer_trainer.evals.answering import Answer, ask, told
from bessemer_trainer.evals.common import Sample, sample_of
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.prompts import prompt_of
from bessemer_trainer.evals.similarity import copied, distinct, similarities, vendi_score
from bessemer_trainer.evals.subject import Subject
from bessemer_trainer.evals.verifiers import verify


def measure(subject: Subject, items: Sequence[Item], axis: Axis, progress: Callable[[int], None]) -> list[Sample]:
    """Samples in the order of the items; each keeps which answers were valid, novel and distinct."""
    answers = ask(subject, [(item, prompt_of(item, axis)) for item in items], axis, progress)
    flat = [answer.text for given in answers for answer in given]
    is_copied = iter(copied(flat, subject.training))
    return [
        _sample(item, axis, given, [not next(is_copied) for _ in given])
        for item, given in zip(items, answers, strict=True)
    ]


def _sample(item: Item, axis: Axis, answers: Sequence[Answer], novel: Sequence[bool]) -> Sample:
    valid = [is_valid(item, answer.text) for answer in answers]
    usable = [a and b for a, b in zip(valid, novel, strict=True)]
    similarity = similarities([answer.text for answer in answers])
    counted = distinct(similarity, usable)
    kept = [i for i, is_usable in enumerate(usable) if is_usable]
    vendi = vendi_score(similarity[kept][:, kept]) if kept else 0.0
    share = sum(counted) / len(answers)
    found = {"valid": valid, "novel": list(novel), "counted": counted, "usable": share, "vendi": vendi}
    return sample_of(item, axis, vendi if axis.metric_name == "vendi" else share, told(answers) | found)


def is_valid(item: Item, output: str) -> bool:
    """Whether the constraints hold and the verifier agrees. Raises PermanentError(BadItem) for a brief without both."""
    asked, verifier = item.fields.get("constraints"), item.fields.get("verifier")
    if asked is None and verifier is None:
        raise item.error("it has neither `constraints` nor a `verifier`", "say what makes an answer valid")
    try:
        holds = asked is None or all(constraints.satisfied(asked, output))
        return holds and (verifier is None or verify(verifier, output).is_met)
    except (ValueError, KeyError, TypeError) as error:
        raise item.error(str(error), "see docs/evaluation.md for the fields of a brief") from None
