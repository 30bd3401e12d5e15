"""Inline SVG for the HTML report: intervals against margins, loss curves, the flow of data. Pure: numbers to markup.

Colours and fonts come from the page's style sheet by class. Every figure has a title that says in words what it shows.
Sizes are chosen for a phone (at most 360 units wide), so that text stays readable when a figure is not scaled.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from bessemer_api.job import HoldEvidence
from bessemer_api.v1alpha1.gate import GateAxis

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
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def short_number(value: float) -> str:
    """Three digits, with k, M, B from 10,000 on: 0.125, 9,183, 40.1k, 1.23M; a true minus sign."""
    for limit, unit, divisor in ((1e9, "B", 1e9), (1e6, "M", 1e6), (1e4, "k", 1e3)):
        if abs(value) >= limit:
            return f"{value / divisor:.3g}{unit}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def signed(value: float) -> str:
    """With its sign and three decimals: +0.550, −0.012."""
    return f"{value:+.3f}".replace("-", "−")


def _svg(width: float, height: float, title: str, parts: Sequence[Markup], kind: str) -> Markup:
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>').format(
        kind, f"{width:g}", f"{height:g}", title, title
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def _line(kind: str, start: Point, end: Point) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, *start, *end)


def _text(kind: str, at: Point, words: str, anchor: str = "middle") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(kind, *at, anchor, words)


def _rect(kind: str, corner: Point, width: float, height: float) -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        kind, *corner, max(0.0, round(width, 2)), height
    )


# --- one axis: the interval of the difference against its margins ---------------------------------------------------


def interval_plot(evidence: HoldEvidence, axis: GateAxis, state: str, unit: str) -> Markup:
    """Difference with its 95 % interval, larger is better; the region beyond the margin is shaded."""
    low, high = min(evidence.low, -axis.not_worse_than, 0.0), max(evidence.high, axis.win_by or 0.0, 0.0)
    pad = 0.12 * (high - low)
    scale = Scale(low - pad, high + pad, 6, 334)
    margin = scale(-axis.not_worse_than)
    parts = [
        _rect("worse", (6, 16), margin - 6, 34),
        _line("baseline", (6, 50), (334, 50)),
        *_marks(scale),
        _line("zero", (scale(0.0), 16), (scale(0.0), 50)),
        _line("margin", (margin, 16), (margin, 50)),
        _text("margin-name", (max(margin, 22), 11), "margin"),
        *([_line("margin", (scale(axis.win_by), 16), (scale(axis.win_by), 50))] if axis.win_by else []),
        _line(f"interval {state}", (scale(evidence.low), 33), (scale(evidence.high), 33)),
        Markup('<circle class="estimate {}" cx="{}" cy="33" r="5"/>').format(state, scale(evidence.delta)),
    ]
    words = (
        f"{evidence.name}: difference {signed(evidence.delta)} {unit}, 95 % interval {signed(evidence.low)} to "
        f"{signed(evidence.high)}; margin {signed(-axis.not_worse_than)}"
    )
    return _svg(340, 68, words, parts, "interval-plot")


def _marks(scale: Scale) -> list[Markup]:
    """Round numbers under the axis, and zero always."""
    values = ticks(scale.low, scale.high, 5)
    parts: list[Markup] = []
    for value in values:
        parts.append(_line("baseline", (scale(value), 50), (scale(value), 54)))
        parts.append(
            _text("tick", (min(max(scale(value), 16), 324), 65), f"{value:+g}".replace("-", "−") if value else "0")
        )
    return parts


# --- loss over tokens -----------------------------------------------------------------------------------------------


def loss_chart(name: str, points: Sequence[Point]) -> Markup:
    """Training loss (nats a token) over tokens: every step, thin, and its moving mean. Needs two points or more."""
    losses = [y for _, y in points]
    xs, ys = Scale(0.0, points[-1][0], 44, 350), _loss_scale(losses)
    smooth = moving_mean(points, max(1, len(points) // 25))
    grid: list[Markup] = []
    for value in ticks(ys.low, ys.high):
        grid += [
            _line("grid", (44, ys(value)), (350, ys(value))),
            _text("tick", (38, ys(value) + 4), f"{value:g}", "end"),
        ]
    for value in ticks(0.0, points[-1][0], 4):
        grid.append(_text("tick", (xs(value), 200), short_number(value)))
    curves = [
        Markup('<polyline class="{}" points="{}"/>').format(kind, _path(thin_out(series, 400), xs, ys))
        for kind, series in (("every-step", points), ("mean", smooth))
    ]
    labels = [_text("label", (197, 216), "tokens"), _text("label", (44, 10), "loss, nats a token", "start")]
    words = f"Training loss of {name}: from {losses[0]:.3g} to {losses[-1]:.3g} nats a token over {len(points)} steps"
    return _svg(360, 220, words, [*grid, *curves, *labels], "chart")


def _loss_scale(losses: Sequence[float]) -> Scale:
    low, high = min(losses), max(losses)
    pad = 0.05 * (high - low) or 0.5
    return Scale(low - pad, high + pad, 184, 20)


def _path(points: Sequence[Point], xs: Scale, ys: Scale) -> str:
    return " ".join(f"{xs(x):g},{ys(y):g}" for x, y in points)


def moving_mean(points: Sequence[Point], width: int) -> list[Point]:
    """Mean of the last `width` values at each point (of fewer at the beginning)."""
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    starts = [max(0, i + 1 - width) for i in range(len(points))]
    return [(points[i][0], (sums[i + 1] - sums[s]) / (i + 1 - s)) for i, s in enumerate(starts)]


def thin_out(points: Sequence[Point], count: int) -> list[Point]:
    """At most `count` points, evenly chosen, always with the first and the last."""
    if len(points) <= count:
        return list(points)
    return [points[round(k * (len(points) - 1) / (count - 1))] for k in range(count)]


# --- flow of data ---------------------------------------------------------------------------------------------------

_ROW = 34


def flow_diagram(nodes: Sequence[tuple[str, str, str]], sources: Mapping[str, Sequence[str]]) -> Markup:
    """Stages as rows in order, (name, method, state); arcs on the left lead from what a stage reads to the stage."""
    rows = {name: i for i, (name, _, _) in enumerate(nodes)}
    arcs = [
        _arc(rows[source], rows[name])
        for name, _, _ in nodes
        for source in sources.get(name, ())
        if source in rows and rows[source] < rows[name]
    ]
    marks: list[Markup] = []
    for i, (name, method, state) in enumerate(nodes):
        y = 18 + i * _ROW
        marks.append(Markup('<circle class="node {}" cx="104" cy="{}" r="6"/>').format(state, y))
        marks.append(
            Markup('<text class="name" x="120" y="{}">{}<tspan class="tick" dx="8">{}</tspan></text>').format(
                y + 4, name, method
            )
        )
    words = "; ".join(f"{name} is made from {', '.join(made)}" for name, made in sources.items() if made)
    return _svg(340, len(nodes) * _ROW + 4, f"Flow of data: {words}", [*arcs, *marks], "flow")


def _arc(start: int, end: int) -> Markup:
    """From the lower edge of one row's circle to the upper edge of another's; the wider the longer the way."""
    above, below = 18 + start * _ROW, 18 + end * _ROW
    if end - start == 1:
        return Markup('<path class="edge" d="M104 {} L104 {}"/>').format(above + 6, below - 6)
    reach = 98 - min(88, 14 + 12 * (end - start))
    return Markup('<path class="edge" d="M98 {} C{} {} {} {} 98 {}"/>').format(above, reach, above, reach, below, below)


def bar(share: float, words: str) -> Markup:
    """A horizontal bar of `share` (0 to 1)."""
    filled = Markup('<rect class="filled" x="0" y="0" width="{}" height="8"/>').format(round(120 * share, 1))
    return _svg(120, 8, str(escape(words)), [_rect("empty", (0, 0), 120, 8), filled], "bar")
