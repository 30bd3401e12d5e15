"""What the operator does not see, sees late, or is lied to about: each ends as if nothing had happened."""

import copy
import random
import re
from collections import Counter
from typing import Any

import pytest

from bessemer_operator.cluster.protocol import Conflict, Forbidden, Ref, Unavailable, ref_of
from bessemer_operator.core.plan import Observed
from bessemer_operator.reconcile.cache import Cache, Key
from bessemer_operator.reconcile.resync import resync
from tests.api.documents import PIPELINE, STAGE
from tests.operator.reconcile.test_pipeline import hang, on
from tests.support.world import Ending, World


async def job_of(world: World, part: str) -> dict[str, Any]:
    jobs = [*await world.all("Job"), *await world.all("PyTorchJob")]
    return next(job for job in jobs if re.fullmatch(f"poems-{part}-[0-9a-f]{{10}}-a1", job["metadata"]["name"]))


async def see_all(world: World) -> None:
    await resync(world.runtime, world.cluster, ())


def assert_nothing_twice(world: World) -> None:
    assert [ref for ref, n in Counter(world.births()).items() if n > 1 and ref.kind != "Event"] == []


async def test_the_end_of_a_job_that_arrives_before_its_pods_report_is_no_failure(world: World) -> None:
    """Watches of different kinds are not ordered: the pod is still Running in the cache."""
    world.node.script = on("pretrain", hang)
    await world.settle()
    job, held = await job_of(world, "pretrain"), copy.deepcopy(await world.all("Pod"))
    world.node.script = lambda spec, name: None
    await world.node.step()
    stale = next(pod for pod in held if pod["metadata"]["name"] == f"{job['metadata']['name']}-pod")
    assert world.cache.objects[Key("Pod", "default", stale["metadata"]["name"])]["status"] == stale["status"]
    world.runtime.seen("MODIFIED", await world.get("PyTorchJob", job["metadata"]["name"]))
    await world.work()
    assert await world.attempts("pretrain") == [("Succeeded", "Succeeded")]


async def test_a_report_that_went_with_its_pod_is_made_again_at_no_cost(world: World) -> None:
    world.node.script = on("pretrain", hang)
    await world.settle()
    world.node.script = lambda spec, name: None
    await world.node.step()
    name = (await job_of(world, "pretrain"))["metadata"]["name"]
    await world.cluster.delete(Ref("Pod", f"{name}-pod", "default"))
    await world.settle()
    assert await world.attempts("pretrain") == [("Preempted", "ReportLost"), ("Succeeded", "Succeeded")]
    assert (await world.stage("pretrain"))["status"]["reused"]
    assert (await world.condition("Promoted"))[0] == "True"


async def test_a_deleted_pod_of_a_running_job_is_no_failure_of_the_work(world: World) -> None:
    world.node.script = on("pretrain", hang)
    await world.settle()
    job = await job_of(world, "pretrain")
    await world.cluster.delete(Ref("Pod", f"{job['metadata']['name']}-pod", "default"))
    await world.node.finish(job, failed=True)
    world.node.script = lambda spec, name: None
    await world.settle()
    assert await world.attempts("pretrain") == [("Preempted", "Preempted"), ("Succeeded", "Succeeded")]


async def test_a_deleted_attempt_is_followed_by_the_next(world: World) -> None:
    world.node.script = on("pretrain", hang)
    await world.settle()
    await world.cluster.delete(Ref("PyTorchJob", (await job_of(world, "pretrain"))["metadata"]["name"], "default"))
    world.node.script = lambda spec, name: None
    await world.settle()
    assert await world.attempts("pretrain") == [("Preempted", "Deleted"), ("Succeeded", "Succeeded")]
    assert_nothing_twice(world)


