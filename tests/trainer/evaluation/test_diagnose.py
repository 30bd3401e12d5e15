"""The verb diagnose on trained checkpoints in a real store: what fires, what stays silent, what is stored and told."""

import json
from typing import Any

import pytest

from bessemer_api.job import DiagnosticFinding
from bessemer_trainer.context import Outcome
from bessemer_trainer.stages import diagnose
from tests.trainer.evaluation.tiny import AXES, World

FORGOT = "generalLoss"


def ask(world: World, subject: str, start: str | None, *names: str, **more: Any) -> Outcome:
    asked = [{"name": name, "items": 30, "maxNewTokens": 12, "samples": 4} for name in names]
    task: dict[str, Any] = {"subject": "facts", "checkpoint": subject, "bank": world.bank, "axes": AXES}
    task |= {"start": start} if start else {}
    return diagnose.run(world.context(verb="diagnose", diagnose={**task, "diagnostics": asked, **more}))


def finding(outcome: Outcome, name: str) -> DiagnosticFinding:
    assert outcome.diagnose is not None
    return next(item for item in outcome.diagnose.findings if item.name == name)


def test_weights_that_predict_text_worse_raise_the_alarm_and_better_or_equal_ones_do_not(world: World) -> None:
    states = {
        name: finding(ask(world, subject, start, FORGOT), FORGOT).state
        for name, subject, start in (
            ("worse", world.weak, world.good),
            ("better", world.good, world.weak),
            ("the same", world.good, world.good),
        )
    }
    assert states == {"worse": "Alarm", "better": "Quiet", "the same": "Quiet"}


def test_every_item_is_stored_and_the_numbers_derive_from_them(world: World) -> None:
    outcome = ask(world, world.weak, world.good, FORGOT)
    assert outcome.output_digest is not None
    folder = world.store().fetch(outcome.output_digest)
    lines = [json.loads(line) for line in (folder / f"items_{FORGOT}.jsonl").read_text().splitlines()]
    rises = [line["after"] - line["before"] for line in lines]
    assert len(lines) == 30
    assert finding(outcome, FORGOT).value == pytest.approx(sum(rises) / len(rises))
    assert world.store().manifest(outcome.output_digest).meta["alarms"] == [FORGOT]
    assert ask(world, world.weak, world.good, FORGOT).output_digest == outcome.output_digest


def test_what_lacks_its_items_says_so_and_the_others_are_measured(world: World) -> None:
    outcome = ask(world, world.good, world.weak, "refusalDrift", "calibration", "mergeHealth", "chosenLogProbability")
    told = {name: finding(outcome, name) for name in ("refusalDrift", "calibration", "mergeHealth")}
    assert told["refusalDrift"].state == "NotMeasured"
    assert "harmful" in told["refusalDrift"].message
    assert told["mergeHealth"].message == "it is no merge"
    assert told["calibration"].value is not None


def test_equal_weights_are_equally_diverse_and_as_long(world: World) -> None:
    outcome = ask(world, world.good, world.good, "diversity", "lengthDrift")
    assert finding(outcome, "diversity").value == pytest.approx(1.0)
    assert finding(outcome, "lengthDrift").value == 0.0


def test_a_merge_with_a_parent_of_the_same_weights_has_no_barrier(world: World) -> None:
    outcome = ask(world, world.good, None, "mergeHealth", parents=[world.good, world.good])
    assert finding(outcome, "mergeHealth").state == "Quiet"
    assert finding(outcome, "mergeHealth").value == pytest.approx(0.0, abs=1e-6)
