"""Promotion to a bare repository: done once, one line, with evidence; races, reverts, protection, hostile content."""

import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.v1alpha1.git import GitTarget
from bessemer_trainer import deploy
from bessemer_trainer.deploy import TRAILER, Change, HandedOver, hand_over
from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.gitrepo import Clone, Credentials
from tests.trainer.git.bare import FILE, KEY, TEXT, Bare, git

NEW = "s3://models/artifacts/sha256-" + "1" * 64
OTHER = "s3://models/artifacts/sha256-" + "2" * 64


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare.make(tmp_path)


def change(bare: Bare, value: str = NEW, **more: Any) -> Change:
    target = {"repository": bare.url, "path": FILE, "key": KEY, **more.pop("target", {})}
    evidence = {"channel": "prod", "by": "ana", "gate": "release", "axes": {"loss": {"delta": 0.25}}, **more}
    return Change(GitTarget.model_validate(target), value, "Promote 111 to prod", evidence)


def test_one_line_and_an_evidence_file_in_one_commit_that_names_the_promotion(bare: Bare, tmp_path: Path) -> None:
    wanted = change(bare)
    done = hand_over(wanted, tmp_path / "scratch")
    assert bare.show() == TEXT.replace("s3://models/old", NEW)
    changed = git(bare.folder, "show", "--numstat", "--format=", done.commit).splitlines()
    evidence = f"evidence/{wanted.id}.json"
    assert changed[1] == f"1\t1\t{FILE}" and changed[0].endswith(f"\t0\t{evidence}") and len(changed) == 2
    assert json.loads(bare.show(evidence)) == {"promotion": wanted.id, "value": NEW, **wanted.evidence}
    message = git(bare.folder, "log", "-1", "--format=%B", "main")
    assert message.startswith("Promote 111 to prod\n\nchannel: prod\nby: ana\ngate: release\n")
    assert git(bare.folder, "log", "-1", f"--format=%(trailers:key={TRAILER},valueonly)", "main").strip() == wanted.id


def test_a_promotion_is_done_once_however_often_it_runs(bare: Bare, tmp_path: Path) -> None:
    first = hand_over(change(bare), tmp_path / "scratch")
    bare.write(bare.show().replace("replicas: 2", "replicas: 3"), "more replicas")
    assert hand_over(change(bare), tmp_path / "other") == first
    assert bare.log() == ["begin", "Promote 111 to prod", "more replicas"]


def test_a_value_that_a_person_wrote_already_needs_no_commit(bare: Bare, tmp_path: Path) -> None:
    bare.write(TEXT.replace("s3://models/old", NEW), "by hand")
    done = hand_over(change(bare), tmp_path / "scratch")
    assert done == HandedOver(git(bare.folder, "rev-parse", "main").strip())
    assert bare.log() == ["begin", "by hand"]


