"""The power of a gate before anything is trained: what its items can show."""

from pathlib import Path

import pytest

from bessemer_api.v1alpha1.gate import Baseline, Compose, Gate, GateAxis
from bessemer_operator.core.gate import designed_margin
from bessemer_operator.core.power import Truth, gate_power, impossible, items_needed, parts, simulate

DOCS = Path(__file__).parents[3] / "docs" / "gate.md"
NAMES = ("knowledge", "reasoning", "instruction", "creative")


def a_gate(axes=NAMES, at_least=3, looks=(300, 600, 1200)):
    return Gate(
        name="release",
        baseline=Baseline(base=True),
        looks=list(looks),
        compose=Compose(at_least=at_least),
        axes=[GateAxis(name=name, win_by=0.0, not_worse_than=0.05) for name in axes],
    )


def test_a_margin_of_five_points_needs_about_three_hundred_items():
    assert designed_margin(a_gate(looks=[300])) < 0.05 < designed_margin(a_gate(looks=[250]))


@pytest.mark.parametrize("items", [100, 200, 300, 600, 1200])
def test_the_smallest_margins_of_the_docs(items):
    assert f"| {items} | {designed_margin(a_gate(looks=[items])):.3f} |" in DOCS.read_text()


def test_power_of_nothing_is_the_false_promotion_rate_and_repeats():
    gate = a_gate(axes=["knowledge"], at_least=1)
    power = gate_power(gate, {}, simulations=4000)
    assert power[0] < power[1] < power[2]
    assert power[2] == pytest.approx(0.03, abs=0.01)
    assert gate_power(gate, {}, simulations=4000) == power


def test_power_falls_with_tries_and_rises_with_items():
    effects = dict.fromkeys(NAMES[:3], 0.08)
    first, tenth = gate_power(a_gate(), effects)[-1], gate_power(a_gate(), effects, tries=10)[-1]
    more = gate_power(a_gate(looks=[600, 1200, 2400]), effects)[-1]
    assert tenth < first < more


def test_further_comparisons_cost_power_and_more_so_where_they_are_worse():
    effects = dict.fromkeys(NAMES[:3], 0.06)
    alone = a_gate()
    also = alone.model_copy(update={"also_against": {"base": ["creative"]}})
    as_baseline = simulate(also, Truth(effects))[-1]
    worse = simulate(also, Truth(effects, others={"base.creative": -0.02}))[-1]
    assert worse + 0.1 < as_baseline < simulate(alone, Truth(effects))[-1]
    asked = parts(also, Truth(effects, others={"base.creative": -0.02}))[-1]
    assert (asked.asks, asked.effect, asked.line) == ("hold against base", -0.02, -0.05)


def test_the_items_of_one_question_give_it_four_chances_in_five():
    gate = a_gate(axes=["knowledge"], at_least=1)
    asked = parts(gate, Truth({"knowledge": 0.05}))[0]
    assert asked.items is not None
    bigger = a_gate(axes=["knowledge"], at_least=1, looks=[asked.items // 4, asked.items // 2, asked.items])
    assert parts(bigger, Truth({"knowledge": 0.05}))[0].chance == pytest.approx(0.8, abs=0.005)
    assert simulate(bigger, Truth({"knowledge": 0.05}))[-1] == pytest.approx(0.8, abs=0.03)


def test_items_needed_give_the_power_that_was_asked_for():
    truth = Truth(dict.fromkeys(NAMES[:3], 0.05))
    needed = items_needed(a_gate(looks=[150, 300, 600]), truth)
    assert needed is not None
    looks = [needed // 4, needed // 2, needed]
    assert simulate(a_gate(looks=looks), truth)[-1] == pytest.approx(0.8, abs=0.04)
    assert items_needed(a_gate(), Truth(dict.fromkeys(NAMES[:2], 0.1))) is None
    assert impossible(a_gate(), Truth({"creative": -0.05, **dict.fromkeys(NAMES[:3], 0.1)})) == (
        "creative truly loses its whole margin"
    )


def test_power_refuses_an_effect_larger_than_the_discordance():
    with pytest.raises(ValueError, match=r"effect 0\.3 on knowledge"):
        gate_power(a_gate(), {"knowledge": 0.3})


def test_the_worked_numbers_of_choosing_a_gate():
    page = (DOCS.parent / "choosing-a-gate.md").read_text()
    for items in (100, 300, 600, 1200):
        assert f"| {items} | {designed_margin(a_gate(looks=[items])):.3f} |" in page
    for effect in (0.1, 0.05):
        truth = Truth(dict.fromkeys(NAMES[:3], effect))
        asked = {(part.axis, part.asks): part.items for part in parts(a_gate(), truth)}
        assert f"| a win, when the truth is +{effect:.2f} | {asked['knowledge', 'win']} |" in page
        assert f"| to hold, when the truth is 0 | {asked['creative', 'hold']} |" in page
        passes, needed = simulate(a_gate(), truth)[-1], items_needed(a_gate(), truth)
        assert f"| +{effect:.2f} each | {100 * passes:.0f} % | {needed} |" in page
