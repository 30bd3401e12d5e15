"""promote and rollback of a channel with a git target, on a real store and a bare repository: git, then the record.

The checkpoints are small files: what they hold plays no part here.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.job import PromoteTask, RollbackTask
from bessemer_trainer.deploy import HandedOver
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.stages import promote, rollback
from bessemer_trainer.stages.resolve import head
from bessemer_trainer.store import Store, open_store
from tests.trainer.git.bare import FILE, KEY, Bare, git

AT = "2026-01-31T12:00:00Z"
AXIS = {
    "name": "loss", "n": 20, "delta": 0.25, "standardError": 0.1, "low": 0.05, "high": 0.45, "baselineMean": -1.0,
    "candidateMean": -0.75, "clusters": 20, "largestClusterShare": 0.05, "pHold": 0.001, "pWorse": 0.999, "pWin": 0.01,
    "pNoWin": 0.99, "baselineLow": 0.9, "binary": False,
}  # fmt: skip
BASELINE, BANK = ("sha256:" + digit * 64 for digit in "89")


def judged(candidate: str, **report: Any) -> dict[str, Any]:
    """What `compare` keeps of a comparison."""
    arms = {name: {"checkpoint": digest, "results": [BANK]} for name, digest in
            {"candidate": candidate, "baseline": BASELINE}.items()}  # fmt: skip
    task = {
        "gate": "release", "gateDigest": BANK, "looks": [10, 20], "look": 2, "bank": BANK, "channel": "prod", **arms,
        "axes": [{"name": "loss", "winBy": 0.0, "notWorseThan": 0.1}],
        "measures": [{"name": "loss", "task": "bitsPerByte"}],
    }  # fmt: skip
    found = {"look": 2, "tries": 3, "bankUses": 4, "axes": [AXIS], "settingsAgree": True}
    return {"schema": 1, "task": task, "report": found | report}


class Place:
    """A store with two judged checkpoints, and a deploy repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store: Store = open_store(f"file://{root}/store", root / "scratch")
        self.bare = Bare.make(root / "git")
        self.first, self.second = self._checkpoint("first"), self._checkpoint("second")

    def _checkpoint(self, content: str) -> str:
        folder = self.root / content
        folder.mkdir()
        (folder / "model.safetensors").write_text(content)
        return self.store.publish(folder, "checkpoint", {})

    def evidence(self, candidate: str, **report: Any) -> str:
        folder = self.root / f"evidence-{candidate[7:19]}"
        folder.mkdir(exist_ok=True)
        (folder / "evidence.json").write_text(json.dumps(judged(candidate, **report)))
        return self.store.publish(folder, "comparison", {"gate": "release", "candidate": candidate})

    @property
    def target(self) -> dict[str, str]:
        return {"repository": self.bare.url, "path": FILE, "key": KEY}

    def promotion(self, candidate: str, record: int, **more: Any) -> PromoteTask:
        fields = {
            "channel": "prod", "candidate": candidate, "record": record, "gate": "release", "by": "ana",
            "evidence": self.evidence(candidate), "wins": ["loss"], "pipeline": "demo", "git": self.target,
        }  # fmt: skip
        return PromoteTask.model_validate(fields | more)

    def back(self, digest: str) -> RollbackTask:
        fields = {"channel": "prod", "digest": digest, "request": f"prod/{digest}", "pipeline": "demo", "by": "bo"}
        return RollbackTask.model_validate(fields | {"git": self.target})

    def promote(self, task: PromoteTask) -> str:
        return promote.promote(self.store, task, AT, self.root / "scratch").outcome

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(self.store.read(key) or b"") for key in self.store.list("channels/prod")]

    def released(self, number: int = 1) -> Path:
        """The folder that a record hands over."""
        return self.store.fetch(self.records()[number - 1]["release"])

    def served(self) -> str:
        return next(line for line in self.bare.show().splitlines() if "storageUri" in line).split()[1]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_git_has_the_folder_by_digest_and_the_record_names_the_commit(place: Place) -> None:
    assert place.promote(place.promotion(place.first, 0)) == "Promoted"
    release = place.records()[0]["release"]
    assert place.served() == f"file://{place.root}/store/artifacts/{release.replace(':', '-')}"
    assert Path(place.served().removeprefix("file://"), "model.safetensors").read_text() == "first"
    (record,) = place.records()
    commit = git(place.bare.folder, "rev-parse", "main").strip()
    assert record["git"] == {**place.target, "branch": "main", "commit": commit}
    assert head(place.records(), set()).commit == commit
    (name,) = [
        line for line in git(place.bare.folder, "ls-tree", "-r", "--name-only", "main").split() if "evid" in line
    ]
    told = json.loads(place.bare.show(name))
    assert {key: told[key] for key in ("evidence", "gate", "by", "wins", "digest", "previous")} == {
        "evidence": place.evidence(place.first), "gate": "release", "by": "ana", "wins": ["loss"],
        "digest": place.first, "previous": None,
    }  # fmt: skip
    assert told["axes"]["loss"]["delta"] == 0.25


