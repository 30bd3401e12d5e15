"""Merges under the real operator: children with their controls, rows of the status, edits, rivals, suspension."""

from collections.abc import AsyncIterator

import pytest

from bessemer_api.job import EXIT_PERMANENT, CompareTask, RunSpec
from tests.api.documents import PIPELINE, edited
from tests.operator.core.test_merges import MERGE, MERGED
from tests.support.world import Ending, World, digest_of, failure, memory_folder

PARENTS = ["cpt", "pretrain"]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with memory_folder() as folder:
        made = World(folder / "cluster")
        await made.apply(edited(PIPELINE, MERGED))
        yield made


async def rows(world: World) -> dict[str, str]:
    return {row["name"]: row["phase"] for row in (await world.pipeline())["status"]["stages"]}


async def test_a_merge_and_its_control_are_built_and_the_merge_is_promoted(world: World) -> None:
    await world.settle()
    assert list(await rows(world))[-2:] == ["slerp", "slerp-linear"]
    assert set((await rows(world)).values()) == {"Succeeded"}
    merge, control = await world.stage("slerp"), await world.stage("slerp-linear")
    outputs = [(await world.stage(name))["status"]["outputDigest"] for name in PARENTS]
    for found, method in ((merge, "slerp"), (control, "linear")):
        spec = found["spec"]
        assert (found["kind"], spec["inputs"]["method"], spec["inputs"]["parents"]) == ("MergeJob", method, outputs)
        assert spec["parentNames"] == PARENTS
    promoted = [item.candidate for item in world.store.channels["prod"]]
    assert promoted == [merge["status"]["outputDigest"]] == [digest_of("out", merge["spec"]["inputDigest"])]
    assert (await world.condition("Ready"))[0] == "True"


async def synergy(world: World) -> tuple[str, str]:
    (found,) = (await world.pipeline())["status"]["merges"]
    return found["synergy"], found["message"]


@pytest.mark.parametrize(("verdict", "expected"), [("pass", "shown"), ("unclear", "none"), ("worse", "none")])
async def test_synergy_is_stated_from_comparisons_that_count_no_try(world: World, verdict: str, expected: str) -> None:
    seen: list[CompareTask] = []

    def script(spec: RunSpec, name: str) -> None:
        seen.extend([spec.compare] if spec.compare and spec.compare.gate == "slerp" else [])

    world.node.script = script
    world.store.verdicts = {("slerp", 1): verdict}
    await world.settle()
    assert (await synergy(world))[0] == expected
    assert {(task.part, task.channel) for task in seen} == {("dev", None)}
    others = {(await world.stage(name))["status"]["outputDigest"] for name in ("slerp-linear", *PARENTS)}
    assert {task.baseline.checkpoint for task in seen} == others
    assert {task.candidate.checkpoint for task in seen} == {(await world.stage("slerp"))["status"]["outputDigest"]}
    assert (await world.condition("Promoted"))[0] == "True"


async def test_two_parents_that_are_one_checkpoint_never_show_synergy(world: World) -> None:
    twins = {f"{MERGE}.parents": [{"stage": "cpt"}, {"stage": "cpt"}]}
    world.store.verdicts = {("slerp", 1): "pass"}
    await world.apply(edited(PIPELINE, {**MERGED, **twins}))
    await world.settle()
    assert await synergy(world) == ("none", "the parents are one and the same checkpoint")


async def test_a_comparison_that_failed_states_nothing_and_stops_nothing(world: World) -> None:
    def script(spec: RunSpec, name: str) -> Ending | None:
        is_ours = spec.compare is not None and spec.compare.gate == "slerp"
        return failure(spec, EXIT_PERMANENT, "NotComparable", "no spread") if is_ours else None

    world.node.script = script
    await world.settle()
    assert (await synergy(world))[0] == "error"
    assert (await world.condition("Promoted"))[0] == "True"


async def test_a_merge_runs_as_a_job_of_one_pod_with_its_verb(world: World) -> None:
    seen: list[RunSpec] = []

    def script(spec: RunSpec, name: str) -> None:
        seen.extend([spec] if spec.verb == "merge" else [])

    world.node.script = script
    await world.settle()
    assert [(spec.merge.names, spec.world_size) for spec in seen if spec.merge] == [(PARENTS, 1)] * 2
    jobs = [job for job in await world.all("Job") if job["metadata"]["labels"]["bessemer.dev/verb"] == "merge"]
    assert sorted(job["metadata"]["labels"]["bessemer.dev/stage"] for job in jobs) == ["slerp", "slerp-linear"]


async def test_another_t_is_another_merge_and_trains_nothing(world: World) -> None:
    await world.settle()
    before = list(world.store.computed)
    await world.apply(edited(PIPELINE, {**MERGED, f"{MERGE}.t": [{"value": [0.75]}]}))
    await world.settle()
    fresh = [(await world.stage(name))["spec"]["inputDigest"] for name in ("slerp", "slerp-linear")]
    assert sorted(world.store.computed[len(before) :]) == sorted(fresh)
    assert len(await world.all("MergeJob")) == 4


async def test_a_refused_parent_stops_the_pipeline_with_its_words(world: World) -> None:
    def script(spec: RunSpec, name: str) -> Ending | None:
        words = "parent cpt: its vocabulary has 260 tokens, that of pretrain 259"
        return failure(spec, EXIT_PERMANENT, "ParentsDiffer", words) if spec.verb == "merge" else None

    world.node.script = script
    await world.settle()
    status, reason, message = await world.condition("Stalled")
    assert (status, reason) == ("True", "StageFailed")
    assert message == "slerp: ParentsDiffer: parent cpt: its vocabulary has 260 tokens, that of pretrain 259"
    assert await world.attempts("slerp") == [("Failed", "ParentsDiffer")]


async def test_a_merge_that_left_the_plan_is_suspended_while_it_runs(world: World) -> None:
    world.node.script = lambda spec, name: "hang" if spec.verb == "merge" else None
    await world.settle()
    await world.apply(PIPELINE)
    await world.settle()
    assert {item["spec"]["suspend"] for item in await world.all("MergeJob")} == {True}
    assert [job for job in await world.all("Job") if "-slerp" in job["metadata"]["name"]] == []
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")


async def test_superseded_merges_go_beyond_the_history_limit(world: World) -> None:
    limit = {"spec.revisionHistoryLimit": 0}
    await world.apply(edited(PIPELINE, {**MERGED, **limit}))
    await world.settle()
    await world.apply(edited(PIPELINE, {**MERGED, **limit, f"{MERGE}.t": [{"value": [0.75]}]}))
    await world.settle()
    assert len(await world.all("MergeJob")) == 2


async def test_equal_merges_of_two_pipelines_run_one_after_the_other(world: World) -> None:
    twin = edited(PIPELINE, {**MERGED, "metadata.name": "twin", "spec.promotion.channels": [{"name": "other"}]})
    twin = edited(twin, {"spec.gates.1.baseline.channel": "other"})
    await world.apply(twin)
    await world.settle()
    merges = [
        item
        for item in await world.all("MergeJob")
        if item["metadata"]["name"].startswith(("poems-slerp-", "twin-slerp-"))
    ]
    digests = [item["spec"]["inputDigest"] for item in merges]
    assert len(digests) == 4
    assert all(world.store.computed.count(digest) == 1 for digest in digests)


async def test_rerun_from_a_merge_runs_it_again(world: World) -> None:
    await world.settle()
    before = list(world.store.computed)
    await world.annotate("poems", rerun_from="slerp/2")
    await world.settle()
    assert world.store.computed[len(before) :] == [(await world.stage("slerp"))["spec"]["inputDigest"]]
