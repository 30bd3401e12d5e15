"""Promotion through a real git server over TLS: push, pull request, protection, expired credentials, what people do.

Gitea is built by `make platform`: minutes of compiler time that no other test needs, so without it these are skipped.
"""

import json
import urllib.error
import urllib.parse
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.v1alpha1.git import GitTarget
from bessemer_trainer.deploy import Change, hand_over
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.gitrepo import Credentials
from tests.support.controlplane import wait_for
from tests.support.gitea import Gitea, find_gitea
from tests.trainer.git.bare import FILE, KEY, TEXT

pytestmark = [
    pytest.mark.platform,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(find_gitea() is None, reason="Gitea is not in the cache: `make platform` builds it, once"),
]
NEW = "s3://models/artifacts/sha256-" + "1" * 64


@pytest.fixture(scope="module")
def server() -> Iterator[Gitea]:
    with Gitea.start() as running:
        running.make_user("robot")
        running.make_user("ana")
        yield running


class Deploy:
    """A deploy repository of the organisation, and the robot's credentials for it."""

    def __init__(self, server: Gitea, name: str, root: Path) -> None:
        self.server, self.name, self.root = server, name, root
        made = server.api("POST", "/user/repos", {"name": name, "auto_init": True, "default_branch": "main"})
        self.path = f"/repos/{made['full_name']}"
        for user in ("robot", "ana"):
            server.api("PUT", f"{self.path}/collaborators/{user}", {"permission": "write"})
        server.api("POST", f"{self.path}/contents/{FILE}", {"content": _encoded(TEXT), "message": "begin"})
        self.folder = root / f"credentials-{name}"
        self.folder.mkdir()
        (self.folder / "ca.crt").write_bytes((server.folder / "ca.crt").read_bytes())
        (self.folder / "username").write_text("robot\n")
        self.renew()

    def renew(self) -> None:
        self.token = self.server.make_token("robot")
        (self.folder / "password").write_text(self.token + "\n")

    def change(self, mode: str, value: str = NEW) -> Change:
        target: dict[str, Any] = {
            "repository": f"{self.server.url}/admin1/{self.name}.git", "path": FILE, "key": KEY, "mode": mode,
        }  # fmt: skip
        if mode == "pullRequest":
            target["provider"] = "gitea"
        return Change(GitTarget.model_validate(target), value, "Promote 111 to prod", {"channel": "prod", "by": "ana"})

    def hand_over(self, mode: str, value: str = NEW) -> Any:
        return hand_over(self.change(mode, value), self.root / "scratch", Credentials(self.folder))

    def show(self) -> str:
        from base64 import b64decode

        return b64decode(self.server.api("GET", f"{self.path}/contents/{FILE}?ref=main")["content"]).decode()

    def commits(self) -> list[str]:
        found = self.server.api("GET", f"{self.path}/commits?sha=main&stat=false&verification=false&files=false")
        return [commit["commit"]["message"].splitlines()[0] for commit in reversed(found)]

    def pulls(self) -> list[dict[str, Any]]:
        return list(self.server.api("GET", f"{self.path}/pulls?state=all"))

    def merge(self, how: str = "merge") -> None:
        """As a person does, who waits while Gitea still finds out whether it can be merged (405 until then)."""
        number = self.pulls()[0]["number"]

        def is_merged() -> bool:
            try:
                self.server.api("POST", f"{self.path}/pulls/{number}/merge", {"Do": how}, "ana")
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.METHOD_NOT_ALLOWED:
                    raise
                return False
            return True

        wait_for("Gitea to merge it", is_merged, 300)


def _encoded(text: str) -> str:
    from base64 import b64encode

    return b64encode(text.encode()).decode()


@pytest.fixture
def deploy(server: Gitea, tmp_path: Path, request: pytest.FixtureRequest) -> Deploy:
    return Deploy(server, f"r{abs(hash(request.node.name)) % 10**8}", tmp_path)


