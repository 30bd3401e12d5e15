"""Figures of evidence: intervals against margins, and shares as bars. Larger is better, always to the right.

Sizes are chosen for a phone (at most 360 units wide), so that text stays readable when a figure is not scaled.
"""

from markupsafe import Markup

from bessemer_api.job import HoldEvidence
from bessemer_api.v1alpha1.gate import GateAxis
from bessemer_trainer.reporting.svg import Scale, circle, line, rect, svg, text, ticks
from bessemer_trainer.reporting.words import interval, signed


def interval_plot(evidence: HoldEvidence, axis: GateAxis, tone: str, unit: str) -> Markup:
    """Difference with its 95 % interval; the region beyond the margin is shaded."""
    low, high = min(evidence.low, -axis.not_worse_than, 0.0), max(evidence.high, axis.win_by or 0.0, 0.0)
    pad = 0.12 * (high - low)
    scale = Scale(low - pad, high + pad, 6, 334)
    margin = scale(-axis.not_worse_than)
    parts = [
        rect("worse", (6, 16), margin - 6, 34),
        line("baseline", (6, 50), (334, 50)),
        *_marks(scale),
        line("zero", (scale(0.0), 16), (scale(0.0), 50)),
        line("margin", (margin, 16), (margin, 50)),
        text("margin-name", (max(margin, 22), 11), "margin"),
        *([line("margin", (scale(axis.win_by), 16), (scale(axis.win_by), 50))] if axis.win_by else []),
        line(f"interval {tone}", (scale(evidence.low), 33), (scale(evidence.high), 33)),
        circle(f"estimate {tone}", (scale(evidence.delta), 33), 5),
    ]
    words = (
        f"{evidence.name}: difference {signed(evidence.delta)} {unit}, 95 % interval "
        f"{interval(evidence.low, evidence.high)}; margin {signed(-axis.not_worse_than)}"
    )
    return svg(340, 68, words, parts, "interval-plot")


def _marks(scale: Scale) -> list[Markup]:
    """Round numbers under the axis, and zero always."""
    parts: list[Markup] = []
    for value in ticks(scale.low, scale.high, 5):
        words = f"{value:+g}".replace("-", "−") if value else "0"
        parts.append(line("baseline", (scale(value), 50), (scale(value), 54)))
        parts.append(text("tick", (min(max(scale(value), 16), 324), 65), words))
    return parts


def difference_bar(delta: float, low: float, high: float, words: str) -> Markup:
    """A small interval around its estimate, zero in the middle of what is shown."""
    reach = max(abs(low), abs(high), 1e-9) * 1.05
    scale = Scale(-reach, reach, 4, 116)
    tone = "good" if low > 0 else "bad" if high < 0 else "open"
    parts = [
        line("zero", (scale(0.0), 0), (scale(0.0), 14)),
        line(f"interval {tone}", (scale(low), 7), (scale(high), 7)),
        circle(f"estimate {tone}", (scale(delta), 7), 3.5),
    ]
    return svg(120, 14, words, parts, "bar")


def bar(share: float, words: str) -> Markup:
    """A horizontal bar of `share` (0 to 1)."""
    parts = [rect("empty", (0, 0), 120, 8), rect("filled", (0, 0), 120 * min(max(share, 0.0), 1.0), 8)]
    return svg(120, 8, words, parts, "bar")
