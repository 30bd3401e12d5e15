"""One clone of a deploy repository: the only file that runs git. It knows no promotion and no pull request.

Every call is a list of arguments, options before `--`; no shell, no hooks, no symbolic links, no redirects, nobody is
asked for a password. Credentials travel in the environment of git alone, never in an argument, a URL or a message.
"""

import base64
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bessemer_api.job import GIT_CREDENTIALS_ENV
from bessemer_trainer.errors import PermanentError, TransientError

TIMEOUT = 300
_INHERITED = ("PATH", "HOME", "SSH_AUTH_SOCK", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE")
_AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Bessemer"), ("EMAIL", "bessemer@bessemer.dev"))
}
_REFUSED = (
    "authentication failed",
    "could not read username",
    "could not read password",
    "permission denied",
    "invalid credentials",
    "error: 401",
    "error: 403",
    "returned error: 40",
    "host key verification failed",
    "unauthorized",
)
_PROTECTED = ("protected branch", "pre-receive hook declined", "hook declined", "not allowed to push")
_OVERTAKEN = (
    "non-fast-forward",
    "fetch first",
    "stale info",
    "cannot lock ref",
    "failed to update ref",
    "incorrect old",
)
_ABSENT = ("remote branch", "repository not found", "does not appear to be a git repository", "does not exist")