@pytest.mark.parametrize("part", ["resolve", "data-poems", "pretrain"])
async def test_a_cache_that_lacks_a_running_attempt_makes_no_second_one(world: World, part: str) -> None:
    verb = {"data-poems": "prepare"}.get(part, part)
    world.node.script = on(verb, hang)
    await world.settle()
    job = await job_of(world, part)
    world.cache._forget(Key(job["kind"], "default", job["metadata"]["name"]), job)
    for kind in ("AdaptationPipeline", "TrainingStage"):
        for obj in await world.all(kind):
            world.runtime.queue.add(Key(kind, "default", obj["metadata"]["name"]))
    await world.work()
    world.node.script = lambda spec, name: None
    await world.settle()
    assert_nothing_twice(world)
    assert (await world.condition("Promoted"))[0] == "True"


async def test_a_deletion_that_no_watch_told_is_found_by_a_list(world: World) -> None:
    world.node.script = on("pretrain", hang)
    await world.settle()
    job = await job_of(world, "pretrain")
    await world.cluster.delete(Ref("PyTorchJob", job["metadata"]["name"], "default"))
    key = Key("PyTorchJob", "default", job["metadata"]["name"])
    assert key in world.cache.objects
    assert await resync(world.runtime, world.cluster, ()) > 0
    assert key not in world.cache.objects


async def test_an_event_from_before_a_deletion_does_not_bring_the_object_back(world: World) -> None:
    await world.settle()
    old = await world.stage("cpt")
    await world.cluster.delete(Ref("TrainingStage", old["metadata"]["name"], "default"))
    await see_all(world)
    assert not world.runtime.seen("MODIFIED", old)
    await world.settle()
    fresh = await world.get("TrainingStage", old["metadata"]["name"])
    assert fresh["metadata"]["uid"] != old["metadata"]["uid"]


async def test_children_of_a_deleted_pipeline_are_not_adopted_by_its_namesake(world: World) -> None:
    """The garbage collector has not come yet: the old children are still there, with the old owner."""
    await world.settle()
    old = [obj for kind in CHILDREN for obj in await world.all(kind)]
    await world.cluster.delete(Ref("AdaptationPipeline", "poems", "default"), propagation="Orphan")
    with world.cluster._writing():
        for obj in old:
            found = {**(await world.cluster.get(ref_of(obj)))["metadata"], "ownerReferences": [OLD_OWNER]}
            world.cluster._commit("MODIFIED", {**obj, "metadata": found})
    await see_all(world)
    await world.apply(PIPELINE)
    await world.settle()
    owners = [obj["metadata"]["ownerReferences"] for kind in CHILDREN for obj in await world.all(kind)]
    assert owners == [[OLD_OWNER]] * len(old)
    for obj in old:
        await world.cluster.delete(ref_of(obj))
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("True", "AlreadyPromoted")


CHILDREN = ("TrainingStage", "Evaluation", "ConfigMap", "Job")
OLD_OWNER = {
    "apiVersion": "bessemer.dev/v1alpha1",
    "kind": "AdaptationPipeline",
    "name": "poems",
    "uid": "old-uid",
    "controller": True,
}


async def test_a_job_of_somebody_else_under_our_name_is_left_alone_and_named(world: World) -> None:
    preview = world.copy(world.cluster.root.parent / "preview")
    await preview.settle()
    name = (await job_of(preview, "resolve"))["metadata"]["name"]
    foreign = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "default"}}
    template = {"metadata": {"labels": {}}, "spec": {"containers": []}}
    await world.cluster.create({**foreign, "spec": {"template": template, "suspend": True}})
    world.node.script = lambda spec, found: "hang"
    job = await world.get("Job", name)
    await world.node.finish(job, failed=False)
    await world.settle()
    state, reason, message = await world.condition("Stalled")
    assert (state, reason) == ("True", "NameTaken")
    assert message == f"Job default/{name} exists and belongs to something else; delete it"
    world.node.script = lambda spec, found: None
    await world.cluster.delete(Ref("Job", name, "default"))
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"


