"""How likely a gate is to pass a candidate with named true effects, by simulation. It must not decide a real gate.

For `bessemer plan` and the status before training: 0/1 items, axes independent of each other, the normal
approximation of the mean difference at each look. The early-failing rules are left out: they stop candidates that
would hardly pass.
"""

import math
import random
from collections.abc import Mapping
from itertools import pairwise

from bessemer_api.v1alpha1.gate import Gate
from bessemer_operator.core import stats
from bessemer_operator.core.gate import ASSUMED_DISCORDANCE


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
    for name, effect in effects.items():
        if abs(effect) > discordance:
            raise ValueError(f"effect {effect:g} on {name} needs a discordance of at least that, not {discordance:g}")
    source = random.Random(seed)  # noqa: S311 (a simulation that must repeat, not a secret)
    alphas = stats.look_alphas(stats.try_alpha(gate.alpha, tries), gate.looks)
    passed = [0] * len(gate.looks)
    for _ in range(simulations):
        look = _first_pass(gate, effects, discordance, alphas, source)
        for later in range(look, len(passed)):
            passed[later] += 1
    return tuple(count / simulations for count in passed)


def _first_pass(
    gate: Gate, effects: Mapping[str, float], discordance: float, alphas: tuple[float, ...], source: random.Random
) -> int:
    """Index of the look at which one simulated candidate passes; the number of looks when it never does."""
    paths = [_path(effects.get(axis.name, 0.0), discordance, gate.looks, source) for axis in gate.axes]
    for look, items in enumerate(gate.looks):
        deltas = [(axis, path[look]) for axis, path in zip(gate.axes, paths, strict=True)]
        wins = [_p(delta, axis.win_by, discordance, items) for axis, delta in deltas if axis.win_by is not None]
        holds = [_p(delta, -axis.not_worse_than, discordance, items) for axis, delta in deltas]
        if stats.gate_p(wins, holds, gate.compose.at_least) <= alphas[look]:
            return look
    return len(gate.looks)


def _path(effect: float, discordance: float, looks: list[int], source: random.Random) -> list[float]:
    """Mean difference at each look; later looks contain the items of the earlier ones."""
    spread = math.sqrt(discordance - effect**2)
    total, path = 0.0, []
    for before, items in pairwise([0, *looks]):
        new = items - before
        total += source.gauss(effect * new, spread * math.sqrt(new))
        path.append(total / items)
    return path


def _p(delta: float, null: float, discordance: float, items: int) -> float:
    return stats.upper_tail((delta - null) / math.sqrt(max(discordance - null**2, 1e-12) / items))
