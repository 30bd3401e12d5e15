"""Talks to one test cluster as its administrator. It must not start or stop anything."""

import http.client
import json
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.controlplane.layout import Layout
from tests.support.controlplane.nodes import build_node
from tests.support.controlplane.process import wait_for

NOT_READY = "node.kubernetes.io/not-ready"


class KubectlError(RuntimeError):
    """kubectl refused; the message has its command line and what it wrote to stderr."""


class AdminClient:
    """kubectl and the few requests that tests make of the cluster as its administrator."""

    def __init__(self, layout: Layout, kubectl: Path) -> None:
        self._layout = layout
        self._kubectl = kubectl
        self._tls = ssl.create_default_context(cafile=str(layout.file("ca.crt")))
        self.server = layout.server
        self.token = layout.token
        self.kubeconfig = layout.file("admin.kubeconfig")
        self.audit_log = layout.audit_log

    def kubectl(self, arguments: Sequence[str], *, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Return what kubectl prints, as the administrator unless another kubeconfig is given.

        Raises:
            KubectlError: it ended with another code than 0.
        """
        command = [str(self._kubectl), f"--kubeconfig={kubeconfig or self.kubeconfig}", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, input=stdin)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply manifests by server-side apply, in this order (of a file: `kubectl(["apply", "-f", path])`)."""
        bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        self.kubectl(["apply", "--server-side", "--field-manager=test", "-f", "-"], stdin=bundle)

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON that the server answers for a path such as /api/v1/nodes/a.

        Raises:
            urllib.error.HTTPError: an answer of 400 or more.
            urllib.error.URLError: no answer.
        """
        request = urllib.request.Request(self.server + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:
            document: dict[str, Any] = json.load(answer)
            return document

    def answers_ok(self, url: str) -> bool:
        """Tell whether a health endpoint of this cluster answers 200."""
        try:
            with urllib.request.urlopen(url, context=self._tls, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):  # not listening yet, or not ready
            return False

    def is_established(self, crd: str) -> bool:
        """Tell whether the server serves the kind of this CustomResourceDefinition yet."""
        status = self.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}").get("status", {})
        conditions = status.get("conditions") or []
        return ("Established", "True") in [(each["type"], each["status"]) for each in conditions]

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Create a namespace and wait for its default ServiceAccount, without which no pod is admitted."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        account = f"/api/v1/namespaces/{name}/serviceaccounts"
        wait_for(f"the default ServiceAccount of namespace {name}", lambda: self.get(account)["items"])

    def add_node(
        self,
        name: str,
        *,
        cpu: str = "16",
        memory: str = "64Gi",
        gpus: int = 0,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[str] = (),
    ) -> None:
        """Declare a Ready node and wait until pods can be bound to it; taints as `key=value:Effect`.

        No kubelet stands behind it: pods are bound to it and stay Pending until something runs them.
        """
        devices = {"nvidia.com/gpu": str(gpus)} if gpus else {}
        node = build_node(name, {"cpu": cpu, "memory": memory, **devices}, labels or {}, taints)
        self.kubectl(["create", "-f", "-"], stdin=json.dumps(node))

        def is_open() -> bool:  # every new node is tainted until a controller has seen its condition Ready
            kept = self.get(f"/api/v1/nodes/{name}")["spec"].get("taints", [])
            return all(taint["key"] != NOT_READY for taint in kept)

        wait_for(f"node {name} to be open for pods", is_open)

    def kubeconfig_for_user(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Return a kubeconfig (client certificate) for any user name and groups; RBAC says what they may."""
        return self._layout.user_kubeconfig(user, groups)

    def kubeconfig_for_service_account(self, namespace: str, name: str, duration: str = "24h") -> Path:
        """Return a kubeconfig with a real, expiring token of a ServiceAccount (at least 10 minutes)."""
        token = self.kubectl(["create", "token", name, f"--namespace={namespace}", f"--duration={duration}"])
        return self._layout.write_kubeconfig(f"{namespace}-{name}", {"token": token.strip()})

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """Yield the audit log, oldest first: one event a request, with `verb`, `user`, `objectRef`, `responseStatus`.

        What is logged, and where with its body, is said in audit-policy.yaml.
        """
        with self.audit_log.open() as lines:
            for line in lines:
                if line.endswith("\n"):  # else it is being written just now
                    yield json.loads(line)
