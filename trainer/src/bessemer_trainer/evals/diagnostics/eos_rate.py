"""eosRate: do answers still end? A model that lost its end-of-text token writes on until it is cut.

The share of answers that ended by themselves, as a ratio to that of what the stage started from; below the level is an
alarm, unless the difference can be chance (exact McNemar test).
"""

from statistics import fmean

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_trainer.evals.diagnostics.common import Case, Finding, NotThereError, items_for, required
from bessemer_trainer.evals.diagnostics.prompts import GENERATING
from bessemer_trainer.refusals import binomial_tail


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """Greedy answers to dev prompts, those of the checkpoint and those of what it started from."""
    start = required(case.reference, "checkpoint that it started from")
    axis, items = items_for(case, diagnostic, GENERATING)
    before, after = (
        [answer.ended for (answer,) in arm.probe.answers(items, diagnostic, samples=1)] for arm in (start, case.subject)
    )
    old, new = fmean(before), fmean(after)
    if not old:
        raise NotThereError(f"no answer of {start.name} ends within {diagnostic.max_new_tokens} tokens")
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    gained = sum(a and not b for b, a in zip(before, after, strict=True))
    is_alarm = new / old < diagnostic.level and binomial_tail(lost, lost + gained) <= diagnostic.alpha
    words = f"{new:.0%} of answers end, {old:.0%} of {start.name}'s ({len(items)} items of {axis.name})"
    found = [{"id": item.id, "before": b, "after": a} for item, b, a in zip(items, before, after, strict=True)]
    return Finding("Alarm" if is_alarm else "Quiet", words, new / old, diagnostic.level, found)
