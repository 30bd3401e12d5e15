"""The operator is killed before and after every write of a whole pipeline, and started again from nothing.

What holds then: the final objects are those of the run without a fault; nothing was created twice; at most one attempt
of a piece of work was ever unfinished; no traceback; at most twice the writes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.api.documents import PIPELINE
from tests.support.world import Killed, World, memory_folder

LOOKS = {("release", 1): "unclear"}
"""The release gate takes both looks, so that there are more writes to die at."""


@dataclass(frozen=True)
class Reference:
    """The run without a fault: its end, its number of writes, and the world at each point where it could die."""

    picture: dict[str, Any]
    writes: int
    points: tuple[World, ...]


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as found:
        yield found


async def new_world(root: Path) -> World:
    world = World(root)
    world.store.verdicts |= LOOKS
    await world.apply(PIPELINE)
    return world


async def run_and_copy(folder: Path) -> Reference:
    """One whole run; the world is copied before and after each write, where anything had changed."""
    world = await new_world(folder / "reference")
    points: dict[int, World] = {}

    def keep(number: int, when: str) -> None:
        version = world.cluster._journal.version
        if version not in points:
            points[version] = world.copy(folder / f"{number}-{when}")

    world.start_operator(keep)
    await world.settle()
    return Reference(await world.picture(), len(world.tap.writes), tuple(points.values()))


def assert_nothing_twice(world: World) -> None:
    twice = {ref: count for ref, count in Counter(world.births()).items() if count > 1 and ref.kind != "Event"}
    assert twice == {}


def assert_one_attempt_at_a_time(world: World) -> None:
    running: dict[str, str] = {}
    for change in world.cluster._journal.changes:
        if change.obj["kind"] not in {"Job", "PyTorchJob"}:
            continue
        name = change.obj["metadata"]["name"]
        work = name.rpartition("-a")[0]
        is_over = bool((change.obj.get("status") or {}).get("conditions")) or change.type == "DELETED"
        if is_over:
            running.pop(work, None)
        else:
            assert running.setdefault(work, name) == name


def assert_never_promoted_without_a_gate(world: World) -> None:
    for change in world.cluster._journal.changes:
        if change.obj["kind"] == "AdaptationPipeline":
            held = {item["type"]: item["status"] for item in (change.obj.get("status") or {}).get("conditions", [])}
            assert held.get("Promoted") != "True" or held["GatePassed"] == "True"


def assert_no_traceback(world: World) -> None:
    assert [outcome for outcome in world.outcomes if outcome[1] == "error"] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_a_kill_at_any_write_of_a_pipeline_changes_nothing_in_the_end(folder: Path) -> None:
    reference = await run_and_copy(folder)
    assert len(reference.points) > 100
    for world in reference.points:
        await world.settle()
        assert await world.picture() == reference.picture
        assert len(world.tap.writes) <= 2 * reference.writes
        assert_nothing_twice(world)
        assert_one_attempt_at_a_time(world)
        assert_never_promoted_without_a_gate(world)
        assert_no_traceback(world)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("stride", [7, 11, 23])
async def test_killed_again_and_again_it_still_ends_with_a_promotion(folder: Path, when: str, stride: int) -> None:
    """No process lives for longer than a few writes."""
    world = await new_world(folder / "world")

    def die(number: int, moment: str) -> None:
        if number == stride and moment == when:
            raise Killed

    for _ in range(200):
        world.start_operator(die)
        try:
            await world.settle()
        except Killed:
            continue
        break
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")
    assert_nothing_twice(world)
    assert_one_attempt_at_a_time(world)
    assert_no_traceback(world)
