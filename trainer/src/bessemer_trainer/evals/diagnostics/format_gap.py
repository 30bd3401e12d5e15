"""formatGap: what the model knows by log-likelihood and can not say by writing the letter of a listed choice.

Continued pretraining often keeps the knowledge and loses the format. The level is on how much wider the gap became.
"""

from collections.abc import Sequence
from statistics import fmean

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.diagnostics.common import Arm, Case, Finding, items_for, mean_interval, required, table
from bessemer_trainer.evals.diagnostics.probe import changed
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.multiple_choice_letters import chosen_letter, listed


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """Accuracy by log-likelihood minus accuracy by letter, against what the stage started from."""
    start = required(case.reference, "checkpoint that it started from")
    axis, items = items_for(case, diagnostic, ["multipleChoice"])
    known = {arm.name: right_by_likelihood(arm, items, axis) for arm in (start, case.subject)}
    said = {arm.name: right_by_letter(arm, items, diagnostic) for arm in (start, case.subject)}
    gaps = {name: [float(k) - float(s) for k, s in zip(known[name], said[name], strict=True)] for name in known}
    wider = [new - old for new, old in zip(gaps[case.subject.name], gaps[start.name], strict=True)]
    mean, low, _ = mean_interval(wider, diagnostic.alpha)
    rows = [(name, fmean(known[name]), fmean(said[name]), fmean(gaps[name])) for name in known]
    words = (
        f"knows {rows[1][1]:.0%} and says {rows[1][2]:.0%}; {start.name} knew {rows[0][1]:.0%} and said "
        f"{rows[0][2]:.0%} ({len(items)} items of {axis.name})"
    )
    figure = table("Known and said", ["checkpoint", "by log-likelihood", "by letter", "gap"], rows)
    found = [
        {"id": item.id, "before": old, "after": new}
        for item, old, new in zip(items, gaps[start.name], gaps[case.subject.name], strict=True)
    ]
    is_alarm = mean > diagnostic.level and low > 0
    return Finding("Alarm" if is_alarm else "Quiet", words, mean, diagnostic.level, found, {"formatGap": figure})


def right_by_likelihood(arm: Arm, items: Sequence[Item], axis: Axis) -> list[bool]:
    """Whether the choice of the highest log-likelihood per byte is the right one, as the axis scores it."""
    return [
        choose(item, row) == item.fields["answer"]
        for item, row in zip(items, arm.probe.choices(items, axis), strict=True)
    ]


def choose(item: Item, likelihoods: Sequence[float]) -> int:
    """The choice of the highest log-likelihood per byte."""
    per_byte = [value / len(str(c).encode()) for value, c in zip(likelihoods, item.fields["choices"], strict=True)]
    return max(range(len(per_byte)), key=per_byte.__getitem__)


def right_by_letter(arm: Arm, items: Sequence[Item], diagnostic: Diagnostic) -> list[bool]:
    """Whether the letter that the model writes below the listed choices is the right one."""
    asked = [changed(item, {"prompt": listed(item, item.fields["prompt"])}) for item in items]
    short = diagnostic.model_copy(update={"max_new_tokens": min(diagnostic.max_new_tokens, 16)})
    answers = arm.probe.answers(asked, short, samples=1)
    return [
        chosen_letter(answer.text, len(item.fields["choices"])) == item.fields["answer"]
        for item, (answer,) in zip(items, answers, strict=True)
    ]