def test_run_again_after_a_crash_it_gives_the_outcome_of_the_first_run(place: Place) -> None:
    task = place.promotion(place.first, 0)
    assert (place.promote(task), place.promote(task)) == ("Promoted", "Promoted")
    assert place.promote(place.promotion(place.first, 1)) == "AlreadyPromoted"
    assert place.bare.log() == ["begin", f"Promote {place.first[7:19]} to prod"]


def test_a_crash_between_git_and_the_record_is_made_good_without_another_commit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    task = place.promotion(place.first, 0)
    with monkeypatch.context() as once:
        once.setattr(Store, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            place.promote(task)
    assert place.records() == []
    assert place.promote(task) == "Promoted"
    assert len(place.bare.log()) == 2 and len(place.records()) == 1


def test_a_rollback_takes_the_same_way_to_the_earlier_digest(place: Place) -> None:
    place.promote(place.promotion(place.first, 0))
    place.promote(place.promotion(place.second, 1))
    done = rollback.roll_back(place.store, place.back(place.first), AT, place.root / "scratch")
    assert (done.outcome, done.commit) == ("RolledBack", git(place.bare.folder, "rev-parse", "main").strip())
    assert done.release == place.records()[0]["release"] == place.records()[2]["release"]
    assert place.served().endswith((done.release or "").replace(":", "-")), "the folder of then, card and all"
    assert place.bare.log()[-1] == f"Roll prod back to {place.first[7:19]}"
    assert rollback.roll_back(place.store, place.back(place.first), AT, place.root / "scratch") == done
    assert len(place.bare.log()) == 4


def test_while_git_does_not_have_it_there_is_no_record(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = HandedOver(url="https://git.example.com/org/deploy/pulls/1")
    monkeypatch.setattr(promote, "hand_over", lambda change, scratch: waits)
    found = promote.promote(place.store, place.promotion(place.first, 0), AT, place.root / "scratch")
    assert (found.outcome, found.url, place.records()) == ("WaitingForMerge", waits.url, [])


def test_a_change_that_git_refuses_leaves_the_channel_as_it_is(place: Place) -> None:
    with pytest.raises(PermanentError, match="there is no file"):
        place.promote(place.promotion(place.first, 0, git={**place.target, "path": "other.yaml"}))
    assert place.records() == []


def test_what_is_held_or_was_overtaken_never_reaches_git(place: Place) -> None:
    place.promote(place.promotion(place.first, 0))
    place.promote(place.promotion(place.second, 1))
    rollback.roll_back(place.store, place.back(place.first), AT, place.root / "scratch")
    before = place.bare.log()
    assert place.promote(place.promotion(place.second, 3)) == "Held"
    assert place.promote(place.promotion(place.second, 0)) == "BaselineMoved"
    assert place.bare.log() == before
