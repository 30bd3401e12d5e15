"""How likely a gate is to pass a candidate with named true effects, by simulation. It must not decide a real gate.

For `bessemer plan` and the status before training: axes independent of each other, the normal approximation of the
mean difference at each look. The early-failing rules are left out: they stop candidates that would hardly pass.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from bessemer_api.v1alpha1.gate import Gate, GateAxis
from bessemer_operator.core import stats
from bessemer_operator.core.gate import ASSUMED_DISCORDANCE

MOST_ITEMS = 1_000_000
ANCHOR_CORRELATION = 0.5
"""Of the differences from the baseline and from another arm on one item: the candidate's own part is in both."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is supposed to be true. All differences are oriented: larger is better; absent axes differ by 0.

    `effects`: from the baseline. `anchors`: from the anchor, for axes that have one. `others`: from what the gate is
    also against, by `<other>.<axis>` (absent: as from the baseline). `spreads`: standard deviation of an item's
    difference, for axes whose items are not right or wrong; the others differ on `discordance` of the items.
    """

    effects: Mapping[str, float] = field(default_factory=dict)
    anchors: Mapping[str, float] = field(default_factory=dict)
    others: Mapping[str, float] = field(default_factory=dict)
    spreads: Mapping[str, float] = field(default_factory=dict)
    discordance: float = ASSUMED_DISCORDANCE
    tries: int = 1

    def __post_init__(self) -> None:
        for name, effect in (*self.effects.items(), *self.anchors.items(), *self.others.items()):
            if name.rpartition(".")[2] not in self.spreads and abs(effect) > self.discordance:
                least = f"needs a discordance of at least that, not {self.discordance:g}"
                raise ValueError(f"effect {effect:g} on {name} {least}")

    def besides(self, gate: Gate) -> tuple[tuple[str, str, float], ...]:
        """What must hold beside the comparison with the baseline: axis, against what, and the true difference."""
        anchors = [
            (axis.name, "its anchor", self.anchors[axis.name]) for axis in gate.axes if axis.name in self.anchors
        ]
        also = [
            (axis, other, self.others.get(f"{other}.{axis}", self.effects.get(axis, 0.0)))
            for other, axes in gate.also_against.items()
            for axis in axes
        ]
        return (*anchors, *also)

    def variance(self, axis: str, difference: float) -> float:
        """Of one item's difference, when its mean is `difference`."""
        if axis in self.spreads:
            return self.spreads[axis] ** 2
        return max(self.discordance - difference**2, 1e-12)


def gate_power(
    gate: Gate,
    effects: Mapping[str, float],
    *,
    discordance: float = ASSUMED_DISCORDANCE,
    tries: int = 1,
    simulations: int = 4000,
    seed: int = 0,
) -> tuple[float, ...]:
    """Probability of having passed by each look, in order; the last is the power of the gate.

    `effects`: true difference by axis, larger is better (absent: 0). `discordance`: share of items on which the arms
    differ. Equal arguments give equal answers. Raises ValueError for an effect larger than the discordance.
    """
    truth = Truth(effects, discordance=discordance, tries=tries)
    return simulate(gate, truth, simulations=simulations, seed=seed)


def simulate(gate: Gate, truth: Truth, *, simulations: int = 4000, seed: int = 0) -> tuple[float, ...]:
    """Probability of having passed by each look, in order."""
    source = random.Random(seed)  # noqa: S311 (a simulation that must repeat, not a secret)
    alphas = stats.look_alphas(stats.try_alpha(gate.alpha, truth.tries), gate.looks)
    passed = [0] * len(gate.looks)
    for _ in range(simulations):
        look = _first_pass(gate, truth, alphas, source)
        for later in range(look, len(passed)):
            passed[later] += 1
    return tuple(count / simulations for count in passed)


def _first_pass(gate: Gate, truth: Truth, alphas: tuple[float, ...], source: random.Random) -> int:
    """Index of the look at which one simulated candidate passes; the number of looks when it never does."""
    noises = [_noise(gate.looks, source) for _ in gate.axes]
    besides = [(asked, _noise(gate.looks, source)) for asked in truth.besides(gate)]
    by_name = {axis.name: (axis, noise) for axis, noise in zip(gate.axes, noises, strict=True)}
    for look, items in enumerate(gate.looks):
        wins, holds = [], []
        for axis, noise in zip(gate.axes, noises, strict=True):
            delta = _mean(truth, axis, truth.effects.get(axis.name, 0.0), noise[look], items)
            wins += [] if axis.win_by is None else [_p(truth, axis, delta, axis.win_by, items)]
            holds.append(_p(truth, axis, delta, -axis.not_worse_than, items))
        for (name, _, effect), own in besides:
            axis, shared = by_name[name]
            mixed = ANCHOR_CORRELATION * shared[look] + math.sqrt(1 - ANCHOR_CORRELATION**2) * own[look]
            delta = _mean(truth, axis, effect, mixed, items)
            holds.append(_p(truth, axis, delta, -axis.not_worse_than, items))
        if stats.gate_p(wins, holds, gate.compose.at_least) <= alphas[look]:
            return look
    return len(gate.looks)


