"""approve, reject, rollback: the commands on a local state folder in which the real operator works."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bessemer_operator.cli import release
from bessemer_operator.cli.place import Place
from bessemer_operator.cli.problems import EXIT_GATE, EXIT_NOT_FOUND, EXIT_OK, EXIT_USAGE, EXIT_WAITING, UserError
from bessemer_operator.cli.story import outcome
from bessemer_operator.cli.target import Target, as_pipeline
from bessemer_operator.cluster.protocol import Ref
from tests.api.documents import PIPELINE, edited
from tests.support.world import World, digest_of, memory_folder

ASKED = {"spec.promotion.approval": {"required": True}}


@pytest.fixture
async def place() -> AsyncIterator[tuple[World, Target]]:
    """A world whose cluster is that of a local run, and the target that a user would name."""
    with memory_folder() as folder:
        world = World(folder / "cluster")
        yield world, Target(Ref("AdaptationPipeline", "poems", "default"), Place(state=str(folder)), "poems.yaml")
        await world.cluster.close()


async def code(world: World) -> int:
    return outcome(as_pipeline(await world.pipeline())).code


def refused(error: pytest.ExceptionInfo[UserError]) -> tuple[int, str]:
    return error.value.code, str(error.value)


async def test_a_release_owner_approves_and_rolls_back(
    place: tuple[World, Target], capsys: pytest.CaptureFixture[str]
) -> None:
    world, target = place
    await world.apply(edited(PIPELINE, ASKED))
    await world.settle()
    assert await code(world) == EXIT_WAITING
    candidate = (await world.stage("cpt"))["status"]["outputDigest"]
    with pytest.raises(UserError) as caught:
        await release.approve(target, digest_of("other"), "ana")
    assert refused(caught)[0] == EXIT_USAGE and candidate in str(caught.value)
    await release.approve(target, candidate[7:17], "ana")
    told = capsys.readouterr().out
    assert told.startswith("Gate release: Passed at look 1.")
    assert told.endswith(f"poems: {candidate} is approved by ana; continue with: bessemer run poems.yaml\n")
    await world.settle()
    assert (await code(world), world.store.channels["prod"][0].by) == (EXIT_OK, "ana")
    with pytest.raises(UserError) as caught:
        await release.approve(target, "", "ana")
    assert refused(caught)[0] == EXIT_NOT_FOUND and "nothing waits for an approval" in str(caught.value)

    with pytest.raises(UserError, match="it is not known what channel prod held before") as caught:
        await release.rollback(target, "", "", "ana")
    assert caught.value.code == EXIT_NOT_FOUND
    await world.apply(edited(PIPELINE, {"spec.stages.2.train.learningRate": 1e-4}))
    await world.settle()
    await release.rollback(target, "", "", "bo")
    assert f"channel prod goes back to {candidate}, asked for by bo" in capsys.readouterr().out
    await world.settle()
    assert [record.candidate for record in world.store.channels["prod"]][2:] == [candidate]
    assert await code(world) == EXIT_GATE


async def test_a_rejection_is_told_and_ends_with_the_code_of_a_refused_gate(
    place: tuple[World, Target], capsys: pytest.CaptureFixture[str]
) -> None:
    world, target = place
    await world.apply(edited(PIPELINE, ASKED))
    await world.settle()
    await release.reject(target, "", "bo")
    assert "is rejected by bo" in capsys.readouterr().out
    await world.settle()
    found = outcome(as_pipeline(await world.pipeline()))
    assert (found.code, found.sentence) == (EXIT_GATE, "Rejected: rejected by bo")


@pytest.mark.parametrize(
    ("digest", "channel", "words"),
    [
        pytest.param("sha256:12", "", "is no digest", id="no_digest"),
        pytest.param("", "staging", "has no channel staging; its channels: prod", id="no_such_channel"),
    ],
)
async def test_a_rollback_to_nowhere_is_refused(
    place: tuple[World, Target], digest: str, channel: str, words: str
) -> None:
    world, target = place
    await world.apply(PIPELINE)
    with pytest.raises(UserError, match=words) as caught:
        await release.rollback(target, digest, channel, "ana")
    assert caught.value.code == EXIT_USAGE


async def test_of_several_channels_one_must_be_named(place: tuple[World, Target]) -> None:
    world, target = place
    channels: list[dict[str, Any]] = [{"name": "early"}, {"name": "prod", "after": {"soak": "1h"}}]
    await world.apply(edited(PIPELINE, {"spec.promotion.channels": channels}))
    with pytest.raises(UserError, match="which channel"):
        await release.rollback(target, digest_of("x"), "", "ana")
    await release.rollback(target, digest_of("x"), "early", "ana")
    notes = (await world.pipeline())["metadata"]["annotations"]
    assert notes["bessemer.dev/rollback"].startswith(f"early/{digest_of('x')}/")


async def test_who_asks_in_a_local_run_is_the_user_of_this_machine(
    place: tuple[World, Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, target = place
    await world.apply(PIPELINE)
    monkeypatch.setenv("LOGNAME", "carla")
    await release.rollback(target, digest_of("x"), "", "")
    assert (await world.pipeline())["metadata"]["annotations"]["bessemer.dev/rollback-by"] == "carla"
