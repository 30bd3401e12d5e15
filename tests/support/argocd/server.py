"""Starts Argo CD, built from its Go module, out of a test cluster that it then manages: Redis, API server, repository
server, application controller, each under the account and with the rights of Argo CD's own manifests.

The build takes a quarter of an hour of compiler time, so it is asked for (`make platform`): nothing here starts it.
"""

import json
import os
import shutil
import signal
import socket
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.controlplane import ControlPlane, Program, wait_for
from tests.support.controlplane.gobuild import GoModule, cached_module_folder, cached_programs
from tests.support.controlplane.process import free_port
from tests.support.health import ROOT as OURS
from tests.support.installation import answers

PROGRAM = "argocd"
PACKAGE = "github.com/argoproj/argo-cd/v3"
MODULE = GoModule("argocd", Path(__file__).parent, {PROGRAM: f"{PACKAGE}/cmd"})
NAMESPACE = "argocd"
SERVER, REPOSITORIES, CONTROLLER, REDIS = (
    "argocd-server", "argocd-repo-server", "argocd-application-controller", "argocd-redis",
)  # fmt: skip
MANIFESTS = (
    *(f"crds/{kind}-crd.yaml" for kind in ("application", "applicationset", "appproject")),
    "base/config", "base/application-controller-roles", "cluster-rbac/server", "cluster-rbac/application-controller",
    *(f"base/server/{SERVER}-{part}.yaml" for part in ("sa", "role", "rolebinding")),
)  # fmt: skip
"""What Argo CD needs of a cluster that its programs do not run in."""
POLL = "3s"
REASON = "Argo CD or Redis is not there (`make platform` builds one and fetches the other)"
_REDIS_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "bessemer/redis-server/usr"


def find_argocd(*, build: bool = False) -> Path | None:
    """The program, from the cache; None where it has not been built, or has no Redis. `build` builds it."""
    found = MODULE.cache / PROGRAM
    if build:
        cached_programs(MODULE, [PROGRAM])
    return found if found.exists() and find_redis() else None


def find_redis() -> Path | None:
    """redis-server from PATH, else what tools/debian.sh unpacked."""
    cached, installed = _REDIS_CACHE / "bin/redis-server", shutil.which("redis-server")
    return Path(installed) if installed else cached if cached.exists() else None


class RefusedError(RuntimeError):
    """Argo CD answered a request with an error."""


