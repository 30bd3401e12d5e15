"""The files and ports of one test cluster, and how each of its programs is called.

It must not start anything: it writes certificates and kubeconfigs, and builds command lines.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.controlplane.build import FOLDER
from tests.support.controlplane.pki import CertificateAuthority, KeyPair, new_key
from tests.support.controlplane.process import free_port

# The template that the chart ships for administrators.
INIT_CONTAINER = FOLDER.parents[2] / "charts" / "bessemer" / "files" / "training-operator" / "init-container.yaml"
# The rotator in the training-operator takes no other names, for the authority and for the server.
AUTHORITY = "training-operator-ca"
SERVER_NAMES = ("localhost", "kubernetes.default.svc", "training-operator.kubeflow.svc")
# No kubelet renews a node's lease unless a test runs one; without this, nodes would be tainted after 40 s.
NODE_GRACE = "8760h"
SCHEDULER = {
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "leaderElection": {"leaderElect": False},
}
CLIENT_RATE = {"qps": 500, "burst": 1000}


@dataclass(frozen=True)
class Ports:
    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int
    scheduler: int
    training_operator: int
    webhook: int


class Layout:
    """One cluster's folder: certificates, kubeconfigs, data, logs."""

    def __init__(self, folder: Path) -> None:
        """Choose ports and write everything that the programs read at start."""
        self.folder = folder
        self.ports = Ports(*(free_port() for _ in range(len(Ports.__dataclass_fields__))))
        self.server = f"https://127.0.0.1:{self.ports.apiserver}"
        self.token = secrets.token_hex(16)
        self.authority = CertificateAuthority(AUTHORITY)
        self.server_pair = self.authority.issue_server(SERVER_NAMES)
        self.audit_log = folder / "audit.log"
        self.data = folder / "data"
        self._write_certificates()
        self._write_configuration()

    def _write_certificates(self) -> None:
        self.data.mkdir(parents=True)
        self.file("ca.crt").write_bytes(self.authority.pair.certificate)
        self.write_pair("server", self.server_pair)
        self.file("service-accounts.key").write_bytes(new_key())
        self.file("tokens.csv").write_text(f"{self.token},bessemer-admin,bessemer-admin,system:masters\n")
        self.serving_folder.mkdir(parents=True)
        self.serving_folder.joinpath("tls.crt").write_bytes(self.server_pair.certificate)
        self.serving_folder.joinpath("tls.key").write_bytes(self.server_pair.key)

    def _write_configuration(self) -> None:
        self.write_kubeconfig("admin", {"token": self.token})
        scheduler = self.user_kubeconfig("system:kube-scheduler")
        self.user_kubeconfig("system:kube-controller-manager")
        connection = {"kubeconfig": str(scheduler), **CLIENT_RATE}
        self.file("scheduler.json").write_text(json.dumps({**SCHEDULER, "clientConnection": connection}))

    def file(self, name: str) -> Path:
        return self.folder / name

    @property
    def serving_folder(self) -> Path:
        """Where the training-operator's webhook server reads its certificate, given the TMPDIR we give it."""
        return self.folder / "tmp" / "k8s-webhook-server" / "serving-certs"

    def write_pair(self, name: str, pair: KeyPair) -> None:
        self.file(f"{name}.crt").write_bytes(pair.certificate)
        self.file(f"{name}.key").write_bytes(pair.key)

    def user_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig for a user, who is whoever a client certificate of this cluster says."""
        name = user.replace(":", "-")
        self.write_pair(name, self.authority.issue_user(user, groups))
        certificate = {"client-certificate": str(self.file(f"{name}.crt"))}
        return self.write_kubeconfig(name, {**certificate, "client-key": str(self.file(f"{name}.key"))})

    def write_kubeconfig(self, name: str, user: Mapping[str, str]) -> Path:
        """Write `<name>.kubeconfig` with these credentials and return its path (JSON, which YAML includes)."""
        cluster = {"server": self.server, "certificate-authority": str(self.file("ca.crt"))}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": dict(user)}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        path = self.file(f"{name}.kubeconfig")
        path.write_text(json.dumps(config, indent=1))
        return path

    def etcd_arguments(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self.ports.etcd, self.ports.etcd_peer))
        return [
            "--name=test",
            f"--data-dir={self.data / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def apiserver_arguments(self) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{self.ports.etcd}",
            *self._serving(self.ports.apiserver),
            f"--client-ca-file={self.file('ca.crt')}",
            f"--token-auth-file={self.file('tokens.csv')}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.file('service-accounts.key')}",
            f"--service-account-signing-key-file={self.file('service-accounts.key')}",
            "--service-cluster-ip-range=10.96.0.0/16",
            # An endpoint of the Service `kubernetes` may not be a loopback address, and nothing here asks for it.
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            # What refuses a privileged pod is then Pod Security, as in most clusters.
            "--allow-privileged=true",
            f"--audit-policy-file={FOLDER / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=100000",
        ]

    def controller_manager_arguments(self) -> list[str]:
        return [
            f"--kubeconfig={self.file('system-kube-controller-manager.kubeconfig')}",
            *self._serving(self.ports.controller_manager),
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={self.file('service-accounts.key')}",
            f"--root-ca-file={self.file('ca.crt')}",
            f"--node-monitor-grace-period={NODE_GRACE}",
            f"--kube-api-qps={CLIENT_RATE['qps']}",
            f"--kube-api-burst={CLIENT_RATE['burst']}",
        ]

    def scheduler_arguments(self) -> list[str]:
        return [f"--config={self.file('scheduler.json')}", *self._serving(self.ports.scheduler)]

    def training_operator_arguments(self) -> list[str]:
        return [
            "--enable-scheme=pytorchjob",
            f"--pytorch-init-container-template-file={INIT_CONTAINER}",
            f"--webhook-server-port={self.ports.webhook}",
            f"--health-probe-bind-address=127.0.0.1:{self.ports.training_operator}",
            "--metrics-bind-address=0",
            f"--kube-api-qps={CLIENT_RATE['qps']}",
            f"--kube-api-burst={CLIENT_RATE['burst']}",
            "--controller-threads=4",
        ]

    def _serving(self, port: int) -> list[str]:
        certificate = [
            f"--tls-cert-file={self.file('server.crt')}",
            f"--tls-private-key-file={self.file('server.key')}",
        ]
        return ["--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={self.data}", *certificate]
