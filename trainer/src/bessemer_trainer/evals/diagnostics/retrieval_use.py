"""retrievalUse: the same questions closed-book and with the passage that answers them, before and after.

Is it worth training the facts in, or would retrieval do? And does the trained model still read what it is given? Items
of multipleChoice carry `passage`. Alarm: with passages, the checkpoint is worse than the base is with them, by more
than the level and not by chance (exact McNemar test).
"""

from statistics import fmean

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_trainer.evals.diagnostics.common import Case, Finding, NotThereError, items_for, table
from bessemer_trainer.evals.diagnostics.format_gap import right_by_likelihood
from bessemer_trainer.refusals import binomial_tail


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """Accuracy by log-likelihood of base and checkpoint, without and with passages."""
    before = case.base or case.reference
    if before is None:
        raise NotThereError("there is no model from before to compare it with")
    axis, known = items_for(case, diagnostic, ["multipleChoice"])
    items = [item for item in known if item.fields.get("passage")]
    if not items:
        raise NotThereError(f"no dev item of {axis.name} has a passage")
    arms = (before, case.subject)
    closed, opened = (
        [right_by_likelihood(arm, items, axis.model_copy(update={"passages": shown})) for arm in arms]
        for shown in (None, True)
    )
    lost = sum(b and not a for b, a in zip(*opened, strict=True))
    won = sum(a and not b for b, a in zip(*opened, strict=True))
    fall = (lost - won) / len(items)
    rows = [(arm.name, fmean(without), fmean(given)) for arm, without, given in zip(arms, closed, opened, strict=True)]
    words = (
        f"{rows[1][1]:.0%} closed-book and {rows[1][2]:.0%} with passages; {before.name} {rows[0][1]:.0%} and "
        f"{rows[0][2]:.0%} ({len(items)} items of {axis.name})"
    )
    found = [
        {"id": item.id, "base": closed[0][i], "basePassage": opened[0][i], "tuned": closed[1][i],
         "tunedPassage": opened[1][i]}
        for i, item in enumerate(items)
    ]  # fmt: skip
    is_alarm = fall > diagnostic.level and binomial_tail(lost, lost + won) <= diagnostic.alpha
    figure = table("Closed-book and with passages", ["checkpoint", "closed-book", "with passages"], rows)
    return Finding("Alarm" if is_alarm else "Quiet", words, fall, diagnostic.level, found, {"retrieval": figure})
