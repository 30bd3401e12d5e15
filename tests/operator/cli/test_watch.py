"""The tree of `bessemer watch`, the table of `bessemer status`, as the real operator wrote them; `logs` by name."""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rich.console import Console

from bessemer_api.job import EXIT_PREEMPTED
from bessemer_operator.cli import listing
from bessemer_operator.cli.logs import Piece, find_attempt, find_piece
from bessemer_operator.cli.place import Place
from bessemer_operator.cli.problems import EXIT_GATE, EXIT_NOT_FOUND, UserError
from bessemer_operator.cli.target import Target, as_pipeline
from bessemer_operator.cli.tree import tree
from bessemer_operator.cli.watch import CHILDREN, Seen, watch
from bessemer_operator.cluster.protocol import Ref
from tests.api.documents import PIPELINE
from tests.operator.reconcile.test_pipeline import hang, on
from tests.support.world import Ending, World, memory_folder

Obj = dict[str, Any]


@pytest.fixture
async def place() -> AsyncIterator[tuple[World, Target]]:
    """A world whose cluster is that of a local run, and the target that a user would name."""
    with memory_folder() as folder:
        world = World(folder / "cluster")
        yield world, Target(Ref("AdaptationPipeline", "poems", "default"), Place(state=str(folder)), "poems.yaml")
        await world.cluster.close()


async def drawn(world: World) -> list[str]:
    seen = Seen(await world.pipeline())
    for kind in CHILDREN:
        for item in await world.all(kind):
            seen.take("ADDED", item)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tree(as_pipeline(seen.pipeline), seen.children))
    return console.export_text().splitlines()


async def test_the_tree_shows_work_attempts_evaluations_gates_and_channels(place: tuple[World, Target]) -> None:
    world, _ = place
    world.node.script = on("pretrain", lambda spec: Ending(EXIT_PREEMPTED), times=1)
    await world.apply(PIPELINE)
    await world.settle()
    lines = "\n".join(await drawn(world))
    attempts = [item["name"] for item in (await world.stage("pretrain"))["status"]["attempts"]]
    for text in (
        "default/poems  Channel prod holds",
        "stages 7/7",
        "✓ pretrain pretrain succeeded, attempt 2",
        f"{attempts[0]} preempted",
        f"{attempts[1]} succeeded",
        "evaluations 2/2",
        "Gate release: Passed at look 1",
        "Channel prod: record 1",
    ):
        assert text in lines, lines


async def test_a_running_stage_has_a_bar_and_the_time_that_is_left(place: tuple[World, Target]) -> None:
    world, _ = place
    world.node.script = on("pretrain", hang, times=1000)
    await world.apply(PIPELINE)
    await world.settle()
    stage = await world.stage("pretrain")
    progress = {"progressPercentage": 40, "estimatedRemainingSeconds": 750, "metrics": {"loss": 2.5}, "message": ""}
    seen = Seen(await world.pipeline())
    row = next(row for row in seen.pipeline["status"]["stages"] if row["name"] == "pretrain")
    row.update(progressPercentage=40, estimatedRemainingSeconds=750)
    seen.take("ADDED", {**stage, "status": {**stage["status"], "progress": progress}})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tree(as_pipeline(seen.pipeline), seen.children))
    assert "pretrain pretrain ████████░░░░░░░░░░░░ running, 40 %, 12m left, loss 2.500" in console.export_text()
    assert seen.losses == {"pretrain": 2.5}


async def test_watching_ends_with_the_pipeline_and_its_exit_code(
    place: tuple[World, Target], capsys: pytest.CaptureFixture[str]
) -> None:
    world, target = place
    world.store.verdicts[("release", 1)] = "worse"
    await world.apply(PIPELINE)
    await world.settle()
    assert await watch(target) == EXIT_GATE
    assert "Gate release: Failed at look 1" in capsys.readouterr().out


async def test_what_is_another_pipelines_is_not_seen(place: tuple[World, Target]) -> None:
    world, _ = place
    await world.apply(PIPELINE)
    await world.settle()
    seen, stage = Seen(await world.pipeline()), await world.stage("cpt")
    stranger = json.loads(json.dumps(stage))
    stranger["metadata"]["ownerReferences"][0]["uid"] = "other"
    assert [seen.take("ADDED", stranger), seen.take("BOOKMARK", stage), seen.take("ADDED", stage)] == [
        False,
        False,
        True,
    ]
    with pytest.raises(UserError) as gone:
        seen.take("DELETED", seen.pipeline)
    assert gone.value.code == EXIT_NOT_FOUND


async def test_a_log_is_asked_for_by_stage_evaluation_or_verb(place: tuple[World, Target]) -> None:
    world, _ = place
    await world.apply(PIPELINE)
    await world.settle()
    pipeline, [evaluation, *_] = await world.pipeline(), await world.all("Evaluation")
    stage = await world.stage("cpt")
    by_stage = await find_piece(world.cluster, pipeline, "cpt")
    assert by_stage == Piece(
        stage["metadata"]["name"],
        (f"{stage['metadata']['name']}-a1",),
        PIPELINE["spec"]["store"],
        stage["spec"]["inputDigest"],
        stage["metadata"]["uid"],
    )
    assert (await find_piece(world.cluster, pipeline, evaluation["metadata"]["name"])).owner_uid == (
        evaluation["metadata"]["uid"]
    )
    compare = await find_piece(world.cluster, pipeline, "compare")
    assert compare.name.startswith("poems-compare-") and compare.owner_uid == pipeline["metadata"]["uid"]
    assert find_attempt(by_stage, 1) == find_attempt(by_stage, 0)
    assert (await find_piece(world.cluster, pipeline, "")).name.startswith("poems-cpt")
    with pytest.raises(UserError, match="what is not known; stages: "):
        await find_piece(world.cluster, pipeline, "what")


def test_the_table_of_all_pipelines_has_the_columns_of_kubectl(capsys: pytest.CaptureFixture[str]) -> None:
    ready = {"type": "Ready", "status": "False", "reason": "Working", "message": ""}
    status = {"currentStage": "cpt", "progress": "4/9", "gate": "Pending", "conditions": [ready]}
    item = {"metadata": {"name": "poems", "namespace": "team"}, "status": status}
    listing.show([item], "wide", is_everywhere=True)
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "STAGE", "PROGRESS", "GATE", "PROMOTED", "READY", "AGE", "WHY"]
    assert row.split() == ["team", "poems", "cpt", "4/9", "Pending", "False", "Working"]
    listing.show([item], "name", is_everywhere=False)
    assert capsys.readouterr().out == "adaptationpipeline.bessemer.dev/poems\n"
    listing.show([item], "yaml", is_everywhere=False)
    assert "kind: List" in capsys.readouterr().out
