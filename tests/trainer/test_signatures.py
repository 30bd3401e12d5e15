"""Signatures of releases: by real keys, verified by the library's own program too; what is not as signed is refused.

Store, promotion, rollback, the look at the channels and the import are real; the checkpoints are small files.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.job import SIGNING_ENV, RunSpec
from bessemer_trainer.context import Context, Progress
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.metrics import Board
from bessemer_trainer.release import require_signed
from bessemer_trainer.stages import import_base, promote, resolve, rollback
from bessemer_trainer.store import SIGNATURE, open_store
from tests.support.keys import write_keys
from tests.trainer.git.test_promote import AT, Place


class Signed(Place):
    """A place whose promotions are signed, and fresh looks at its store."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.keys = write_keys(root / "keys")

    def go(self, candidate: str, record: int, **more: Any) -> Path:
        """Promote; the folder that is handed over."""
        assert self.promote(self.promotion(candidate, record, git=None, **more)) == "Promoted"
        return self.released(record + 1)

    def context(self, verb: str, **task: Any) -> Context:
        store = open_store(f"file://{self.root}/store", self.root / "scratch")
        fields = {"runUid": "test", "store": f"file://{self.root}/store", "inputDigest": "sha256:" + "0" * 64}
        spec = RunSpec.model_validate({**fields, "verb": verb, **task})
        return Context(spec, store, self.root / "scratch", Progress(Board("test"), quiet=True))

    def look(self) -> str | None:
        """What the operator is told that the channel holds."""
        found = resolve.run(self.context("resolve", resolve={"channels": ["prod"]})).resolve
        assert found is not None
        return found.channels["prod"].digest

    def back(self, digest: str) -> Any:
        task = super().back(digest).model_copy(update={"git": None})
        store = open_store(f"file://{self.root}/store", self.root / "scratch")
        return rollback.roll_back(store, task, AT, self.root / "scratch")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    made = Signed(tmp_path)
    monkeypatch.setenv(SIGNING_ENV, str(made.keys))
    return made


def verify(folder: Path, public: Path) -> "subprocess.CompletedProcess[str]":
    """As docs/promotion.md says."""
    command = ["verify", "key", str(folder), "--signature", str(folder / SIGNATURE), "--public_key", str(public)]
    return subprocess.run(
        [sys.executable, "-m", "model_signing", *command], check=False, capture_output=True, text=True
    )


def refusal(act: Any, *arguments: Any) -> str:
    with pytest.raises(PermanentError) as found:
        act(*arguments)
    return found.value.reason


def test_what_was_signed_without_reading_it_is_what_everybody_else_verifies_file_by_file(place: Signed) -> None:
    folder = place.go(place.first, 0)
    assert "It is signed." in (folder / "README.md").read_text()
    done = verify(folder, place.keys / "public.pem")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "model.safetensors").write_text("f1rst")
    changed = verify(folder, place.keys / "public.pem")
    assert changed.returncode == 1 and "Hash mismatch for 'model.safetensors'" in changed.stdout + changed.stderr


def test_a_promotion_that_runs_again_leaves_the_signature_as_it_is(place: Signed) -> None:
    task = place.promotion(place.first, 0, git=None, lineage=[])
    promote.publish_release(place.store, task, place.root / "scratch")
    place.promote(task)
    before = (place.released() / SIGNATURE).read_bytes()
    promote.publish_release(place.store, task, place.root / "scratch")
    assert (place.released() / SIGNATURE).read_bytes() == before


def test_promotion_rollback_and_the_look_at_a_channel_take_what_is_signed(place: Signed) -> None:
    place.go(place.first, 0)
    place.go(place.second, 1)
    assert place.look() == place.second
    assert place.back(place.first).outcome == "RolledBack"
    assert place.look() == place.first