async def test_a_poison_object_is_quarantined_and_the_others_go_on(world: World) -> None:
    """It got past the CRD's rules, or it is of a version that knew other fields."""
    poison = copy.deepcopy({**STAGE, "metadata": {"name": "poison", "namespace": "default"}})
    poison["spec"]["inputs"]["method"] = "alchemy"
    poison["metadata"] |= {"uid": "poison-uid", "generation": 3}
    with world.cluster._writing():
        world.cluster._commit("ADDED", poison)
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"
    key = Key("TrainingStage", "default", "poison")
    assert [outcome for found, outcome in world.outcomes if found == key and outcome == "error"] == []


async def test_a_stage_whose_digest_does_not_fit_its_inputs_is_refused(world: World) -> None:
    await world.cluster.apply(STAGE, "user")
    await world.settle()
    status = (await world.get("TrainingStage", STAGE["metadata"]["name"]))["status"]
    assert [item["reason"] for item in status["conditions"] if item["type"] == "Stalled"] == ["DigestMismatch"]
    assert status["attempts"] == []


@pytest.mark.parametrize("error", [Unavailable("500"), Conflict("modified"), Forbidden("403")])
async def test_writes_that_fail_for_a_while_are_made_up_for(world: World, error: Exception) -> None:
    rng, failing = random.Random(1), {"left": 60}

    def refuse(number: int, when: str) -> None:
        if when == "before" and failing["left"] and rng.random() < 0.5:
            failing["left"] -= 1
            raise error

    world.start_operator(refuse)
    await world.settle(rounds=1000)
    assert failing["left"] == 0
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")
    assert_nothing_twice(world)


async def test_an_answer_that_is_lost_after_the_write_was_done_makes_nothing_twice(world: World) -> None:
    def lose(number: int, when: str) -> None:
        if when == "after" and number % 3 == 0:
            raise Unavailable("connection reset")

    world.start_operator(lose)
    await world.settle(rounds=1000)
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")
    assert_nothing_twice(world)


async def test_two_operators_by_accident_make_nothing_twice(world: World) -> None:
    other = World(world.cluster.root)
    other.node.cluster = world.cluster
    for _ in range(300):
        await see_all(world)
        await see_all(other)
        for key in await interleaved(world, other):
            assert key
        other.now = world.now
        if not await world.node.step() and not world._wait():
            break
    await world.settle()
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")
    assert_nothing_twice(world)
    assert {outcome for _, outcome in [*world.outcomes, *other.outcomes]} <= {"ok", "conflict", "refused"}


async def interleaved(world: World, other: World) -> list[Key]:
    """Both work on what each saw before the other wrote."""
    keys: list[Key] = []
    for each in (world, other):
        while len(each.runtime.queue):
            key = await each.runtime.queue.take()
            each.outcomes.append((key, await each.runtime.handle(key)))
            keys.append(key)
    return keys


async def test_conditions_that_somebody_else_wrote_over_are_put_right(world: World) -> None:
    await world.settle()
    pipeline = await world.pipeline()
    forged = [{**item, "status": "False", "reason": "Forged"} for item in pipeline["status"]["conditions"]]
    await world.cluster.apply_status({**pipeline, "status": {**pipeline["status"], "conditions": forged}}, "vandal")
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("True", "Promoted")


async def test_a_pods_words_count_only_from_the_pod_of_the_attempt(world: World) -> None:
    """A pod with the right labels that the attempt's controller did not make reports in vain."""
    world.node.script = on("pretrain", lambda spec: Ending(0, "nonsense"), times=1)
    await world.settle()
    assert (await world.attempts("pretrain"))[0] == ("Failed", "ReportMissing")


async def test_what_is_observed_is_only_what_the_object_owns(world: World) -> None:
    world.node.script = on("pretrain", hang)
    await world.settle()
    found: Observed = await world.runtime.controller._observe(await world.stage("pretrain"))
    assert [job["kind"] for job in found.jobs] == ["PyTorchJob"]
    assert len(found.pods) == 1
    assert Cache().children("nobody", "Pod") == []
