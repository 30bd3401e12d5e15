"""Promotion: every outcome, re-runs after a crash, and what is never promoted. Store and artifacts are real."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.job import PromoteReport, PromoteTask
from bessemer_trainer import channels
from bessemer_trainer.context import Outcome
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.stages import compare, promote
from tests.trainer.evaluation.test_compare import task as compare_task
from tests.trainer.evaluation.tiny import World

AT = "2026-01-31T12:00:00Z"


@pytest.fixture(scope="module")
def evidence(world: World) -> str:
    digest = compare.run(world.context(verb="compare", compare=compare_task(world))).output_digest
    assert digest is not None
    return digest


def promotion(world: World, channel: str, evidence: str, **more: Any) -> PromoteTask:
    fields = {
        "channel": channel, "candidate": world.good, "record": 0, "gate": "release", "evidence": evidence,
        "wins": ["knowledge"], "pipeline": "demo", "by": "ana",
    }  # fmt: skip
    return PromoteTask.model_validate(fields | more)


def head(world: World, channel: str, number: int) -> dict[str, Any]:
    data = world.store().read(f"channels/{channel}/{number:08d}.json")
    assert data is not None
    document: dict[str, Any] = json.loads(data)
    return document


def put(world: World, channel: str, number: int, digest: str, **more: Any) -> None:
    record = {"schema": 1, "record": number, "channel": channel, "digest": digest, "kind": "promotion", "at": AT}
    assert world.store().create(f"channels/{channel}/{number:08d}.json", json.dumps(record | more).encode())


def test_the_first_promotion_writes_record_one_with_all_that_led_to_it(world: World, evidence: str) -> None:
    found = promote.promote(world.store(), promotion(world, "first", evidence), AT, world.scratch)
    assert found == PromoteReport(outcome="Promoted", record=1, digest=world.good, at=AT, release=found.release)
    assert found.release is not None
    assert head(world, "first", 1) == {
        "release": found.release,
        "schema": 1, "record": 1, "channel": "first", "digest": world.good, "kind": "promotion", "previous": None,
        "gate": "release", "evidence": evidence, "wins": ["knowledge"], "held": [], "pipeline": "demo", "by": "ana",
        "at": AT,
    }  # fmt: skip


def test_a_run_again_after_a_crash_gives_the_outcome_of_the_first_run(world: World, evidence: str) -> None:
    task = promotion(world, "crash", evidence)
    first = promote.promote(world.store(), task, AT, world.scratch)
    assert promote.promote(world.store(), task, "2026-02-01T00:00:00Z", world.scratch) == first
    assert world.store().list("channels/crash") == ["channels/crash/00000001.json"]


def test_a_run_again_after_newer_releases_gives_the_outcome_of_the_first_run(world: World, evidence: str) -> None:
    task = promotion(world, "newer", evidence)
    first = promote.promote(world.store(), task, AT, world.scratch)
    put(world, "newer", 2, world.weak)
    put(world, "newer", 3, world.good, kind="rollback", held=[world.weak])
    assert promote.promote(world.store(), task, "2026-02-01T00:00:00Z", world.scratch) == first
    assert world.store().list("channels/newer") == [f"channels/newer/{number:08d}.json" for number in (1, 2, 3)]


def test_the_incumbent_is_already_promoted(world: World, evidence: str) -> None:
    put(world, "again", 1, world.weak)
    put(world, "again", 2, world.good)
    found = promote.promote(world.store(), promotion(world, "again", evidence, record=2), AT, world.scratch)
    assert (found.outcome, found.record) == ("AlreadyPromoted", 2)


def test_another_head_than_the_one_gated_against_means_that_the_baseline_moved(world: World, evidence: str) -> None:
    put(world, "moved", 1, world.weak)
    found = promote.promote(world.store(), promotion(world, "moved", evidence, record=0), AT, world.scratch)
    assert (found.outcome, found.record, found.digest) == ("BaselineMoved", 1, world.weak)


def test_a_digest_that_a_rollback_left_is_held_and_stays_held(world: World, evidence: str) -> None:
    put(world, "held", 1, world.weak, kind="rollback", held=[world.good])
    assert (
        promote.promote(world.store(), promotion(world, "held", evidence, record=1), AT, world.scratch).outcome
        == "Held"
    )
    other = promotion(world, "kept", evidence, record=1)
    put(world, "kept", 1, world.weak, kind="rollback", held=["sha256:" + "7" * 64])
    assert promote.promote(world.store(), other, AT, world.scratch).outcome == "Promoted"
    assert head(world, "kept", 2)["held"] == ["sha256:" + "7" * 64]


def test_an_override_says_so_in_its_record_and_starts_no_new_count_of_tries(world: World, evidence: str) -> None:
    put(world, "override", 1, world.weak)
    task = promotion(world, "override", evidence, record=1, override=True, wins=[], by="ana")
    first = promote.promote(world.store(), task, AT, world.scratch)
    assert first == PromoteReport(outcome="Promoted", record=2, digest=world.good, at=AT, release=first.release)
    assert (head(world, "override", 2)["kind"], head(world, "override", 2)["by"]) == ("override", "ana")
    assert promote.promote(world.store(), task, "2026-02-01T00:00:00Z", world.scratch) == first
    assert channels.last_promotion(world.store(), "override", 2) == 1


def test_a_channel_follows_only_while_the_one_before_still_holds_the_candidate(world: World, evidence: str) -> None:
    put(world, "early", 1, world.good)
    after = promotion(world, "late", evidence, after="early")
    put(world, "early", 2, world.weak)
    assert promote.promote(world.store(), after, AT, world.scratch).outcome == "LeftBefore"
    assert world.store().list("channels/late") == []
    put(world, "early", 3, world.good)
    assert promote.promote(world.store(), after, AT, world.scratch).outcome == "Promoted"
    put(world, "early", 4, world.weak)
    assert promote.promote(world.store(), after, AT, world.scratch).outcome == "Promoted", "what happened stays so"
    never = promotion(world, "late2", evidence, after="empty")
    assert promote.promote(world.store(), never, AT, world.scratch).outcome == "LeftBefore"


def test_of_many_promotions_at_once_exactly_one_wins(world: World, evidence: str) -> None:
    outcomes: list[str] = []

    def go(name: str) -> None:
        found = promote.promote(world.store(), promotion(world, "race", evidence, pipeline=name), AT, world.scratch)
        outcomes.append(found.outcome)

    threads = [threading.Thread(target=go, args=(f"p{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(outcomes)) in (["AlreadyPromoted", "Promoted"], ["AlreadyPromoted", "BaselineMoved", "Promoted"],
                                     ["BaselineMoved", "Promoted"])  # fmt: skip
    assert outcomes.count("Promoted") == 1
    assert world.store().list("channels/race") == ["channels/race/00000001.json"]


def test_a_damaged_checkpoint_is_refused_and_nothing_is_written(world: World, evidence: str, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(world.store().fetch(world.good), folder, ignore=shutil.ignore_patterns("manifest.json"))
    copy = world.store().publish(folder, "checkpoint", {"copy": True})
    path = world.store().fetch(copy) / "model.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(PermanentError) as caught:
        promote.promote(world.store(), promotion(world, "damage", evidence, candidate=copy), AT, world.scratch)
    assert caught.value.reason == "ArtifactCorrupt"
    assert world.store().list("channels/damage") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"candidate": "weak"}, "EvidenceMismatch", id="evidence about another candidate"),
        pytest.param({"gate": "forgetting"}, "EvidenceMismatch", id="evidence of another gate"),
        pytest.param({"evidence": "good"}, "WrongKind", id="evidence that is no comparison"),
        pytest.param({"candidate": "bank"}, "WrongKind", id="a candidate that is no checkpoint"),
        pytest.param({"evidence": "sha256:" + "3" * 64}, "ArtifactMissing", id="evidence that is not there"),
    ],
)
def test_what_the_evidence_does_not_cover_is_not_promoted(
    world: World, evidence: str, change: dict[str, str], reason: str
) -> None:
    named = {"weak": world.weak, "good": world.good, "bank": world.bank}
    changed = {key: named.get(value, value) for key, value in ({"evidence": evidence} | change).items()}
    task = promotion(world, "uncovered", **changed)
    with pytest.raises(PermanentError) as caught:
        promote.promote(world.store(), task, AT, world.scratch)
    assert caught.value.reason == reason
    assert world.store().list("channels/uncovered") == []


def test_a_channel_that_was_tampered_with_is_an_error(world: World, evidence: str) -> None:
    put(world, "tampered", 2, world.weak, record=1)
    with pytest.raises(PermanentError) as caught:
        promote.promote(world.store(), promotion(world, "tampered", evidence, record=2), AT, world.scratch)
    assert caught.value.reason == "ChannelCorrupt"


def test_the_stage_reads_the_clock_and_reports(world: World, evidence: str) -> None:
    task = promotion(world, "stage", evidence)
    outcome: Outcome = promote.run(world.context(verb="promote", promote=task.wire()))
    assert outcome.promote is not None
    assert (outcome.promote.outcome, outcome.output_digest) == ("Promoted", world.good)
    assert outcome.promote.at.endswith("Z")
    assert len(outcome.promote.at) == 20
