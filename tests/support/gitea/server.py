"""Starts Gitea, a git server with pull requests, over TLS, for tests. Built from its Go module, once.

The build takes minutes of compiler time, so it is asked for (`make platform`): nothing here starts it.
"""

import getpass
import json
import secrets
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.controlplane.gobuild import GoModule, cached_module_folder, cached_programs
from tests.support.controlplane.pki import CertificateAuthority
from tests.support.controlplane.process import ProcessGroup, Program, free_port

PROGRAM = "gitea"
PACKAGE = "code.gitea.io/gitea"
MODULE = GoModule("gitea", Path(__file__).parent, {PROGRAM: PACKAGE}, tags="sqlite sqlite_unlock_notify", cgo=True)
ADMIN = "admin1"


def find_gitea(*, build: bool = False) -> Path | None:
    """The program, from the cache; None where it has not been built. `build` builds it."""
    found = MODULE.cache / PROGRAM
    if found.exists() or build:
        cached_programs(MODULE, [PROGRAM])
        cached_module_folder(MODULE, PACKAGE, "")
        return found
    return None


@dataclass(frozen=True)
class Gitea:
    """A running server with an administrator; `api` speaks to it as that one or as a user."""

    url: str
    folder: Path
    program: Path
    password: str
    context: ssl.SSLContext

    @classmethod
    @contextmanager
    def start(cls) -> Iterator["Gitea"]:
        """Start a server, which is gone, with all that it stored, when the context ends."""
        program = find_gitea(build=True)
        assert program is not None
        folder = Path(tempfile.mkdtemp(prefix="bessemer-gitea-"))
        processes = ProcessGroup(folder, [folder])
        authority, port = CertificateAuthority("bessemer-gitea"), free_port()
        pair = authority.issue_server(["127.0.0.1", "localhost"])
        for name, data in {
            "ca.crt": authority.pair.certificate,
            "tls.crt": pair.certificate,
            "tls.key": pair.key,
        }.items():
            (folder / name).write_bytes(data)
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        server = cls(f"https://127.0.0.1:{port}", folder, program, secrets.token_hex(12), context)
        (folder / "app.ini").write_text(_settings(folder, port))
        try:
            web = [program, "web", "--config", folder / "app.ini"]
            processes.start(Program(PROGRAM, web, env=server.environment, is_ready=server._is_up))
            server._make_admin()
            yield server
        finally:
            processes.close()
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.folder), "GITEA_WORK_DIR": str(self.folder)}

    def api(self, method: str, path: str, document: Any = None, user: str = ADMIN) -> Any:
        """One call; the answer as JSON. Raises HTTPError."""
        data = json.dumps(document).encode() if document is not None else None
        pair = b64encode(f"{user}:{self.password}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {pair}"}
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def make_user(self, name: str) -> None:
        """A user with the same password, whom repositories may name as a collaborator."""
        fields = {"username": name, "password": self.password, "email": f"{name}@example.com"}
        self.api("POST", "/admin/users", {**fields, "must_change_password": False})

    def make_token(self, user: str) -> str:
        """A token of a user that may write repositories and pull requests."""
        scopes = ["write:repository", "write:issue"]
        made = self.api("POST", f"/users/{user}/tokens", {"name": secrets.token_hex(4), "scopes": scopes}, user)
        return str(made["sha1"])

    def _make_admin(self) -> None:
        words = ["--username", ADMIN, "--password", self.password, "--email", "admin1@example.com", "--admin"]
        subprocess.run(
            [self.program, "admin", "user", "create", "--config", self.folder / "app.ini", *words],
            env={"PATH": "/usr/bin:/bin", **self.environment}, check=True, capture_output=True,
        )  # fmt: skip

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/healthz", timeout=5, context=self.context) as answer:
                return bool(answer.status == 200)
        except OSError:  # not listening yet, or not healthy yet
            return False


def _settings(folder: Path, port: int) -> str:
    static = cached_module_folder(MODULE, PACKAGE, "")
    sections: dict[str, dict[str, object]] = {
        "server": {
            "PROTOCOL": "https", "HTTP_ADDR": "127.0.0.1", "HTTP_PORT": port, "CERT_FILE": folder / "tls.crt",
            "KEY_FILE": folder / "tls.key", "ROOT_URL": f"https://127.0.0.1:{port}/", "STATIC_ROOT_PATH": static,
            "APP_DATA_PATH": folder / "data", "OFFLINE_MODE": True, "DISABLE_SSH": True,
            "LOCAL_ROOT_URL": f"https://127.0.0.1:{port}/",
        },
        "database": {"DB_TYPE": "sqlite3", "PATH": folder / "gitea.db"},
        "repository": {"ROOT": folder / "repositories", "DEFAULT_BRANCH": "main"},
        "security": {
            "INSTALL_LOCK": True, "SECRET_KEY": secrets.token_hex(16), "INTERNAL_TOKEN": secrets.token_hex(32),
            "PASSWORD_HASH_ALGO": "pbkdf2_v1",
        },
        "log": {"LEVEL": "Warn", "ROOT_PATH": folder / "log"},
        "actions": {"ENABLED": False},
        "cron": {"ENABLED": False},
        "session": {"PROVIDER": "memory"},
    }  # fmt: skip
    lines = [f"RUN_USER = {getpass.getuser()}", "I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true", f"WORK_PATH = {folder}"]
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]
    return "\n".join(lines) + "\n"
