"""generalLoss: does the model still predict general text as well as before the stage? In bits per byte, which do not
change with the tokenizer as nats per token do.

Alarm: the mean rise over the items is above the level, and shown to be a rise.
"""

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_trainer.evals.diagnostics.common import Case, Finding, items_for, mean_interval, required


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """Bits per byte on dev texts, against what the stage started from."""
    start = required(case.reference, "checkpoint that it started from")
    axis, items = items_for(case, diagnostic, ["bitsPerByte"])
    before, after = (arm.probe.bits_per_byte(items, axis) for arm in (start, case.subject))
    rises = [new - old for old, new in zip(before, after, strict=True)]
    mean, low, _ = mean_interval(rises, diagnostic.alpha)
    is_alarm = mean > diagnostic.level and low > 0
    words = (
        f"general text costs {mean:+.3f} bits per byte against {start.name} "
        f"(at least {low:+.3f}), on {len(items)} items of {axis.name}"
    )
    found = [{"id": item.id, "before": old, "after": new} for item, old, new in zip(items, before, after, strict=True)]
    return Finding("Alarm" if is_alarm else "Quiet", words, mean, diagnostic.level, found)
