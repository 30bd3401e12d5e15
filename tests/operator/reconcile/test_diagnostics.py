"""Diagnostics under the real operator: one Job a stage, findings in the status, and nothing is stopped."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bessemer_api.job import EXIT_PERMANENT, RunSpec
from tests.api.documents import PIPELINE, edited
from tests.support.world import Ending, World, failure, memory_folder

ASKED = {"spec.evaluation.diagnostics": [{"name": "generalLoss"}, {"name": "refusalDrift"}]}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with memory_folder() as folder:
        made = World(folder / "cluster")
        await made.apply(edited(PIPELINE, ASKED))
        yield made


async def lines(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await world.pipeline())["status"]["diagnostics"]
    return found


async def test_findings_are_told_and_the_report_waits_for_them(world: World) -> None:
    seen: list[RunSpec] = []

    def script(spec: RunSpec, name: str) -> None:
        seen.append(spec)

    world.node.script = script
    world.store.alarms = ["generalLoss"]
    await world.settle()
    told = {(line["name"], line["subject"]): line["state"] for line in await lines(world)}
    assert told == {("generalLoss", "cpt"): "Alarm", ("refusalDrift", "cpt"): "Quiet"}
    verbs = [spec.verb for spec in seen]
    assert verbs.count("diagnose") == 1
    assert verbs.index("diagnose") < verbs.index("report")
    report = next(spec.report for spec in seen if spec.report)
    assert report.pipeline["status"]["diagnostics"] == await lines(world)
    assert (await world.condition("Ready"))[0] == "True", "an alarm stops nothing"
    assert world.store.channels["prod"]


async def test_an_alarm_is_one_event_however_often_the_world_is_read_again(world: World) -> None:
    world.store.alarms = ["generalLoss"]
    await world.settle()
    await world.annotate("poems", refresh="again")
    await world.settle()
    told = [event for event in await world.all("Event") if event["reason"] == "DiagnosticAlarm"]
    assert [(event["type"], event["message"], event.get("count", 1)) for event in told] == [
        ("Warning", "cpt: generalLoss", 1)
    ]


async def test_a_diagnosis_that_fails_is_told_as_not_measured_and_stops_nothing(world: World) -> None:
    def script(spec: RunSpec, name: str) -> Ending | None:
        return failure(spec, EXIT_PERMANENT, "BadItem", "no text") if spec.verb == "diagnose" else None

    world.node.script = script
    await world.settle()
    assert {(line["state"], line["message"]) for line in await lines(world)} == {("NotMeasured", "BadItem: no text")}
    assert (await world.condition("Ready"))[0] == "True"


async def test_a_pipeline_that_asks_for_none_runs_none(world: World) -> None:
    await world.apply(PIPELINE)
    await world.settle()
    assert await lines(world) == []
