"""The choice between candidates and the words of an approval, row by row."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_api.v1alpha1.gate import Gate
from bessemer_operator.core.approval import find_approval
from bessemer_operator.core.nominee import best, figures, why

GATE = Gate.model_validate(
    {
        "name": "release",
        "baseline": {"base": True},
        "looks": [100],
        "axes": [
            {"name": "quiz", "winBy": 0.0, "notWorseThan": 0.05},
            {"name": "loss", "winBy": 0.01, "notWorseThan": 0.1},
            {"name": "speed", "notWorseThan": 0.2},
        ],
    }
)
MEASURES = [
    Axis(name="quiz", task="multipleChoice"),
    Axis(name="loss", task="bitsPerByte"),
    Axis(name="speed", task="firstTokenLatency"),
]
BASELINE = {"quiz": 0.5, "loss": 1.0, "speed": 2.0}


def measured(name: str, quiz: float, loss: float, speed: float) -> Any:
    return figures(name, GATE, MEASURES, {"quiz": quiz, "loss": loss, "speed": speed}, BASELINE, 50)


def test_figures_are_oriented_so_that_larger_is_better() -> None:
    found = measured("a", 0.6, 0.9, 1.0)
    assert [axis.delta for axis in found.axes] == pytest.approx([0.1, 0.1, 0.6931], abs=1e-4)
    assert (found.wins, found.broken) == (("quiz", "loss"), ())
    assert found.score == pytest.approx(1 + 0.1 / 0.1 + 1, abs=1e-3)


CHOICES = [
    pytest.param([(0.6, 1.0, 2.0), (0.6, 0.9, 2.0)], 1, id="more wins"),
    pytest.param([(0.9, 0.8, 3.0), (0.51, 1.0, 2.0)], 1, id="an unbroken margin counts more than wins"),
    pytest.param([(0.53, 1.0, 2.0), (0.54, 1.0, 2.0)], 1, id="as many wins, a larger sum"),
    pytest.param([(0.6, 1.0, 2.0), (0.7, 1.0, 2.0)], 1, id="beyond the margin: the larger win"),
    pytest.param([(0.9, 1.09, 2.0), (0.6, 1.0, 2.0)], 1, id="a huge win makes up for no loss"),
    pytest.param([(0.6, 1.0, 2.0), (0.6, 0.991, 2.0)], 1, id="a gain within winBy is no win, but counts in the sum"),
    pytest.param([(0.6, 1.0, 2.0), (0.6, 1.0, 2.0)], 0, id="equal ones: the first"),
    pytest.param([(0.45, 1.0, 2.0), (0.46, 1.0, 2.0)], 1, id="a loss as large as the margin breaks it"),
    pytest.param([(0.3, 1.0, 2.0), (0.4, 1.0, 2.0)], 1, id="all break a margin: the least bad"),
]


@pytest.mark.parametrize(("rows", "chosen"), CHOICES)
def test_the_rule(rows: list[tuple[float, float, float]], chosen: int) -> None:
    found = [measured(str(place), *row) for place, row in enumerate(rows)]
    assert best(found).name == str(chosen)


def test_the_reason_names_all_with_their_figures() -> None:
    found = [measured("a", 0.6, 1.0, 2.0), measured("b", 0.4, 1.0, 2.0)]
    assert why(best(found), found) == (
        "a on dev items: 1 axes won, 0 margins broken, +1.00 margins in all; others: b (0 won, 1 broken, -2.00)"
    )


@pytest.mark.parametrize("mean", [float("nan"), float("inf")])
def test_a_mean_that_is_no_number_is_refused(mean: float) -> None:
    with pytest.raises(ValueError, match="no number"):
        measured("a", mean, 1.0, 2.0)


NOW = datetime(2026, 1, 2, tzinfo=UTC)
WANTED = "sha256:" + "a" * 64 + "/sha256:" + "b" * 64
OTHER = "sha256:" + "c" * 64 + "/sha256:" + "b" * 64
LATER, EARLIER = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
APPROVALS = [
    pytest.param({}, None, "Waiting", id="nothing said"),
    pytest.param({"approve": WANTED, "approved-by": "ana"}, None, "Approved", id="approved"),
    pytest.param({"approve": WANTED, "approved-by": "ana"}, EARLIER, "Approved", id="approved in time, seen later"),
    pytest.param({"approve": WANTED}, None, "Waiting", id="approved by nobody"),
    pytest.param({"approve": OTHER, "approved-by": "ana"}, LATER, "Waiting", id="another candidate"),
    pytest.param({"approve": OTHER, "approved-by": "ana"}, EARLIER, "TimedOut", id="another candidate, too late"),
    pytest.param({}, EARLIER, "TimedOut", id="too late"),
    pytest.param({}, NOW, "TimedOut", id="exactly at the end"),
    pytest.param({"reject": WANTED}, None, "Rejected", id="rejected"),
    pytest.param({"reject": WANTED, "approve": WANTED, "approved-by": "ana"}, None, "Rejected", id="both"),
    pytest.param({"reject": OTHER, "approve": WANTED, "approved-by": "ana"}, None, "Approved", id="another rejected"),
]


@pytest.mark.parametrize(("notes", "deadline", "state"), APPROVALS)
def test_what_the_annotations_say(notes: dict[str, str], deadline: datetime | None, state: str) -> None:
    full = {f"bessemer.dev/{key}": value for key, value in notes.items()}
    found = find_approval(full, WANTED, deadline, NOW)
    assert found.state == state
    assert found.requeue == (deadline - NOW if state == "Waiting" and deadline else None)


def test_what_was_late_stays_late() -> None:
    notes = {"bessemer.dev/approve": WANTED, "bessemer.dev/approved-by": "ana"}
    assert find_approval(notes, WANTED, EARLIER, NOW, was_late=True).state == "TimedOut"