def test_a_revert_by_a_person_is_stated_and_not_fought(bare: Bare, tmp_path: Path) -> None:
    done = hand_over(change(bare), tmp_path / "scratch")
    bare.pull()
    git(bare.person, "revert", "--no-edit", done.commit)
    git(bare.person, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    before = bare.log()
    with pytest.raises(PermanentError, match=f"had it by {done.commit[:12]}, and {KEY} was changed again") as found:
        hand_over(change(bare), tmp_path / "scratch")
    assert found.value.reason == "RevertedInGit"
    assert bare.log() == before
    bare.pull()
    git(bare.person, "revert", "--no-edit", "HEAD")
    git(bare.person, "push", "--quiet", "origin", "HEAD:refs/heads/main")
    assert hand_over(change(bare), tmp_path / "scratch") == done, "the person changed their mind"


def test_back_to_an_earlier_digest_is_another_promotion(bare: Bare, tmp_path: Path) -> None:
    for number, value in enumerate((NEW, OTHER, NEW)):
        hand_over(change(bare, value, record=number), tmp_path / "scratch")
    assert len(bare.log()) == 4
    assert NEW in bare.show()


def test_of_many_at_once_none_is_lost_and_none_is_forced(bare: Bare, tmp_path: Path) -> None:
    bare.write("".join(f"k{n}: old\n" for n in range(4)), "four keys", "four.yaml")

    def promote(number: int) -> None:
        hand_over(change(bare, target={"path": "four.yaml", "key": f"k{number}"}), tmp_path / f"scratch{number}")

    threads = [threading.Thread(target=promote, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bare.show("four.yaml") == "".join(f"k{n}: {NEW}\n" for n in range(4))
    assert bare.log() == ["begin", "four keys", *["Promote 111 to prod"] * 4]


def test_a_push_that_is_overtaken_again_and_again_is_tried_later(
    bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, pushed = Clone.push, []

    def overtaken(clone: Clone, branch: str) -> None:
        bare.write(f"{TEXT}# {len(pushed)}\n", "faster")
        pushed.append(branch)
        real(clone, branch)

    monkeypatch.setattr(Clone, "push", overtaken)
    monkeypatch.setattr(deploy, "_RACES", 3)
    with pytest.raises(TransientError, match="3 times somebody else pushed first"):
        hand_over(change(bare), tmp_path / "scratch")
    assert bare.log() == ["begin", "faster", "faster", "faster"]


def test_a_server_that_refuses_the_push_is_named_with_the_way_out(bare: Bare, tmp_path: Path) -> None:
    hook = bare.folder / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'main is a protected branch'; exit 1\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(PermanentError, match="set mode: pullRequest") as found:
        hand_over(change(bare), tmp_path / "scratch")
    assert found.value.reason == "GitProtected"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        pytest.param({"repository": "file:///no/such/place"}, "GitMissing", id="no repository"),
        pytest.param({"branch": "other"}, "GitMissing", id="no branch"),
        pytest.param({"path": "other.yaml"}, "GitFileMissing", id="no file"),
        pytest.param({"key": "spec.other"}, "GitKeyMissing", id="no key"),
    ],
)
def test_what_is_not_there_is_named(bare: Bare, tmp_path: Path, target: dict[str, str], reason: str) -> None:
    with pytest.raises(PermanentError) as found:
        hand_over(change(bare, target=target), tmp_path / "scratch")
    assert found.value.reason == reason
    assert bare.log() == ["begin"]


def test_no_link_hook_or_filter_of_a_hostile_repository_reaches_this_machine(bare: Bare, tmp_path: Path) -> None:
    secret, mark = tmp_path / "secret.yaml", tmp_path / "ran"
    secret.write_text(TEXT)
    (bare.person / "link.yaml").symlink_to(secret)
    (bare.person / "evidence").symlink_to(tmp_path)
    bare.write(f'* filter=evil\n[filter "evil"]\n  smudge = touch {mark}\n', "evil", ".gitattributes")
    with pytest.raises(PermanentError) as found:
        hand_over(change(bare, target={"path": "link.yaml"}), tmp_path / "scratch")
    assert found.value.reason in {"GitKeyMissing", "GitFileInvalid"}
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises((PermanentError, OSError)):
        hand_over(change(bare), tmp_path / "scratch")
    assert secret.read_text() == TEXT and not mark.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_credentials_never_show_in_arguments_or_messages(tmp_path: Path, bare: Bare) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    for name, value in {"username": "robot", "password": "canary-7421", "ssh-privatekey": "canary-key"}.items():
        (folder / name).write_text(value)
    credentials = Credentials(folder)
    target = {"repository": "https://127.0.0.1:1/org/deploy.git"}
    with pytest.raises(TransientError) as found:
        hand_over(change(bare, target=target), tmp_path / "scratch", credentials)
    assert "canary" not in str(found.value)
    assert credentials.hide("denied: canary-7421") == "denied: ***"
    known = credentials.environment(target["repository"], tmp_path)
    assert "canary" not in known["GIT_SSH_COMMAND"]
    headers = [value for name, value in known.items() if name.startswith("GIT_CONFIG_KEY") and "extraHeader" in value]
    assert headers == ["http.https://127.0.0.1:1/.extraHeader"], "shown to that server alone"
