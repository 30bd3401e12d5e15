"""What a gate asks the comparison for: an edited gate is another question, and so another try."""

import pytest

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.gate import Gate
from bessemer_operator.core.gating import gate_digest

GATE = {
    "name": "release",
    "baseline": {"channel": "prod", "orElse": {"base": True}},
    "alpha": 0.05,
    "looks": [300, 600],
    "compose": {"atLeast": 1},
    "axes": [
        {"name": "knowledge", "winBy": 0.0, "notWorseThan": 0.05},
        {"name": "reasoning", "winBy": 0.0, "notWorseThan": 0.05},
    ],
    "vetoes": ["contamination"],
}
MEASURES = [{"name": name, "task": "multipleChoice"} for name in ("knowledge", "reasoning")]


def digest(gate, measures=MEASURES):
    return gate_digest(Gate.model_validate(gate), [Axis.model_validate(axis) for axis in measures])


EDITS = {
    "alpha": {"alpha": 0.1},
    "other looks": {"looks": [600]},
    "fewer wins needed": {"compose": {"atLeast": 0}},
    "a wider margin": {"axes": [GATE["axes"][0] | {"notWorseThan": 0.06}, GATE["axes"][1]]},
    "a smaller win": {"axes": [GATE["axes"][0] | {"winBy": 0.01}, GATE["axes"][1]]},
    "an axis that can only hold": {"axes": [GATE["axes"][0], {"name": "reasoning", "notWorseThan": 0.05}]},
    "an axis less": {"axes": GATE["axes"][:1]},
    "no veto": {"vetoes": []},
    "a gain that is not believed": {"maxPlausibleGain": 0.3},
    "another baseline": {"baseline": {"base": True}},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_gate_has_another_digest(edit):
    assert digest(GATE | edit) != digest(GATE)
    assert digest(GATE | edit | {key: GATE[key] for key in edit if key in GATE} | {"maxPlausibleGain": None}) == digest(
        GATE
    )


def test_a_gate_that_is_measured_otherwise_has_another_digest():
    assert digest(GATE, [MEASURES[0] | {"clusterBy": "fact"}, MEASURES[1]]) != digest(GATE)


def test_what_changes_no_verdict_changes_no_digest():
    assert digest(GATE | {"mode": "observe"}) == digest(GATE)
    assert digest({key: value for key, value in GATE.items() if key != "alpha"}) == digest(GATE), "0.05 is the default"


def test_the_digest_of_a_gate_must_never_change_by_itself():
    """An upgrade of the operator must not make another try of the gates that it has judged."""
    assert digest(GATE) == "sha256:86aa3cb963ebc510b431aa08fa0197d5cb3fcfb1b69cad68a820e54b26190793"
