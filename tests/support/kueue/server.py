"""Starts Kueue beside the control plane of a test, from its own manifests. Built from its Go module, once.

The build takes minutes of compiler time, so it is asked for (`make platform`): nothing here starts it.
"""

from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.controlplane import ControlPlane, Program
from tests.support.controlplane.gobuild import GoModule, cached_module_folder, cached_programs
from tests.support.controlplane.pki import CertificateAuthority
from tests.support.controlplane.process import free_port, wait_for
from tests.support.controlplane.training_operator import build_secret

PROGRAM = "kueue"
MODULE = GoModule("kueue", Path(__file__).parent, {PROGRAM: "sigs.k8s.io/kueue/cmd/kueue"})
NAMESPACE, ACCOUNT = "kueue-system", "kueue-controller-manager"
# Its certificate rotator takes no other names, for the authority and for the server.
AUTHORITY, SERVICE = "kueue-ca", "kueue-webhook-service"
KINDS = {"job", "pytorchjob", "clusterqueue", "cohort", "resourceflavor", "workload"}
"""Whose webhooks are installed: the others are for kinds that this control plane has not got."""

Obj = dict[str, Any]


def find_kueue(*, build: bool = False) -> Path | None:
    """The program, from the cache; None where it has not been built. `build` builds it."""
    found = MODULE.cache / PROGRAM
    if found.exists() or build:
        cached_programs(MODULE, [PROGRAM])
        cached_module_folder(MODULE, "sigs.k8s.io/kueue", "config/components")
        return found
    return None


def start_kueue(plane: ControlPlane) -> None:
    """Install Kueue and start it as component `kueue` of the control plane, ready to take jobs."""
    program = find_kueue(build=True)
    assert program is not None
    folder = plane.folder / PROGRAM
    port, health = free_port(), free_port()
    authority = CertificateAuthority(AUTHORITY)
    pair = authority.issue_server([f"{SERVICE}.{NAMESPACE}.svc", "localhost"])
    (folder / "certificates").mkdir(parents=True)
    (folder / "certificates" / "tls.crt").write_bytes(pair.certificate)
    (folder / "certificates" / "tls.key").write_bytes(pair.key)
    secret = build_secret(authority.pair, pair)
    secret["metadata"] = {"name": "kueue-webhook-server-cert", "namespace": NAMESPACE}
    components = cached_module_folder(MODULE, "sigs.k8s.io/kueue", "config/components")
    definitions = _definitions(components / "crd" / "bases", port)
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *definitions)
    for item in definitions:
        name = item["metadata"]["name"]
        wait_for(f"the server to serve {name}", partial(plane.is_established, name))
    plane.apply(secret, *_rights(components / "rbac"), *_webhooks(components / "webhook" / "manifests.yaml", port))
    config = folder / "config.yaml"
    with config.open("w") as stream:
        YAML(typ="safe").dump(_configuration(folder / "certificates", port, health), stream)
    # Its server of pending workloads reads the certificates of a pod.
    argv = [program, f"--config={config}", "--feature-gates=VisibilityOnDemand=false"]
    environment = {"KUBECONFIG": str(plane.kubeconfig_for_service_account(NAMESPACE, ACCOUNT))}
    ready = f"http://127.0.0.1:{health}/readyz"
    plane.processes.start(Program(PROGRAM, argv, env=environment, is_ready=lambda: plane.answers_ok(ready)))


def _configuration(certificates: Path, port: int, health: int) -> Obj:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": NAMESPACE,
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": port, "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": True},
        "clientConnection": {"qps": 500, "burst": 1000},
        "integrations": {"frameworks": ["batch/job", "kubeflow.org/pytorchjob"]},
        # As docs/install.md advises.
        "objectRetentionPolicies": {"workloads": {"afterFinished": "0s"}},
    }


def _read(path: Path) -> list[Obj]:
    return [item for item in YAML(typ="safe").load_all(path) if item]


def _definitions(bases: Path, port: int) -> list[Obj]:
    """The CRDs; those with two versions are converted by Kueue."""
    conversion = {
        "strategy": "Webhook",
        "webhook": {"clientConfig": {"url": f"https://127.0.0.1:{port}/convert"}, "conversionReviewVersions": ["v1"]},
    }
    converted = {"localqueues", "clusterqueues", "cohorts", "workloads", "multikueueclusters"}
    found = [item for path in sorted(bases.glob("*.yaml")) for item in _read(path)]
    for item in found:
        if item["spec"]["names"]["plural"] in converted:
            item["spec"]["conversion"] = conversion
    return found


def _rights(folder: Path) -> list[Obj]:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}}
    subjects = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}]
    made = [account]
    for name in ("role", "role_binding", "manager_secrets_role", "manager_secrets_role_binding"):
        [item] = _read(folder / f"{name}.yaml")
        if "namespace" in item["metadata"]:
            item["metadata"]["namespace"] = NAMESPACE
        made.append({**item, "subjects": subjects} if "subjects" in item else item)
    return made


def _webhooks(path: Path, port: int) -> list[Obj]:
    """The shipped configurations under the names that Kueue looks for, calling this host instead of a Service."""
    made = []
    for item in _read(path):
        hooks = [hook for hook in item["webhooks"] if hook["name"].removesuffix(".kb.io")[1:] in KINDS]
        for hook in hooks:
            hook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{hook['clientConfig']['service']['path']}"}
        made.append({**item, "metadata": {"name": f"kueue-{item['metadata']['name']}"}, "webhooks": hooks})
    return made
