"""lengthDrift: are answers much longer or shorter than before? Preference data often rewards length.

The mean over prompts of the log ratio of the answers' lengths in bytes; the level is on its size.
"""

import math
from statistics import fmean

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_trainer.evals.diagnostics.common import Case, Finding, items_for, mean_interval, required
from bessemer_trainer.evals.diagnostics.prompts import GENERATING


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """Length of sampled answers against what the stage started from."""
    start = required(case.reference, "checkpoint that it started from")
    axis, items = items_for(case, diagnostic, GENERATING)
    before, after = (
        [fmean(1 + len(answer.text.encode()) for answer in answers) for answers in arm.probe.answers(items, diagnostic)]
        for arm in (start, case.subject)
    )
    ratios = [math.log(new / old) for old, new in zip(before, after, strict=True)]
    mean, low, high = mean_interval(ratios, diagnostic.alpha)
    is_alarm = abs(mean) > diagnostic.level and (low > 0 or high < 0)
    words = f"answers are {math.exp(mean):.2f} times as long as those of {start.name} ({len(items)} of {axis.name})"
    found = [{"id": item.id, "before": old, "after": new} for item, old, new in zip(items, before, after, strict=True)]
    return Finding("Alarm" if is_alarm else "Quiet", words, abs(mean), diagnostic.level, found)
