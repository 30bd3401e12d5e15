"""Curves of training: loss, learning rate, gradient norm, and whatever else a method logs. Pure: numbers to SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bessemer_trainer.reporting.facts import Facts, Work
from bessemer_trainer.reporting.svg import Point, Scale, line, polyline, svg, text, ticks
from bessemer_trainer.reporting.words import short_number

TITLES: Mapping[str, str] = {
    "loss": "training loss",
    "learningRate": "learning rate",
    "gradNorm": "gradient norm",
    "rewardsMargin": "margin, chosen minus rejected",
    "rewardsAccuracy": "share of pairs ranked right",
    "logpsChosen": "log-probability of chosen answers",
    "logpsRejected": "log-probability of rejected answers",
}
"""Names for people; any other number in a log is shown under its own name."""

_FIRST = ("loss", "rewardsMargin", "rewardsAccuracy", "logpsChosen", "logpsRejected", "learningRate", "gradNorm")
_HIDDEN = frozenset({"step", "tokens", "tokensPerSecond", "seconds"})
_HEIGHTS = {True: 220, False: 150}


def sections(facts: Facts) -> list[dict[str, Any]]:
    """The stages that were trained, each with its curves."""
    return [section for work in facts.works if (section := _section(work))]


def _section(work: Work) -> dict[str, Any] | None:
    if len(work.log) < 2:
        return None
    names = sorted({key for entry in work.log for key in entry} - _HIDDEN, key=_place)
    charts = [chart for name in names if (chart := _chart(work, name))]
    return {
        "name": work.name,
        "method": work.stage.method if work.stage else "",
        "charts": charts,
        "steps": len(work.log),
        "tokens": work.log[-1]["tokens"],
        "last": work.log[-1]["loss"],
        "metrics": {k: v for k, v in sorted(work.status.metrics.items()) if k.lower().startswith("holdout")},
        "run": work.input_digest,
    }


def _place(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)


def _chart(work: Work, name: str) -> Markup | None:
    points = [(entry["tokens"], entry[name]) for entry in work.log if name in entry]
    if len(points) < 2:
        return None
    unit = ", nats a token" if name == "loss" else ""
    return curve(f"{TITLES.get(name, name)}{unit}", points, smooth=name != "learningRate", large=name == "loss")


def curve(title: str, points: Sequence[Point], *, smooth: bool, large: bool) -> Markup:
    """Values over tokens: every step, thin, and its moving mean. Needs two points or more."""
    values, height = [y for _, y in points], _HEIGHTS[large]
    xs, ys = Scale(0.0, points[-1][0], 48, 350), _scale(values, height)
    series = [("every-step" if smooth else "mean", points)]
    if smooth:
        series.append(("mean", moving_mean(points, max(1, len(points) // 25))))
    drawn = [polyline(kind, [(xs(x), ys(y)) for x, y in thin_out(found, 400)]) for kind, found in series]
    labels = [text("label", (199, height - 4), "tokens"), text("label", (4, 11), title, "start")]
    words = f"{title}: from {short_number(values[0])} to {short_number(values[-1])} over {len(points)} steps"
    return svg(360, height, words, [*_grid(xs, ys, points[-1][0], height), *drawn, *labels], "chart")


def _grid(xs: Scale, ys: Scale, last: float, height: float) -> list[Markup]:
    parts: list[Markup] = []
    for value in ticks(ys.low, ys.high, 5 if height > 200 else 3):
        parts.append(line("grid", (48, ys(value)), (350, ys(value))))
        parts.append(text("tick", (43, ys(value) + 4), f"{value:g}".replace("-", "−"), "end"))
    parts += [text("tick", (xs(value), height - 20), short_number(value)) for value in ticks(0.0, last, 4)]
    return parts


def _scale(values: Sequence[float], height: float) -> Scale:
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or abs(high) * 0.05 or 0.5
    return Scale(low - pad, high + pad, height - 36, 20)


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
