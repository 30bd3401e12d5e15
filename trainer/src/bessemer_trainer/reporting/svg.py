"""Inline SVG by hand: scales, ticks, lines, texts. Pure: numbers to markup, every text escaped.

Colours and fonts come from the page's style sheet by class, so that one figure serves light, dark and print.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] to [start, end] of the figure."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 2)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high], about `count` of them."""
    span = (high - low) or abs(high) or 1.0
    power: float = 10.0 ** math.floor(math.log10(span / count))
    step = next(f * power for f in (1.0, 2.0, 2.5, 5.0, 10.0) if span / (f * power) <= count)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{k * step:.10g}") for k in range(first, math.floor(high / step + 1e-9) + 1)]


def svg(width: float, height: float, title: str, parts: Sequence[Markup], kind: str) -> Markup:
    """A figure with a name in words; `kind` is its class."""
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>').format(
        kind, f"{width:g}", f"{height:g}", title, title
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def line(kind: str, start: Point, end: Point) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, *start, *end)


def text(kind: str, at: Point, words: str, anchor: str = "middle") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(kind, *at, anchor, words)


def rect(kind: str, corner: Point, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        kind, *corner, max(0.0, round(width, 2)), height
    )


def circle(kind: str, at: Point, radius: float) -> Markup:
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}"/>').format(kind, *at, radius)


def path(kind: str, data: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, data)


def polyline(kind: str, points: Sequence[Point]) -> Markup:
    return Markup('<polyline class="{}" points="{}"/>').format(kind, " ".join(f"{x:g},{y:g}" for x, y in points))