def test_a_new_key_beside_the_old_one_is_a_change_of_keys(place: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    place.go(place.first, 0)
    new = write_keys(place.root / "new")
    old = (place.keys / "public.pem").read_bytes()
    monkeypatch.setenv(SIGNING_ENV, str(new))
    assert refusal(place.look) == "SignatureInvalid", "the old key counts no more"
    (new / "public.pem").write_bytes((new / "public.pem").read_bytes() + old)
    place.go(place.second, 1)
    assert place.look() == place.second
    assert place.back(place.first).outcome == "RolledBack"


def strip(place: Signed, folder: Path) -> str:
    (folder / SIGNATURE).unlink()
    return "NotSigned"


def forge(place: Signed, folder: Path) -> str:
    (folder / SIGNATURE).write_text('{"verificationMaterial": 5}')
    return "SignatureInvalid"


def take_another(place: Signed, folder: Path) -> str:
    other = place.store.fetch(place.records()[1]["release"])
    (folder / SIGNATURE).write_bytes((other / SIGNATURE).read_bytes())
    return "SignatureInvalid"


def exchange_keys(place: Signed, folder: Path) -> str:
    (place.keys / "public.pem").write_bytes((write_keys(place.root / "other") / "public.pem").read_bytes())
    return "SignatureInvalid"


def lose_keys(place: Signed, folder: Path) -> str:
    (place.keys / "public.pem").write_text("")
    return "SigningKeyMissing"


@pytest.mark.parametrize("harm", [strip, forge, take_another, exchange_keys, lose_keys])
def test_what_is_not_as_signed_is_neither_rolled_back_to_nor_compared_with(place: Signed, harm: Any) -> None:
    folder = place.go(place.first, 0)
    place.go(place.second, 1, wins=[])
    reason = harm(place, folder)
    assert refusal(place.back, place.first) == reason
    assert len(place.records()) == 2, "the channel stays as it is"
    assert refusal(place.look) == reason, "it is the anchor of the axis that it won"


def test_a_changed_weight_is_found_by_rollback(place: Signed) -> None:
    folder = place.go(place.first, 0)
    place.go(place.second, 1)
    (folder / "model.safetensors").write_text("f1rst")
    assert refusal(place.back, place.first) == "ArtifactCorrupt"


def test_a_record_that_names_the_signed_release_of_another_checkpoint_is_refused(place: Signed) -> None:
    place.go(place.first, 0)
    record = {**place.records()[0], "record": 2, "digest": place.second}
    assert place.store.create("channels/prod/00000002.json", json.dumps(record).encode())
    assert refusal(place.look) == "ReleaseMismatch"


def test_keys_that_do_not_belong_together_sign_nothing(place: Signed) -> None:
    other = write_keys(place.root / "other")
    (place.keys / "public.pem").write_bytes((other / "public.pem").read_bytes())
    assert refusal(place.promote, place.promotion(place.first, 0, git=None)) == "SigningKeyInvalid"
    (place.keys / "private.pem").write_text("no key")
    assert refusal(place.promote, place.promotion(place.first, 0, git=None)) == "SigningKeyInvalid"
    (place.keys / "private.pem").unlink()
    assert refusal(place.promote, place.promotion(place.first, 0, git=None)) == "SigningKeyMissing"
    assert place.records() == []


def test_without_keys_the_card_says_that_nobody_signed(place: Signed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SIGNING_ENV)
    folder = place.go(place.first, 0)
    assert "It is not signed" in (folder / "README.md").read_text()
    assert not (folder / SIGNATURE).exists() and place.look() == place.first
    monkeypatch.setenv(SIGNING_ENV, str(place.keys))
    assert refusal(place.look) == "NotSigned"


def test_an_import_from_the_store_itself_takes_only_what_is_signed(place: Signed) -> None:
    folder = place.go(place.first, 0)
    source = {"source": {"uri": f"file://{folder}"}, "content": "sha256:" + "0" * 64}
    stage = {"method": "import", "base": source}
    assert refusal(import_base.run, place.context("stage", stage=stage)) == "SourceChanged", "signed: on to the content"
    strip(place, folder)
    assert refusal(import_base.run, place.context("stage", stage=stage)) == "NotSigned"


def test_an_artifact_of_no_promotion_can_be_signed_by_hand(place: Signed) -> None:
    folder = place.store.fetch(place.second)
    command = ["sign", "key", str(folder), "--signature", str(folder / SIGNATURE)]
    keys = ["--private_key", str(place.keys / "private.pem")]
    subprocess.run([sys.executable, "-m", "model_signing", *command, *keys], check=True, capture_output=True)
    require_signed(open_store(f"file://{place.root}/store", place.root / "scratch"), place.second)