@dataclass(frozen=True)
class ArgoCD:
    """One that runs. `call` speaks to its API server with a token; people are local accounts of its configuration."""

    plane: ControlPlane
    url: str

    @classmethod
    @contextmanager
    def start(cls, plane: ControlPlane, people: Sequence[str], manifests: Sequence[Path]) -> Iterator["ArgoCD"]:
        """Install it with the chart's health and actions and further manifests; it ends with the context."""
        folder = plane.folder / "argocd"
        _install(plane, people, manifests)
        _link(folder / "bin")
        ports = {name: free_port() for name in (REDIS, SERVER, REPOSITORIES)}
        programs = _programs(plane, folder, ports)
        try:
            for program in programs:
                plane.processes.start(program)
            yield cls(plane, f"http://127.0.0.1:{ports[SERVER]}")
        finally:
            for name in reversed([program.name for program in programs]):
                if plane.processes.is_running(name):
                    plane.processes.stop(name, signal.SIGKILL)

    def call(self, method: str, path: str, document: Any = None, token: str = "") -> Any:
        """One call of its API; the answer as JSON.

        Raises:
            RefusedError: it answered with an error; the message is its own.
        """
        data = json.dumps(document).encode() if document is not None else None
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        request = urllib.request.Request(f"{self.url}/api/v1/{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise RefusedError(f"{error.code}: {error.read().decode()}") from error
        return json.loads(text) if text.strip() else None

    def token_of(self, person: str) -> str:
        """A token of a local account, made by the administrator with the password that Argo CD made for itself."""
        secret = self.plane.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/argocd-initial-admin-secret")
        password = b64decode(secret["data"]["password"]).decode()
        session = self.call("POST", "session", {"username": "admin", "password": password})["token"]
        return str(self.call("POST", f"account/{person}/token", {"name": person}, session)["token"])

    def application(self, name: str) -> dict[str, Any]:
        """An Application as it is."""
        return self.plane.get(f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/applications/{name}")


def _install(plane: ControlPlane, people: Sequence[str], manifests: Sequence[Path]) -> None:
    plane.create_namespace(NAMESPACE)
    source = cached_module_folder(MODULE, PACKAGE, "manifests")
    for part in MANIFESTS:
        files = [path for path in sorted((source / part).glob("*.yaml")) if path.name != "kustomization.yaml"]
        for path in files or [source / part]:
            plane.kubectl(["apply", "--server-side", "-n", NAMESPACE, "-f", str(path)])
    for crd in ("applications.argoproj.io", "appprojects.argoproj.io"):
        wait_for(crd, lambda crd=crd: plane.is_established(crd))  # type: ignore[misc]
    for path in (OURS / "argocd-cm.yaml", *manifests):
        plane.kubectl(["apply", "--server-side", "--force-conflicts", "--field-manager=bessemer", "-f", str(path)])
    metadata = {"name": "argocd-cm", "namespace": NAMESPACE}
    data = {f"accounts.{person}": "apiKey" for person in people}
    plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _link(folder: Path) -> None:
    """Argo CD is one program, which goes by its name."""
    folder.mkdir(parents=True)
    for name in (PROGRAM, SERVER, REPOSITORIES, CONTROLLER):
        (folder / name).symlink_to(cached_programs(MODULE, [PROGRAM])[PROGRAM])


def _programs(plane: ControlPlane, folder: Path, ports: dict[str, int]) -> list[Program]:
    """In the order in which they must be started: the API server makes the secret that the others ask for."""
    redis, repositories = f"127.0.0.1:{ports[REDIS]}", f"127.0.0.1:{ports[REPOSITORIES]}"
    shared = ["--redis", redis, "--loglevel", "info", "--logformat", "text"]
    client = [*shared, "--namespace", NAMESPACE, "--repo-server", repositories, "--repo-server-plaintext"]
    soon = [f"--self-heal-backoff-{name}={value}" for name, value in _SOON.items()]
    server = ["--port", str(ports[SERVER]), "--insecure", *client]
    sources = ["--port", str(ports[REPOSITORIES]), "--disable-tls", *shared]
    return [
        _redis(ports[REDIS]),
        _program(plane, folder, SERVER, server),
        _program(plane, folder, REPOSITORIES, sources),
        _program(plane, folder, CONTROLLER, [*client, *soon]),
    ]


_SOON = {"timeout-seconds": 1, "factor": 1, "cap-seconds": 2}


def _program(plane: ControlPlane, folder: Path, name: str, arguments: list[str]) -> Program:
    """A component with a home of its own, under its own account; it is ready when its health endpoint says so."""
    home, metrics = folder / name, free_port()
    paths = {
        "HOME": home, "TMPDIR": home / "tmp", "ARGOCD_GNUPGHOME": home / "gpg",
        **{f"ARGOCD_{kind}_DATA_PATH": home / kind.lower() for kind in ("TLS", "SSH", "GPG")},
        "ARGOCD_PLUGINSOCKFILEPATH": home / "plugins",
    }  # fmt: skip
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    environment = {key: str(path) for key, path in paths.items()} | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "ARGOCD_FAKE_IN_CLUSTER": "true",
        "ARGOCD_GPG_ENABLED": "false",
        "ARGOCD_RECONCILIATION_TIMEOUT": POLL, "ARGOCD_RECONCILIATION_JITTER": "0s",
        "HOSTNAME": f"{name}-0",
    }  # fmt: skip
    if name != REPOSITORIES:
        environment["KUBECONFIG"] = str(plane.kubeconfig_for_service_account(NAMESPACE, name))
    port = arguments[arguments.index("--port") + 1] if name == SERVER else str(metrics)
    argv = [folder / "bin" / name, "--metrics-port", str(metrics), *arguments]
    return Program(name, argv, env=environment, is_ready=lambda: answers(f"http://127.0.0.1:{port}/healthz"))


def _redis(port: int) -> Program:
    redis = find_redis()
    assert redis is not None
    libraries = ":".join(map(str, _REDIS_CACHE.glob("lib/*-linux-gnu")))
    argv = [redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return Program(REDIS, argv, env={"LD_LIBRARY_PATH": libraries} if libraries else {}, is_ready=listens)