class OvertakenError(Exception):
    """Somebody else pushed meanwhile: clone again."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a Secret holds, as files of a folder. Absent, as on a laptop, the user's own configuration of git counts."""

    folder: Path | None

    @classmethod
    def find(cls) -> "Credentials":
        """Those that the environment names."""
        name = os.environ.get(GIT_CREDENTIALS_ENV)
        return cls(Path(name) if name else None)

    def read(self, key: str) -> str:
        """One of its values; empty when there is none."""
        path = self.folder / key if self.folder is not None else None
        return path.read_text(encoding="utf-8").strip() if path is not None and path.is_file() else ""

    @property
    def token(self) -> str:
        """For the API of a provider."""
        return self.read("token") or self.read("password")

    @property
    def ca_file(self) -> Path | None:
        """Certificate authority of the server, where it is a private one."""
        path = self.folder / "ca.crt" if self.folder is not None else None
        return path if path is not None and path.is_file() else None

    def hide(self, text: str) -> str:
        """`text` without any of the secrets, should a server have repeated one."""
        for key in ("token", "password"):
            value = self.read(key)
            text = text.replace(value, "***") if value else text
        return text

    def environment(self, url: str, scratch: Path) -> dict[str, str]:
        """What git must know to reach `url` alone."""
        settings = {
            "core.symlinks": "false",
            "core.hooksPath": os.devnull,
            "core.fsmonitor": "false",
            "core.autocrlf": "false",
            "http.followRedirects": "false",
            "protocol.allow": "never",
            f"protocol.{urlsplit(url).scheme}.allow": "always",
        }
        known = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes", "LC_ALL": "C", **_AUTHOR}
        if self.folder is not None:
            known |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ASKPASS": ""}
            settings |= self._http(url)
            known["GIT_SSH_COMMAND"] = self._ssh(scratch)
        for number, (name, value) in enumerate(settings.items()):
            known |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {**inherited, **known, "GIT_CONFIG_COUNT": str(len(settings))}

    def _http(self, url: str) -> dict[str, str]:
        if not self.token or not url.startswith("https://"):
            return {"http.sslCAInfo": str(self.ca_file)} if self.ca_file else {}
        pair = base64.b64encode(f"{self.read('username') or 'bessemer'}:{self.token}".encode()).decode()
        found = {f"http.{_origin(url)}/.extraHeader": f"Authorization: Basic {pair}"}
        return found | ({"http.sslCAInfo": str(self.ca_file)} if self.ca_file else {})

    def _ssh(self, scratch: Path) -> str:
        """Ssh refuses a key that others may read, as one is that a Secret mounts: it gets a copy."""
        command = ["ssh", "-F", os.devnull, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        for key, option in (("ssh-privatekey", "IdentityFile"), ("known_hosts", "UserKnownHostsFile")):
            if self.read(key):
                copy = scratch / key
                copy.touch(mode=0o600)
                copy.write_text(self.read(key) + "\n", encoding="utf-8")
                command += ["-o", f"{option}={copy}"]
        return shlex.join([*command, "-o", "IdentitiesOnly=yes"] if self.read("ssh-privatekey") else command)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone with one branch checked out."""

    url: str
    branch: str
    folder: Path
    environment: Mapping[str, str]
    credentials: Credentials

    @classmethod
    def make(cls, url: str, branch: str, folder: Path, credentials: Credentials) -> "Clone":
        """Clone `branch` into `folder`, which is replaced.

        Raises PermanentError(GitUnauthorized | GitMissing), TransientError(GitUnreachable).
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        clone = cls(url, branch, folder / "clone", credentials.environment(url, folder), credentials)
        options = ["--quiet", "--no-tags", "--single-branch", "--template=", f"--branch={branch}"]
        clone._git(["clone", *options, "--", url, str(clone.folder)], folder)
        return clone

    def find_trailer(self, name: str, value: str) -> str | None:
        """The newest commit of the branch with this trailer."""
        lines = self.run("log", f"--format=%H %(trailers:key={name},valueonly,separator=%x20)", "HEAD")
        return next((line.split()[0] for line in lines.splitlines() if value in line.split()[1:]), None)

    def last_change(self, path: str) -> str:
        """The newest commit that changed `path`."""
        return self.run("log", "-1", "--format=%H", "HEAD", "--", path).strip()

    def has_remote_branch(self, name: str) -> bool:
        """Whether the repository has a branch of this name."""
        return bool(self.run("ls-remote", "--heads", "--", self.url, f"refs/heads/{name}").strip())

    def commit(self, paths: list[str], message: str) -> str:
        """Commit these files; the commit."""
        self.run("add", "--", *paths)
        self.run("commit", "--quiet", "--no-verify", "--no-gpg-sign", f"--message={message}")
        return self.run("rev-parse", "HEAD").strip()

    def push(self, branch: str) -> None:
        """Push what is committed, never by force. Raises OvertakenError when the branch has moved on."""
        self.run("push", "--quiet", "--no-verify", "--", self.url, f"HEAD:refs/heads/{branch}")

    def run(self, *arguments: str) -> str:
        """One git command in the clone; its output."""
        return self._git(list(arguments), self.folder)

    def _git(self, arguments: list[str], folder: Path) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=TIMEOUT,
            )
        except FileNotFoundError:
            raise PermanentError("GitNotInstalled", "the program git is not in this image; it needs one") from None
        except subprocess.TimeoutExpired:
            message = f"{self.url}: git {arguments[0]} took over {TIMEOUT} s"
            raise TransientError("GitUnreachable", message) from None
        if done.returncode == 0:
            return done.stdout.decode("utf-8", "replace")
        raise self._failure(arguments[0], done.stderr.decode("utf-8", "replace"))

    def _failure(self, verb: str, said: str) -> Exception:
        """What git said, as an error that a person can act on."""
        lower = said.lower()
        words = " ".join(self.credentials.hide(said).split())[-400:]
        where = f"{self.url}, branch {self.branch}"
        if verb == "push" and any(word in lower for word in _OVERTAKEN):
            return OvertakenError(words)
        if any(word in lower for word in _PROTECTED):
            fix = "allow the account to push there, or set mode: pullRequest"
            return PermanentError("GitProtected", f"{where}: the server refuses the push; {fix}. It said: {words}")
        if any(word in lower for word in _REFUSED):
            fix = "renew the credentials that the profile names (gitSecret), then annotate bessemer.dev/retry"
            return PermanentError("GitUnauthorized", f"{where}: access is refused; {fix}. git said: {words}")
        if verb == "clone" and any(word in lower for word in _ABSENT):
            return PermanentError("GitMissing", f"{where}: there is no such repository or branch. git said: {words}")
        return TransientError("GitUnreachable", f"{where}: git {verb} failed: {words}")
