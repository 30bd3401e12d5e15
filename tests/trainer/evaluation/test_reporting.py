"""The parts of the report that reckon or lay out: what is missing in items, lanes of a lineage, words and curves."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from bessemer_api.job import AxisEvidence
from bessemer_api.v1alpha1.gate import Gate
from bessemer_trainer.reporting import choices, graph, shortfall, words
from bessemer_trainer.reporting.shortfall import Claim

GATE = Gate.model_validate({
    "name": "release", "baseline": {"base": True}, "looks": [300, 600], "compose": {"atLeast": 1},
    "axes": [{"name": "knowledge", "winBy": 0.0, "notWorseThan": 0.05}, {"name": "style", "notWorseThan": 0.1}],
})  # fmt: skip


def evidence(delta: float, se: float, n: int = 600) -> AxisEvidence:
    return AxisEvidence.model_validate({
        "name": "knowledge", "n": n, "clusters": n, "largestClusterShare": 1 / n, "delta": delta, "standardError": se,
        "low": delta - 1.96 * se, "high": delta + 1.96 * se, "pWin": 0.5, "pHold": 0.5, "pWorse": 0.5, "pNoWin": 0.5,
        "baselineMean": 0.5, "candidateMean": 0.5 + delta, "baselineLow": 0.4, "binary": True,
    })  # fmt: skip


def test_the_items_that_are_asked_for_show_the_claim_in_80_percent_of_gates() -> None:
    gain, discordance, alpha = 0.04, 0.2, 0.03
    spread = math.sqrt(discordance - gain**2)
    needed = shortfall.items_needed(evidence(gain, spread / math.sqrt(600)), Claim("knowledge", "", 0.0, alpha))
    assert needed is not None
    generator = np.random.Generator(np.random.PCG64(4))
    chances = [(discordance + gain) / 2, (discordance - gain) / 2, 1 - discordance]
    flips = generator.multinomial(needed, chances, size=4000)
    means = (flips[:, 0] - flips[:, 1]) / needed
    errors = np.sqrt(((flips[:, 0] + flips[:, 1]) / needed - means**2) / needed)
    shown = float((means / errors > NormalDist().inv_cdf(1 - alpha)).mean())
    assert shown == pytest.approx(shortfall.POWER, abs=0.03)


@pytest.mark.parametrize(
    ("delta", "se", "bound", "expected"),
    [
        pytest.param(-0.01, 0.02, 0.0, None, id="an estimate on the wrong side is not mended by items"),
        pytest.param(0.0, 0.0, -0.05, None, id="no spread, no reckoning"),
        pytest.param(0.5, 0.01, 0.0, 2, id="a large effect needs few"),
    ],
)
def test_the_number_of_items(delta: float, se: float, bound: float, expected: int | None) -> None:
    assert shortfall.items_needed(evidence(delta, se), Claim("knowledge", "", bound, 0.03)) == expected


def test_a_later_try_needs_more_items() -> None:
    found = [shortfall.items_needed(evidence(0.02, 0.02), shortfall.claims(GATE, tries)[0]) or 0 for tries in (1, 2, 5)]
    assert found == sorted(found)
    assert found[0] < found[2]


def test_only_what_was_not_shown_is_listed() -> None:
    from bessemer_api.job import CompareReport

    style = evidence(0.0, 0.02).model_copy(update={"name": "style"})
    report = CompareReport(look=2, tries=1, axes=[evidence(0.01, 0.02), style], settings_agree=True)
    listed = [
        (x["axis"], x["claim"]) for x in shortfall.shortfalls(GATE, report, {"knowledge": "Holds", "style": "Won"})
    ]
    assert listed == [("knowledge", "better by more than 0")]
    assert shortfall.shortfalls(GATE, report, {"knowledge": "Worse", "style": "Holds"}) == []


def test_no_line_of_a_lineage_runs_through_a_node_that_it_does_not_concern() -> None:
    generator = np.random.Generator(np.random.PCG64(7))
    for _ in range(50):
        count = int(generator.integers(2, 25))
        nodes = [
            graph.Node(str(i), str(i), "", "stage", "good",
                       tuple(str(int(j)) for j in generator.integers(0, i, size=min(i, 2))) if i else ())
            for i in range(count)
        ]  # fmt: skip
        lane = graph.lanes(nodes)
        for i, node in enumerate(nodes):
            for source in node.sources:
                between = [lane[str(k)] for k in range(int(source) + 1, i)]
                assert lane[source] not in between, (source, node.key, lane)


def test_a_cycle_of_artifacts_is_drawn_all_the_same() -> None:
    nodes = [graph.Node("a", "a", "", "stage", "good", ("b",)), graph.Node("b", "b", "", "stage", "good", ("a",))]
    assert {node.key for node in graph.in_order(nodes)} == {"a", "b"}
    assert "<svg" in graph.draw(graph.in_order(nodes))


@pytest.mark.parametrize(
    ("lows", "has_control", "said"),
    [
        ([0.01, 0.02, 0.03], True, "better than every parent and than the linear control (dev items)"),
        ([0.01, -0.02, 0.03], True, "none shown"),
        ([0.01, 0.02], False, "not stated: no linear control was measured"),
    ],
    ids=["better than all", "not better than one parent", "no control"],
)
def test_synergy_is_stated_only_against_every_parent_and_the_control(
    lows: list[float], has_control: bool, said: str
) -> None:
    against = [evidence(low + 0.02, 0.01).model_copy(update={"low": low}) for low in lows]
    assert choices.synergy(against, has_control=has_control) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(12.4, "12 s"), (425, "7 min 5 s"), (3600, "1 h"), (18720, "5 h 12 min"), (273600, "3 d 4 h")],
)
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said