def test_a_push_is_one_commit_that_changes_one_line(deploy: Deploy) -> None:
    first = deploy.hand_over("push")
    assert deploy.show() == TEXT.replace("s3://models/old", NEW)
    assert deploy.hand_over("push") == first
    assert deploy.commits()[1:] == ["begin", "Promote 111 to prod"]


@pytest.mark.parametrize("how", ["merge", "squash", "rebase"])
def test_a_pull_request_is_opened_once_and_waited_for_until_a_person_merges_it(deploy: Deploy, how: str) -> None:
    waits = deploy.hand_over("pullRequest")
    assert (waits.commit, waits.url) == ("", deploy.pulls()[0]["html_url"])
    assert deploy.hand_over("pullRequest") == waits
    assert len(deploy.pulls()) == 1 and deploy.show() == TEXT
    assert deploy.pulls()[0]["user"]["login"] == "robot"
    deploy.merge(how)
    done = deploy.hand_over("pullRequest")
    assert done.commit and deploy.show() == TEXT.replace("s3://models/old", NEW)
    assert deploy.hand_over("pullRequest") == done and len(deploy.pulls()) == 1


def test_a_pull_request_that_a_person_closed_is_not_opened_again_until_they_do(deploy: Deploy) -> None:
    deploy.hand_over("pullRequest")
    number = deploy.pulls()[0]["number"]
    deploy.server.api("PATCH", f"{deploy.path}/pulls/{number}", {"state": "closed"}, "ana")
    with pytest.raises(PermanentError, match="was closed without a merge; open it again") as found:
        deploy.hand_over("pullRequest")
    assert found.value.reason == "MergeDeclined" and len(deploy.pulls()) == 1
    deploy.server.api("PATCH", f"{deploy.path}/pulls/{number}", {"state": "open"}, "ana")
    assert deploy.hand_over("pullRequest").url


def test_a_merge_that_a_person_took_back_is_not_fought(deploy: Deploy) -> None:
    deploy.hand_over("pullRequest")
    deploy.merge()
    found = deploy.server.api("GET", f"{deploy.path}/contents/{FILE}?ref=main")
    undo = {"content": _encoded(TEXT), "sha": found["sha"], "message": "back, by hand"}
    deploy.server.api("PUT", f"{deploy.path}/contents/{FILE}", undo, "ana")
    before = deploy.commits()
    with pytest.raises(PermanentError) as refused:
        deploy.hand_over("pullRequest")
    assert refused.value.reason == "RevertedInGit"
    assert deploy.commits() == before and len(deploy.pulls()) == 1


def test_a_protected_branch_refuses_a_push_and_takes_a_pull_request(deploy: Deploy) -> None:
    deploy.server.api(
        "POST", f"{deploy.path}/branch_protections", {"rule_name": "main", "branch_name": "main", "enable_push": False}
    )
    with pytest.raises(PermanentError, match="set mode: pullRequest") as found:
        deploy.hand_over("push")
    assert found.value.reason == "GitProtected" and deploy.show() == TEXT
    assert deploy.hand_over("pullRequest").url


@pytest.mark.parametrize("mode", ["push", "pullRequest"])
def test_expired_credentials_are_named_and_shown_nowhere_and_renewed_ones_go_on(deploy: Deploy, mode: str) -> None:
    names = [item["name"] for item in deploy.server.api("GET", "/users/robot/tokens", None, "robot")]
    for name in names:
        deploy.server.api("DELETE", f"/users/robot/tokens/{urllib.parse.quote(name)}", None, "robot")
    with pytest.raises(PermanentError) as found:
        (deploy.folder / "password").write_text(deploy.token)
        private = {"private": True}
        deploy.server.api("PATCH", deploy.path, private)
        deploy.hand_over(mode)
    assert found.value.reason == "GitUnauthorized" and deploy.token not in str(found.value)
    deploy.renew()
    done = deploy.hand_over(mode)
    assert done.commit or done.url
    everything = json.dumps([deploy.pulls(), deploy.commits(), deploy.show()])
    assert deploy.token not in everything
