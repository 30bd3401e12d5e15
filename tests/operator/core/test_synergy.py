"""Synergy is stated only against the best parent and the linear control; everything else is `none`."""

from typing import Any

import pytest

from bessemer_api.job import AxisEvidence
from bessemer_api.v1alpha1.merge import Merge
from bessemer_operator.core.synergy import find_scope, state
from tests.api.documents import PIPELINE
from tests.operator.core.test_merges import MERGED, SLERP, spec_of
from tests.support.world import evidence

MERGE = Merge.model_validate(SLERP)
BETTER, WORSE, SAME = "pass", "worse", "unclear"


def told(**verdicts: str) -> dict[str, dict[str, AxisEvidence]]:
    """Figures of the merge on axis `loss` against each other checkpoint."""
    return {name.replace("_", "-"): {"loss": evidence("loss", 100, found)} for name, found in verdicts.items()}


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ({"slerp_linear": BETTER, "cpt": BETTER, "pretrain": BETTER}, "shown"),
        ({"slerp_linear": SAME, "cpt": BETTER, "pretrain": BETTER}, "none"),
        ({"slerp_linear": WORSE, "cpt": BETTER, "pretrain": BETTER}, "none"),
        ({"slerp_linear": BETTER, "cpt": SAME, "pretrain": BETTER}, "none"),
        ({"slerp_linear": BETTER, "cpt": BETTER, "pretrain": SAME}, "none"),
        ({"slerp_linear": BETTER, "cpt": BETTER, "pretrain": WORSE}, "none"),
        ({"cpt": BETTER, "pretrain": BETTER}, "none"),
        ({"slerp_linear": BETTER}, "none"),
    ],
    ids=[
        "better_than_all",
        "no_better_than_the_control",
        "worse_than_the_control",
        "no_better_than_the_first_parent",
        "no_better_than_the_second_parent",
        "worse_than_the_best_parent",
        "no_control",
        "no_parent",
    ],
)
def test_synergy_is_shown_only_against_the_control_and_every_parent(verdicts: dict[str, str], expected: str) -> None:
    assert state(MERGE, ["loss"], told(**verdicts)).synergy == expected


def test_the_best_parent_is_the_one_that_the_merge_gains_least_on() -> None:
    (axis,) = state(MERGE, ["loss"], told(slerp_linear=BETTER, cpt=BETTER, pretrain=WORSE)).axes
    assert (axis.best_parent, axis.parent, axis.control, axis.synergy) == ("pretrain", -0.2, 0.2, False)


def test_axes_share_the_level() -> None:
    def with_p(p: float) -> AxisEvidence:
        return evidence("loss", 100, BETTER).model_copy(update={"p_win": p})

    others = ("slerp-linear", "cpt", "pretrain")
    one = {name: {"loss": with_p(0.03)} for name in others}
    two = {name: {**axes, "quiz": axes["loss"].model_copy(update={"name": "quiz"})} for name, axes in one.items()}
    assert state(MERGE, ["loss"], one).synergy == "shown"
    assert state(MERGE, ["loss", "quiz"], two).synergy == "none"


def test_rounding_is_no_gain_however_regular_it_is() -> None:
    tiny = evidence("loss", 100, BETTER).model_copy(update={"delta": 1e-8, "p_win": 1e-12})
    others = {name: {"loss": tiny} for name in ("slerp-linear", "cpt", "pretrain")}
    assert state(MERGE, ["loss"], others).synergy == "none"


def test_an_axis_that_was_not_compared_is_not_won() -> None:
    found = state(MERGE, ["loss", "quiz"], told(slerp_linear=BETTER, cpt=BETTER, pretrain=BETTER))
    assert (found.synergy, [row.name for row in found.axes]) == ("none", ["loss"])


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({}, ("bank", 10, ["loss"])),
        ({"spec.gates": [], "spec.promotion": None, "spec.stages.2.gate": None}, ("bank", 10, ["loss"])),
        ({"spec.evaluation.banks.0.dev": 0}, None),
        ({"spec.evaluation.banks": []}, None),
    ],
    ids=["axes_of_the_release_gate", "all_axes_of_a_bank", "no_dev_items", "no_bank"],
)
def test_what_merges_are_measured_on(edits: dict[str, Any], expected: tuple[str, int, list[str]] | None) -> None:
    scope = find_scope(spec_of({**MERGED, **edits}))
    assert (scope and (scope.bank, scope.items, [axis.name for axis in scope.axes])) == expected


def test_the_pipeline_of_these_tests_has_dev_items() -> None:
    assert PIPELINE["spec"]["evaluation"]["banks"][0]["dev"] == 10
