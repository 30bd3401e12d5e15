"""The manifests that the training-operator needs, made from its own (its kustomize base). Pure but for reading them."""

import base64
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.controlplane.pki import KeyPair

NAMESPACE = "kubeflow"
SERVICE_ACCOUNT = "training-operator"
CRD = "pytorchjobs.kubeflow.org"
WEBHOOK = "validator.pytorchjob.training-operator.kubeflow.org"

Manifest = dict[str, Any]


def build_manifests(base: Path, authority: KeyPair, server: KeyPair, webhook_port: int) -> list[Manifest]:
    """Return what must exist before the training-operator starts, in the order to apply it.

    Args:
        base: the training-operator's `manifests/base`.
        authority: issued `server`; the operator puts it into the webhook's configuration.
        server: what the webhook serves; valid for 127.0.0.1 and training-operator.kubeflow.svc.
        webhook_port: where it listens on this host.
    """
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        read_manifest(base / "crds" / "kubeflow.org_pytorchjobs.yaml"),
        in_namespace(read_manifest(base / "rbac" / "service-account.yaml")),
        read_manifest(base / "rbac" / "role.yaml"),
        bind_account(read_manifest(base / "rbac" / "cluster-role-binding.yaml")),
        build_secret(authority, server),
        build_webhook(read_manifest(base / "webhook" / "manifests.yaml"), webhook_port),
    ]


def read_manifest(path: Path) -> Manifest:
    manifest: Manifest = YAML(typ="safe").load(path)
    return manifest


def in_namespace(manifest: Manifest) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": NAMESPACE}}


def bind_account(binding: Manifest) -> Manifest:
    return {**binding, "subjects": [{**subject, "namespace": NAMESPACE} for subject in binding["subjects"]]}


def build_secret(authority: KeyPair, server: KeyPair) -> Manifest:
    """The certificate secret. Filled in already, so that the operator need not make one that we then copy for it."""
    files = {
        "ca.crt": authority.certificate,
        "ca.key": authority.key,
        "tls.crt": server.certificate,
        "tls.key": server.key,
    }
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    metadata = {"name": "training-operator-webhook-cert", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def build_webhook(shipped: Manifest, port: int) -> Manifest:
    """The shipped configuration, for PyTorchJobs only, calling this host instead of a Service in the cluster."""
    [hook] = [hook for hook in shipped["webhooks"] if hook["name"] == WEBHOOK]
    path = hook["clientConfig"]["service"]["path"]
    local = {**hook, "clientConfig": {"url": f"https://127.0.0.1:{port}{path}"}}
    return {**shipped, "metadata": {"name": "validator.training-operator.kubeflow.org"}, "webhooks": [local]}