def _noise(looks: list[int], source: random.Random) -> list[float]:
    """A standard sum at each look, divided by its items; later looks contain the items of the earlier ones."""
    total, path = 0.0, []
    for before, items in pairwise([0, *looks]):
        total += source.gauss(0.0, math.sqrt(items - before))
        path.append(total / items)
    return path


def _mean(truth: Truth, axis: GateAxis, effect: float, noise: float, items: int) -> float:
    """The mean difference that this simulated bank shows."""
    return effect + math.sqrt(truth.variance(axis.name, effect)) * noise


def _p(truth: Truth, axis: GateAxis, delta: float, null: float, items: int) -> float:
    return stats.upper_tail((delta - null) / math.sqrt(truth.variance(axis.name, null) / items))


# --- why, and how many items it would take ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a gate asks, alone: its chance at the last look, and the items for a chance of `POWER`.

    `items` is None where no number of items would do: the truth is on the wrong side of the line.
    """

    axis: str
    asks: str
    effect: float
    line: float
    chance: float
    items: int | None


POWER = 0.8
"""The usual chance that is designed for."""


def parts(gate: Gate, truth: Truth) -> tuple[Part, ...]:
    """Everything that the gate asks, each alone, by the normal approximation; earlier looks are left out.

    A win is asked at alpha / (n - k + 1), as in the verdict, of each axis that has winBy.
    """
    alpha = stats.look_alphas(stats.try_alpha(gate.alpha, truth.tries), gate.looks)[-1]
    winnable = sum(axis.win_by is not None for axis in gate.axes)
    at_win = alpha / max(1, winnable - gate.compose.at_least + 1)
    found = []
    for axis in gate.axes:
        effect = truth.effects.get(axis.name, 0.0)
        if axis.win_by is not None and gate.compose.at_least:
            found.append(_part(gate, truth, axis.name, ("win", effect, axis.win_by, at_win)))
        found.append(_part(gate, truth, axis.name, ("hold", effect, -axis.not_worse_than, alpha)))
    margins = {axis.name: axis.not_worse_than for axis in gate.axes}
    for name, other, effect in truth.besides(gate):
        found.append(_part(gate, truth, name, (f"hold against {other}", effect, -margins[name], alpha)))
    return tuple(found)


def _part(gate: Gate, truth: Truth, axis: str, asked: tuple[str, float, float, float]) -> Part:
    asks, effect, line, alpha = asked
    at_null, at_truth = math.sqrt(truth.variance(axis, line)), math.sqrt(truth.variance(axis, effect))
    z, distance = stats.critical(alpha), effect - line
    chance = stats.upper_tail((z * at_null - distance * math.sqrt(gate.looks[-1])) / at_truth)
    items = None
    if distance > 0:
        items = math.ceil(((z * at_null + stats.critical(1 - POWER) * at_truth) / distance) ** 2)
    return Part(axis, asks, effect, line, chance, items)


def impossible(gate: Gate, truth: Truth) -> str:
    """Why no number of items makes this gate pass such a candidate; empty when some number does."""
    effects = {axis.name: truth.effects.get(axis.name, 0.0) for axis in gate.axes}
    won = [axis.name for axis in gate.axes if axis.win_by is not None and effects[axis.name] > axis.win_by]
    if len(won) < gate.compose.at_least:
        return f"{len(won)} axes truly gain more than their winBy, and {gate.compose.at_least} must be won"
    lost = [axis.name for axis in gate.axes if effects[axis.name] <= -axis.not_worse_than]
    margins = {axis.name: axis.not_worse_than for axis in gate.axes}
    lost += [name for name, _, effect in truth.besides(gate) if effect <= -margins[name]]
    return f"{lost[0]} truly loses its whole margin" if lost else ""


def items_needed(gate: Gate, truth: Truth, *, power: float = POWER, simulations: int = 2000) -> int | None:
    """Items at the last look (the looks keep their proportions) with which the gate has `power`; None: no number.

    To about 5 %: it is a simulation.
    """
    if impossible(gate, truth):
        return None
    low, high = 1.0, 1.0
    while simulate(_scaled(gate, high), truth, simulations=simulations)[-1] < power:
        low, high = high, high * 2
        if gate.looks[-1] * high > MOST_ITEMS:
            return None
    if high == 1.0:
        low = MIN_SCALE
    while high / low > 1.05:
        middle = math.sqrt(low * high)
        enough = simulate(_scaled(gate, middle), truth, simulations=simulations)[-1] >= power
        low, high = (low, middle) if enough else (middle, high)
    return math.ceil(gate.looks[-1] * high)


MIN_SCALE = 1 / 64


def _scaled(gate: Gate, factor: float) -> Gate:
    looks: list[int] = []
    for items in gate.looks:
        looks.append(max(looks[-1] + 1 if looks else 2, round(items * factor)))
    return gate.model_copy(update={"looks": looks})
