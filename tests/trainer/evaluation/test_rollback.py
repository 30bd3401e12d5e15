"""Rollback: what is written, what is refused, once however often it is asked, races. Store and artifacts are real."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.job import RollbackReport, RollbackTask
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.stages import promote, rollback
from tests.trainer.evaluation.test_promote import AT, evidence, head, promotion, put
from tests.trainer.evaluation.tiny import World

__all__ = ["evidence"]
LATER = "2026-02-01T00:00:00Z"
OTHER = "sha256:" + "7" * 64


def request(world: World, channel: str, digest: str, **more: Any) -> RollbackTask:
    fields = {"channel": channel, "digest": digest, "request": f"{channel}/{digest}/1", "pipeline": "demo", "by": "ana"}
    return RollbackTask.model_validate(fields | more)


def filled(world: World, channel: str) -> None:
    """Weak was promoted, then good; something was held before."""
    put(world, channel, 1, world.weak, gate="release", evidence=OTHER, wins=["knowledge"])
    put(world, channel, 2, world.good, held=[OTHER])


def test_a_rollback_is_a_record_that_holds_what_it_left(world: World) -> None:
    filled(world, "rb-back")
    found = rollback.roll_back(world.store(), request(world, "rb-back", world.weak), AT, world.scratch)
    assert found == RollbackReport(outcome="RolledBack", record=3, digest=world.weak, left=world.good, at=AT)
    assert head(world, "rb-back", 3) == {
        "schema": 1, "record": 3, "channel": "rb-back", "digest": world.weak, "kind": "rollback",
        "previous": world.good, "gate": "release", "evidence": OTHER, "wins": [], "held": [OTHER, world.good],
        "pipeline": "demo", "by": "ana", "at": AT, "request": f"rb-back/{world.weak}/1",
    }  # fmt: skip


def test_a_request_is_done_once_whatever_was_promoted_since(world: World) -> None:
    filled(world, "rb-once")
    task = request(world, "rb-once", world.weak)
    first = rollback.roll_back(world.store(), task, AT, world.scratch)
    assert rollback.roll_back(world.store(), task, LATER, world.scratch) == first
    put(world, "rb-once", 4, world.good)
    assert rollback.roll_back(world.store(), task, LATER, world.scratch) == first
    assert len(world.store().list("channels/rb-once")) == 4
    again = rollback.roll_back(world.store(), task.model_copy(update={"request": "another word"}), LATER, world.scratch)
    assert (again.outcome, again.record) == ("RolledBack", 5)


def test_what_a_rollback_left_is_not_promoted_again_and_a_new_candidate_clears_nothing(
    world: World, evidence: str
) -> None:
    filled(world, "rb-held")
    rollback.roll_back(world.store(), request(world, "rb-held", world.weak), AT, world.scratch)
    assert (
        promote.promote(world.store(), promotion(world, "rb-held", evidence, record=3), AT, world.scratch).outcome
        == "Held"
    )
    put(world, "rb-new", 1, world.weak, kind="rollback", held=[OTHER])
    assert (
        promote.promote(world.store(), promotion(world, "rb-new", evidence, record=1), AT, world.scratch).outcome
        == "Promoted"
    )
    assert head(world, "rb-new", 2)["held"] == [OTHER]


def test_going_back_to_a_held_digest_takes_it_off_the_list(world: World) -> None:
    filled(world, "rb-forth")
    rollback.roll_back(world.store(), request(world, "rb-forth", world.weak), AT, world.scratch)
    rollback.roll_back(world.store(), request(world, "rb-forth", world.good, request="forth"), AT, world.scratch)
    assert (head(world, "rb-forth", 4)["digest"], head(world, "rb-forth", 4)["held"]) == (
        world.good,
        [OTHER, world.weak],
    )


def test_a_channel_that_holds_it_already_is_left_as_it_is(world: World) -> None:
    filled(world, "rb-there")
    found = rollback.roll_back(world.store(), request(world, "rb-there", world.good), AT, world.scratch)
    assert (found.outcome, found.record, found.left) == ("AlreadyThere", 2, None)
    assert len(world.store().list("channels/rb-there")) == 2


def test_what_was_never_in_the_channel_is_refused(world: World) -> None:
    filled(world, "rb-never")
    for channel, digest in (("rb-never", OTHER), ("rb-empty", world.good)):
        with pytest.raises(PermanentError, match="never held") as caught:
            rollback.roll_back(world.store(), request(world, channel, digest), AT, world.scratch)
        assert caught.value.reason == "NotInChannel"
    assert len(world.store().list("channels/rb-never")) == 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param("gone", "ArtifactMissing", id="its folder is gone"),
        pytest.param("file", "ArtifactCorrupt", id="a file of it is gone"),
        pytest.param("bytes", "ArtifactCorrupt", id="a file of it was changed"),
    ],
)
def test_files_that_are_not_as_published_are_refused_and_the_old_one_stays(
    world: World, tmp_path: Path, damage: str, reason: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(world.store().fetch(world.weak), folder, ignore=shutil.ignore_patterns("manifest.json"))
    copy = world.store().publish(folder, "checkpoint", {"copy": damage})
    place, channel = world.store().fetch(copy), f"damage-{damage}"
    if damage == "gone":
        shutil.rmtree(place)
    elif damage == "file":
        (place / "model.safetensors").unlink()
    else:
        path = place / "model.safetensors"
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    put(world, channel, 1, copy)
    put(world, channel, 2, world.good)
    with pytest.raises(PermanentError) as caught:
        rollback.roll_back(world.store(), request(world, channel, copy), AT, world.scratch)
    assert caught.value.reason == reason
    assert world.store().list(f"channels/{channel}") == [f"channels/{channel}/{n:08d}.json" for n in (1, 2)]


@pytest.mark.parametrize("turn", range(4))
def test_of_rollbacks_and_a_promotion_at_once_none_is_lost_and_the_rollback_counts(
    world: World, evidence: str, turn: int
) -> None:
    channel = f"race-{turn}"
    put(world, channel, 1, world.weak)
    put(world, channel, 2, OTHER)
    outcomes: list[str] = []

    def back(word: str) -> None:
        outcomes.append(
            rollback.roll_back(
                world.store(), request(world, channel, world.weak, request=word), AT, world.scratch
            ).outcome
        )

    def forth() -> None:
        outcomes.append(
            promote.promote(world.store(), promotion(world, channel, evidence, record=2), AT, world.scratch).outcome
        )

    threads = [threading.Thread(target=back, args=(word,)) for word in ("same", "same", "same", "other")]
    threads.insert(turn, threading.Thread(target=forth))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = [head(world, channel, n + 1) for n in range(len(world.store().list(f"channels/{channel}")))]
    assert [record["record"] for record in written] == list(range(1, len(written) + 1))
    requests = [record.get("request") for record in written]
    assert (requests.count("same") <= 1, requests.count("other") <= 1) == (True, True)
    assert written[-1]["digest"] == world.weak, "whoever came last, the channel holds what was asked for"
    was_promoted = "Promoted" in outcomes
    assert (world.good in written[-1]["held"]) == was_promoted == (world.good in [item["digest"] for item in written])


def test_the_stage_reads_the_clock_and_reports(world: World) -> None:
    filled(world, "rb-stage")
    task = request(world, "rb-stage", world.weak)
    outcome = rollback.run(world.context(verb="rollback", rollback=task.wire()))
    assert outcome.rollback is not None
    assert (outcome.rollback.outcome, outcome.output_digest) == ("RolledBack", world.weak)
    assert len(outcome.rollback.at) == 20
