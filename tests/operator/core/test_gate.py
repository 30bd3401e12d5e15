"""The gate, rule by rule. Evidence is made by the trainer's statistics from counts of items won and lost, unless a
test is about evidence that no trainer would make."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer_api.job import AxisEvidence, CompareReport, RunError, RunReport
from bessemer_api.v1alpha1.gate import Baseline, Compose, Gate, GateAxis
from bessemer_operator.core.gate import decide, judge
from bessemer_operator.core.verdict import Asked, Decision, Reason
from bessemer_trainer.statistics import Pairs, axis_evidence

DOCS = Path(__file__).parents[3] / "docs" / "gate.md"
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
NAMES = ("knowledge", "reasoning", "instruction", "creative")


def a_gate(axes=NAMES, at_least=3, win_by=0.0, margin=0.05, looks=(300, 600, 1200), **more):
    return Gate(
        name="release",
        baseline=Baseline(base=True),
        looks=list(looks),
        compose=Compose(at_least=at_least),
        axes=[GateAxis(name=name, win_by=win_by, not_worse_than=margin) for name in axes],
        **more,
    )


def evidence(name, wins, losses, n, axis=None, **changes):
    """Evidence of n independent 0/1 items; the baseline is right on half of those that did not flip."""
    baseline, candidate = np.zeros(n), np.zeros(n)
    candidate[:wins] = 1
    baseline[wins : wins + losses] = 1
    both = slice(wins + losses, wins + losses + (n - wins - losses) // 2)
    baseline[both] = candidate[both] = 1
    pairs = Pairs(baseline, candidate, np.arange(n), np.zeros(n, dtype=int))
    found = axis_evidence(pairs, axis or GateAxis(name=name, win_by=0.0, not_worse_than=0.05))
    return found.model_copy(update=changes)


def a_report(*axes, look=3, anchors=(), **more):
    return CompareReport(
        look=look, tries=more.pop("tries", 1), axes=list(axes), anchors=list(anchors), settings_agree=True, **more
    )


def judged(gate, report, anchors=()):
    return judge(gate, report, Asked(DIGEST, report.look, frozenset(anchors)))


WON, EVEN, BIT_WORSE, WORSE = (180, 60), (120, 120), (110, 140), (40, 190)


def four(counts, look=3, **more):
    """A report at this look on the four axes; counts are (wins, losses) of 1,200 items, scaled to the look."""
    n = (300, 600, 1200)[look - 1]
    axes = [evidence(name, w * n // 1200, x * n // 1200, n) for name, (w, x) in zip(NAMES, counts, strict=True)]
    return a_report(*axes, look=look, **more)


VERDICTS = {
    "three clear wins and a fourth that holds": (four([WON, WON, WON, EVEN]), "Passed", "GatePassed", None),
    "four clear wins": (four([WON] * 4), "Passed", "GatePassed", None),
    "two wins only, at the last look": (four([WON, WON, EVEN, EVEN]), "Failed", "NotShown", None),
    "two wins only, at the second look": (four([WON, WON, EVEN, EVEN], look=2), "Inconclusive", "NextLook", 3),
    "nothing known yet at the first look": (four([EVEN] * 4, look=1), "Inconclusive", "NextLook", 2),
    "three wins but the fourth may be worse": (four([WON, WON, WON, BIT_WORSE]), "Failed", "NotShown", None),
    "three wins and a fourth that is worse": (four([WON, WON, WON, WORSE]), "Failed", "ProvenWorse", None),
    "worse already at the first look": (four([WON, WON, WON, WORSE], look=1), "Failed", "ProvenWorse", None),
    "two axes without any hope of a win": (four([WON, WON, (60, 100), (60, 100)]), "Failed", "WinsImpossible", None),
    "one axis without hope leaves three": (four([WON, WON, WON, (20, 45)]), "Passed", "GatePassed", None),
    "an enormous win at the first look": (four([(480, 0)] * 3 + [EVEN], look=1), "Inconclusive", "NextLook", 2),
    "an enormous win that holds on all at the first look": (four([(480, 0)] * 4, look=1), "Passed", "GatePassed", None),
    "a veto over four wins": (four([WON] * 4, vetoes=["contamination"]), "Failed", "Veto", None),
}


@pytest.mark.parametrize(("report", "verdict", "reason", "next_look"), VERDICTS.values(), ids=VERDICTS)
def test_verdict_of_three_of_four(report, verdict, reason, next_look):
    decision = judged(a_gate(), report)
    assert (decision.verdict, decision.reason, decision.next_look) == (verdict, reason, next_look), decision.message


def test_the_message_says_the_numbers():
    decision = judged(a_gate(), four([WON, WON, WON, EVEN]))
    assert decision.message == (
        "3 of 4 axes won, 3 needed (p 9.5e-15); 4 of 4 comparisons hold (largest p 7e-05). "
        "Look 3 of 3, try 1, alpha 0.028."
    )
    assert [axis.state for axis in decision.axes] == ["Won", "Won", "Won", "Holds"]
    assert decision.wins == NAMES[:3]


@pytest.mark.parametrize("look", [1, 2, 3])
def test_the_worked_example_of_the_docs(look):
    decision = judged(a_gate(), four([(150, 100), (140, 95), (145, 101), (118, 122)], look=look))
    assert f'`{decision.verdict}`. "{decision.message}"' in DOCS.read_text()


def test_every_reason_is_in_the_docs():
    text = DOCS.read_text()
    assert [reason for reason in Reason if f"`{reason}`" not in text] == []


def test_the_message_of_a_worse_axis_names_it_with_its_interval():
    decision = judged(a_gate(), four([WON, WON, WON, WORSE]))
    assert decision.message.startswith(
        "Axis creative is worse than the baseline by more than 0.05: difference -0.1250, 95 % interval -0.1"
    )
    assert decision.axes[3].state == "Worse"


def test_alpha_of_the_looks_adds_up_to_that_of_the_try():
    decisions = [judged(a_gate(), four([EVEN] * 4, look=look)) for look in (1, 2, 3)]
    assert [d.alpha_spent for d in decisions] == pytest.approx(np.cumsum([d.alpha for d in decisions]))
    assert decisions[-1].alpha_spent == pytest.approx(6 * 0.05 / math.pi**2)


def test_a_later_try_needs_stronger_evidence():
    counts = [(150, 100)] * 3 + [EVEN]
    verdicts = {tries: judged(a_gate(), four(counts, tries=tries)).verdict for tries in (1, 2, 10)}
    assert verdicts == {1: "Passed", 2: "Passed", 10: "Failed"}


# --- other shapes of gates ------------------------------------------------------------------------------------------


def bits_per_byte(shift, spread=0.1, n=300, seed=0):
    """Evidence of a continuous loss that is smaller by `shift`; an axis without winBy."""
    random = np.random.default_rng(seed)
    baseline = -random.normal(4.5, 0.4, size=n)
    difference = random.normal(0, spread, size=n)
    difference += shift - difference.mean()
    pairs = Pairs(baseline, baseline + difference, np.arange(n), np.zeros(n, dtype=int))
    return axis_evidence(pairs, GateAxis(name="generalLoss", not_worse_than=0.05))


def two_axis_gate(looks=(300,)):
    axes = [
        GateAxis(name="knowledge", win_by=0.0, not_worse_than=0.05),
        GateAxis(name="generalLoss", not_worse_than=0.05),
    ]
    return a_gate(looks=looks, at_least=1).model_copy(update={"axes": axes})


SHAPES = {
    "knowledge wins and the loss holds": (70, 30, 0.0, "Passed", "GatePassed"),
    "knowledge wins and the loss is slightly worse": (70, 30, -0.02, "Passed", "GatePassed"),
    "knowledge wins and the loss may be worse": (70, 30, -0.045, "Failed", "NotShown"),
    "knowledge wins and the loss is proven worse": (70, 30, -2.9, "Failed", "ProvenWorse"),
    "knowledge does not win": (50, 50, 0.0, "Failed", "NotShown"),
    "a better loss is no win": (50, 50, 0.5, "Failed", "NotShown"),
}


@pytest.mark.parametrize(("wins", "losses", "shift", "verdict", "reason"), SHAPES.values(), ids=SHAPES)
def test_a_gate_of_one_axis_to_win_and_one_to_hold(wins, losses, shift, verdict, reason):
    report = a_report(evidence("knowledge", wins, losses, 300), bits_per_byte(shift), look=1)
    decision = judged(two_axis_gate(), report)
    assert (decision.verdict, decision.reason) == (verdict, reason), decision.message
    assert decision.axes[1].state != "Won"


@pytest.mark.parametrize(
    ("shift", "verdict"), [(0.0, "Passed"), (-0.02, "Passed"), (-0.05, "Failed"), (-1.0, "Failed")]
)
def test_a_gate_of_one_axis_that_must_only_hold(shift, verdict):
    gate = two_axis_gate().model_copy(update={"compose": Compose(at_least=0)})
    gate = gate.model_copy(update={"axes": gate.axes[1:]})
    assert judged(gate, a_report(bits_per_byte(shift), look=1)).verdict == verdict


@pytest.mark.parametrize(("axes_won", "verdict"), [(1, "Failed"), (2, "Passed"), (3, "Passed")])
def test_two_of_three_that_can_win_beside_one_that_can_not(axes_won, verdict):
    axes = [GateAxis(name=n, win_by=None if n == "creative" else 0.0, not_worse_than=0.05) for n in NAMES]
    gate = a_gate(at_least=2).model_copy(update={"axes": axes})
    decision = judged(gate, four([WON] * axes_won + [EVEN] * (3 - axes_won) + [WON]))
    assert decision.verdict == verdict
    assert len(decision.wins) == axes_won


def test_a_win_by_more_needs_more():
    wide = GateAxis(name="knowledge", win_by=0.08, not_worse_than=0.05)
    gate = a_gate(axes=["knowledge"], at_least=1).model_copy(update={"axes": [wide]})
    assert judged(gate, a_report(evidence("knowledge", *WON, 1200, axis=wide))).verdict == "Failed"
    assert judged(gate, a_report(evidence("knowledge", 260, 60, 1200, axis=wide))).verdict == "Passed"


# --- anchors --------------------------------------------------------------------------------------------------------


def test_a_slow_slide_is_stopped_by_the_anchor():
    """Against the incumbent the fourth axis holds, but against the release that last won on it, it does not."""
    report = four([WON, WON, WON, (115, 125)])
    assert judged(a_gate(), report).verdict == "Passed"
    anchored = report.model_copy(update={"anchors": [evidence("creative", 100, 150, 1200)]})
    decision = judged(a_gate(), anchored, anchors=["creative"])
    assert (decision.verdict, decision.reason) == ("Failed", "NotShown")
    lost = report.model_copy(update={"anchors": [evidence("creative", *WORSE, 1200)]})
    decision = judged(a_gate(), lost, anchors=["creative"])
    assert (decision.verdict, decision.reason) == ("Failed", "ProvenWorse")
    assert "worse than its anchor" in decision.message


def test_an_anchor_that_holds_lets_pass():
    report = four([WON, WON, WON, EVEN], anchors=[evidence("creative", *EVEN, 1200)])
    assert judged(a_gate(), report, anchors=["creative"]).verdict == "Passed"


# --- invalid --------------------------------------------------------------------------------------------------------

PASSING = four([WON, WON, WON, EVEN])


def changed(axis=0, **changes):
    """The passing report with one axis changed; no validation, as if a report were forged."""
    axes = list(PASSING.axes)
    axes[axis] = axes[axis].model_copy(update=changes)
    return PASSING.model_copy(update={"axes": axes})


NOT_EVIDENCE = {
    "an axis is missing": (PASSING.model_copy(update={"axes": PASSING.axes[:3]}), "MissingData"),
    "no axis at all": (PASSING.model_copy(update={"axes": []}), "MissingData"),
    "an axis twice": (PASSING.model_copy(update={"axes": [*PASSING.axes[:3], PASSING.axes[0]]}), "MissingData"),
    "an axis that was not asked": (
        PASSING.model_copy(update={"axes": [*PASSING.axes, evidence("other", *WON, 1200)]}),
        "MissingData",
    ),
    "fewer items than the look": (changed(n=1199), "MissingData"),
    "more items than the look": (changed(n=1201), "MissingData"),
    "a p that is no number": (changed(p_win=math.nan), "NotANumber"),
    "an infinite difference": (changed(delta=math.inf), "NotANumber"),
    "a p under zero": (changed(p_hold=-0.1), "NotANumber"),
    "a p over one": (changed(p_worse=1.5), "NotANumber"),
    "a p that is absent": (changed(p_hold=None), "NotANumber"),
    "a negative standard error": (changed(standard_error=-1.0), "NotANumber"),
    "settings that differ": (PASSING.model_copy(update={"settings_agree": False}), "SettingsDiffer"),
    "another look": (PASSING.model_copy(update={"look": 2}), "DigestMismatch"),
    "a try that was not counted": (PASSING.model_copy(update={"tries": 0}), "MissingData"),
    "an anchor that was not asked": (
        PASSING.model_copy(update={"anchors": [evidence("creative", *EVEN, 1200)]}),
        "MissingData",
    ),
    "nineteen clusters": (changed(clusters=19), "TooFewClusters"),
    "one cluster with over a tenth of the items": (changed(largest_cluster_share=0.11), "TooFewClusters"),
    "no spread in a continuous axis": (changed(binary=False, standard_error=0.0), "NoSpread"),
    "a continuous axis with too large an error": (changed(binary=False, standard_error=0.03), "Underpowered"),
    "a held axis at the floor": (changed(axis=3, chance=0.5, baseline_low=0.54), "BaselineAtFloor"),
}


@pytest.mark.parametrize(("report", "reason"), NOT_EVIDENCE.values(), ids=NOT_EVIDENCE)
def test_what_is_not_evidence_is_invalid(report, reason):
    decision = judge(a_gate(), report, Asked(DIGEST, 3))
    assert (decision.verdict, decision.reason, decision.next_look) == ("Invalid", reason, None), decision.message


def test_an_anchor_that_was_asked_must_be_there():
    assert judged(a_gate(), PASSING, anchors=["creative"]).reason == "MissingData"


@pytest.mark.parametrize("look", [0, 4])
def test_a_look_that_the_gate_does_not_have_is_invalid(look):
    report = PASSING.model_copy(update={"look": look})
    assert judged(a_gate(), report).verdict == "Invalid"


def test_a_margin_too_small_for_the_items_is_invalid_before_anything_is_won():
    gate = a_gate(looks=[200])
    report = a_report(*[evidence(name, 60, 5, 200) for name in NAMES], look=1)
    decision = judged(gate, report)
    assert (decision.verdict, decision.reason) == ("Invalid", "Underpowered")


# --- the floor ------------------------------------------------------------------------------------------------------

FLOOR = {"chance": 0.25, "baseline_low": 0.24}


def test_a_win_from_the_floor_is_a_win():
    report = four([WON, WON, WON, EVEN])
    axes = [report.axes[0].model_copy(update=FLOOR), *report.axes[1:]]
    assert judged(a_gate(), report.model_copy(update={"axes": axes})).verdict == "Passed"


def test_an_axis_at_the_floor_may_still_be_won_at_a_later_look():
    report = four([(300, 20)] * 3 + [(10, 10)], look=2)
    assert judged(a_gate(), report).verdict == "Passed"
    axes = [*report.axes[:3], report.axes[3].model_copy(update=FLOOR)]
    decision = judged(a_gate(), report.model_copy(update={"axes": axes}))
    assert (decision.verdict, decision.next_look) == ("Inconclusive", 3)


HOLD_ONLY = [*a_gate().axes[:3], GateAxis(name="creative", not_worse_than=0.05)]
CLEAR = (480, 0)  # passes at the first look


@pytest.mark.parametrize(
    ("short", "reason"),
    [
        ({**FLOOR}, "BaselineAtFloor"),
        ({"clusters": 19}, "TooFewClusters"),
        ({"largest_cluster_share": 0.11}, "TooFewClusters"),
        ({"clusters": 19, "p_worse": 0.0}, "TooFewClusters"),
    ],
    ids=["a held axis at the floor", "19 clusters", "one large cluster", "19 clusters that seem to be worse"],
)
def test_what_more_items_may_mend_ends_no_gate_before_its_last_look(short, reason):
    gate = a_gate().model_copy(update={"axes": HOLD_ONLY})
    found = []
    for look in (1, 2, 3):
        report = four([CLEAR] * 4, look=look)
        assert judged(gate, report).verdict == "Passed"
        axes = [*report.axes[:3], report.axes[3].model_copy(update=short)]
        decision = judged(gate, report.model_copy(update={"axes": axes}))
        found.append((decision.verdict, decision.reason, decision.next_look))
        assert "creative" in decision.message
    assert found == [("Inconclusive", "NextLook", 2), ("Inconclusive", "NextLook", 3), ("Invalid", reason, None)]


def test_an_anchor_with_too_few_clusters_waits_for_the_last_look_too():
    anchors = [evidence("creative", 120, 0, 300, clusters=19)]
    decision = judged(a_gate(), four([CLEAR] * 4, look=1, anchors=anchors), anchors=["creative"])
    assert (decision.verdict, decision.next_look) == ("Inconclusive", 2)


def test_nothing_learnt_at_the_floor_fails():
    gate = a_gate(axes=["knowledge"], at_least=1)
    assert judged(gate, a_report(evidence("knowledge", *EVEN, 1200, **FLOOR))).reason == "NotShown"


# --- a person, a mistake, an error ----------------------------------------------------------------------------------


def test_a_gain_that_is_hard_to_believe_waits_for_a_person():
    gate = a_gate(max_plausible_gain=0.09)
    decision = judged(gate, four([WON, WON, WON, EVEN]))
    assert (decision.verdict, decision.reason, decision.next_look) == ("Inconclusive", "ImplausibleGain", None)
    assert judged(a_gate(max_plausible_gain=0.11), four([WON, WON, WON, EVEN])).verdict == "Passed"


def test_an_implausible_gain_does_not_hide_a_failure():
    gate = a_gate(max_plausible_gain=0.09)
    assert judged(gate, four([WON, WON, WON, WORSE])).verdict == "Failed"


def run(**more):
    return RunReport(run_uid="r1", **{"verb": "compare", "input_digest": DIGEST, "compare": PASSING, **more})


RUNS = {
    "the report that was asked for": (run(), "Passed", "GatePassed"),
    "a report on something else": (run(input_digest=OTHER), "Invalid", "DigestMismatch"),
    "a report of another verb": (run(verb="evaluate"), "Invalid", "DigestMismatch"),
    "a report without evidence": (run(compare=None), "Invalid", "MissingData"),
    "a crash, which is neither": (
        run(error=RunError(reason="StoreUnreachable", message="no route")),
        "Error",
        "StoreUnreachable",
    ),
}


@pytest.mark.parametrize(("report", "verdict", "reason"), RUNS.values(), ids=RUNS)
def test_only_the_report_that_was_asked_for_is_judged(report, verdict, reason):
    decision = decide(a_gate(), report, Asked(DIGEST, 3))
    assert (decision.verdict, decision.reason) == (verdict, reason)


# --- whatever the evidence ------------------------------------------------------------------------------------------

FLOATS = [name for name, field in AxisEvidence.model_fields.items() if field.annotation is float]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", [*FLOATS, "chance"])
def test_a_number_that_is_none_never_passes_wherever_it_stands(field, bad):
    assert judged(a_gate(), changed(axis=2, **{field: bad})).verdict == "Invalid"


ps = st.floats(0, 1)


@st.composite
def reports(draw):
    """Any report that fits the models: counts of nothing, only probabilities."""
    look = draw(st.integers(1, 3))
    n = (300, 600, 1200)[look - 1]
    axes = [
        evidence(name, 0, 0, n).model_copy(
            update={f: draw(ps) for f in ("p_win", "p_hold", "p_worse", "p_no_win")} | {"standard_error": 0.01}
        )
        for name in NAMES
    ]
    return a_report(*axes, look=look, tries=draw(st.integers(1, 20)))


RANK = {"Failed": 0, "Inconclusive": 1, "Passed": 2}


@settings(max_examples=300, deadline=None)
@given(reports(), st.integers(0, 3), st.sampled_from(["p_win", "p_hold"]), ps)
def test_stronger_evidence_never_gives_a_worse_verdict(report, axis, field, better):
    axes = list(report.axes)
    axes[axis] = axes[axis].model_copy(update={field: min(better, getattr(axes[axis], field))})
    before, after = judged(a_gate(), report), judged(a_gate(), report.model_copy(update={"axes": axes}))
    assert RANK[after.verdict] >= RANK[before.verdict]


@settings(max_examples=300, deadline=None)
@given(reports())
def test_passed_means_enough_axes_won_and_all_held(report):
    decision = judged(a_gate(), report)
    assert isinstance(decision, Decision)
    assert (decision.next_look is not None) == (decision.reason == "NextLook")
    if decision.verdict == "Passed":
        assert len(decision.wins) >= 3
        assert all(axis.p_hold <= decision.alpha for axis in report.axes)
