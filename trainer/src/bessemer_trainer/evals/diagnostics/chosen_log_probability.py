"""chosenLogProbability: preference training can widen the margin while it makes the preferred answer less likely too.

Read from the training log, which has it at every step: no forward pass. The level is a share of the size of the
log-probability at the beginning (Pal et al. 2024, arXiv 2402.13228, describe the failure).
"""

from collections.abc import Sequence
from statistics import fmean

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_trainer.evals.diagnostics.common import Case, Finding, NotThereError, table

CHOSEN = "logpsChosen"
MARGIN = "rewardsMargin"
"""As metrics.jsonl has what preference objectives tell."""

_SHARE = 0.1
"""Of the steps, at each end, whose mean is taken: one step is one batch."""


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """Fall of the chosen answers' log-probability between the ends of the log, while margins grow."""
    chosen, margins = _series(case, CHOSEN), _series(case, MARGIN)
    (old, new), (before, after) = _ends(chosen), _ends(margins)
    fall = (old - new) / abs(old) if old else 0.0
    is_alarm = fall > diagnostic.level and after > before
    words = (
        f"log-probability of the chosen answers went from {old:.2f} to {new:.2f} ({-fall:+.0%}) "
        f"while margins went from {before:.2f} to {after:.2f}"
    )
    rows = [("chosen", old, new), ("margin", before, after)]
    figure = table("Preference training", ["figure", "first steps", "last steps"], rows)
    return Finding("Alarm" if is_alarm else "Quiet", words, fall, diagnostic.level, figures={"preference": figure})


def _series(case: Case, name: str) -> list[float]:
    found = [entry[name] for entry in case.log if name in entry]
    if len(found) < 2:
        raise NotThereError(f"its training log has no {name}")
    return found


def _ends(values: Sequence[float]) -> tuple[float, float]:
    width = max(1, round(_SHARE * len(values)))
    return fmean(values[:width]), fmean(values[-width:])
