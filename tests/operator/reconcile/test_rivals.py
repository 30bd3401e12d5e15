"""Two pipelines that ask for the same work: it is done once, by one at a time, never twice in one folder at once."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from bessemer_operator.reconcile.cache import Cache, Obj
from bessemer_operator.reconcile.resync import resync
from bessemer_operator.reconcile.rivals import find_rivals
from tests.api.documents import PIPELINE, STAGE, edited
from tests.operator.reconcile.test_pipeline import bad_data, hang, on
from tests.support.world import World

STALLED = {"status": {"conditions": [{"type": "Stalled", "status": "True"}]}}
ENDING = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:03Z"}}
TWIN = edited(PIPELINE, {"metadata.name": "twin"})


async def most_alike(world: World) -> int:
    """How often the input digest that runs most often runs right now."""
    jobs = [*await world.all("Job"), *await world.all("PyTorchJob")]
    digests = Counter(
        job["metadata"]["annotations"]["bessemer.dev/input-digest"]
        for job in jobs
        if job["metadata"]["ownerReferences"][0]["kind"] == "TrainingStage"
        and not (job.get("status") or {}).get("conditions")
    )
    return max(digests.values(), default=0)


async def of_pipeline(world: World, stage: str, pipeline: str) -> dict[str, Any]:
    """Status of the stage of that pipeline."""
    labels = {"bessemer.dev/stage": stage, "bessemer.dev/pipeline": pipeline}
    (found,) = (await world.cluster.list("TrainingStage", "default", labels)).items
    status: dict[str, Any] = found["status"]
    return status


def ready(status: dict[str, Any]) -> tuple[str, str]:
    conditions = [item for item in status["conditions"] if item["type"] == "Ready"]
    return conditions[0]["reason"], conditions[0]["message"]


@pytest.mark.parametrize("method", ["bank", "pretrain"])
async def test_the_same_work_runs_once_at_a_time_and_its_result_is_used_by_both(world: World, method: str) -> None:
    world.node.script = on(method, hang)
    await world.apply(TWIN)
    await world.settle()
    names = {"bank": "bank-bank", "pretrain": "pretrain"}
    phases = {name: await of_pipeline(world, names[method], name) for name in ("poems", "twin")}
    assert sorted(status["phase"] for status in phases.values()) == ["Pending", "Running"]
    waiting, busy = sorted(phases, key=lambda name: phases[name]["phase"])
    reason, message = ready(phases[waiting])
    assert reason == "SameWorkRunning"
    assert f"waits for default/{busy}-" in message
    assert await most_alike(world) == 1
    world.node.script = lambda spec, name: None
    await world.settle()
    assert [(await world.condition("Promoted", name))[0] for name in ("poems", "twin")] == ["True", "True"]
    assert (await of_pipeline(world, names[method], waiting))["reused"] is True
    assert len(world.store.computed) == len(set(world.store.computed))


async def test_at_no_moment_is_the_same_work_done_twice(world: World) -> None:
    await world.apply(TWIN)
    found = []
    for _ in range(80):
        await resync(world.runtime, world.cluster, ())
        await world.work()
        found.append(await most_alike(world))
        if not await world.node.step():
            world.now += timedelta(seconds=5)
    assert max(found) == 1
    assert [(await world.condition("Promoted", name))[0] for name in ("poems", "twin")] == ["True", "True"]


async def test_another_store_is_another_work(world: World) -> None:
    world.node.script = on("pretrain", hang)
    await world.apply(edited(TWIN, {"spec.store": "s3://models/elsewhere"}))
    await world.settle()
    assert {(await of_pipeline(world, "pretrain", name))["phase"] for name in ("poems", "twin")} == {"Running"}


@pytest.mark.parametrize("stop", ["suspended", "failed"])
async def test_one_that_has_stopped_is_not_waited_for(world: World, stop: str) -> None:
    world.node.script = on("pretrain", hang if stop == "suspended" else bad_data)
    await world.settle()
    if stop == "suspended":
        await world.annotate("poems", suspend="true")
    await world.settle()
    world.node.script = lambda spec, name: None
    await world.apply(TWIN)
    await world.settle()
    assert (await world.condition("Promoted", "twin"))[0] == "True"
    assert (await of_pipeline(world, "pretrain", "poems"))["phase"] == stop.capitalize()


@pytest.mark.parametrize("changes", [{"status": {"phase": "Failed"}}, {"spec": {"suspend": True}}, STALLED, ENDING])
def test_only_who_will_start_goes_first(changes: dict[str, dict[str, Any]]) -> None:
    older, younger = stage("older", 1), stage("younger", 2)
    assert (find_rivals(younger, cached(older, younger)), find_rivals(older, cached(older, younger))) == (
        ("default/older",),
        (),
    )
    stopped = {**older, **{key: {**older.get(key, {}), **change} for key, change in changes.items()}}
    assert find_rivals(younger, cached(stopped, younger)) == ()


def test_one_that_stopped_but_still_saves_is_waited_for() -> None:
    older, younger = stage("older", 1), stage("younger", 2)
    saving = {**older, "status": {"phase": "Suspended", "attempts": [{"outcome": "Running"}]}}
    assert find_rivals(younger, cached(saving, younger)) == ("default/older",)
    assert find_rivals(older, cached(older, {**younger, "status": saving["status"]})) == ("default/younger",)


def test_of_two_of_one_second_the_uid_decides() -> None:
    one, other = stage("a", 1), stage("b", 1)
    assert (find_rivals(one, cached(one, other)), find_rivals(other, cached(one, other))) == ((), ("default/a",))


def stage(name: str, second: int) -> Obj:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "1"}
    return {**STAGE, "metadata": {**metadata, "creationTimestamp": f"2026-01-01T00:00:0{second}Z"}}


def cached(*objects: Obj) -> Cache:
    cache = Cache()
    for obj in objects:
        cache.put(obj)
    return cache
