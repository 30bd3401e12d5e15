"""Bessemer on a test cluster, as an administrator installs it: CRDs, account and rights, profiles, nodes, operator.

The control plane is real, the operator is the real program under its own account, and pods run as processes of this
host through our kubelet. It must not know what is run on it.
"""

import signal
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.controlplane import ControlPlane, Program
from tests.support.controlplane.process import free_port
from tests.support.helm.program import find, render

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "crds"
NAMESPACE = "bessemer-system"
ACCOUNT = "bessemer-operator"
POOL = "bessemer.dev/pool"
RIGHTS = frozenset({"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"})
GPU_TAINT = "nvidia.com/gpu=present:NoSchedule"
CPU_NODE, GPU_NODE = "cpu-1", "gpu-1"

Obj = dict[str, Any]

_ON_GPU = {
    "image": "bessemer-trainer",
    "memory": "1Gi",
    "nodeSelector": {POOL: "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    # The scheduler counts the GPUs that the nodes declare. This host has none, so each rank trains on a processor.
    "environment": {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
    "gracePeriodSeconds": 30,
}
PROFILES: Mapping[str, Obj] = {
    "default": {"image": "bessemer-trainer", "memory": "1Gi", "nodeSelector": {POOL: "cpu"}, "gracePeriodSeconds": 30},
    "gpu-2": {**_ON_GPU, "gpus": 2},
    "gpu-1": {**_ON_GPU, "gpus": 1},
}
"""`gpu-2` gives a pod two GPUs, and so two ranks; `gpu-1` one."""


@dataclass(frozen=True)
class Installation:
    """An operator that runs on a control plane, with its nodes."""

    plane: ControlPlane
    folder: Path

    @property
    def operator_log(self) -> str:
        """What the operator wrote."""
        return self.plane.processes.log("operator").read_text()

    @property
    def pod_logs(self) -> Path:
        """A folder a pod, named by namespace, name and uid."""
        return self.folder / "node" / "pods"


@contextmanager
def installed(
    plane: ControlPlane, profiles: Mapping[str, Obj] = PROFILES, namespaces: Sequence[str] = ()
) -> Iterator[Installation]:
    """Install everything; operator, kubelet and nodes end with the context, what they wrote stays.

    `namespaces`: those that it works in, and has rights in; none: all.
    """
    chart = render({"watchNamespaces": list(namespaces)}, namespace=NAMESPACE)
    folder = plane.folder / "bessemer"
    folder.mkdir(exist_ok=True)
    plane.kubectl(["apply", "--server-side", "-f", str(CRDS)])
    plane.kubectl(["wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS)])
    plane.create_namespace(NAMESPACE)
    plane.apply(*(item for item in chart if item["kind"] in RIGHTS))
    plane.add_node(CPU_NODE, labels={POOL: "cpu"})
    plane.add_node(GPU_NODE, gpus=4, labels={POOL: "gpu"}, taints=[GPU_TAINT])
    plane.processes.start(kubelet(plane, folder / "node"))
    try:
        plane.processes.start(operator(plane, folder, profiles, chart))
        yield Installation(plane, folder)
    finally:
        for name in ("operator", "kubelet"):  # each lets go of what it holds
            if plane.processes.is_running(name):
                plane.processes.stop(name, signal.SIGTERM)
        plane.kubectl(["delete", "node", CPU_NODE, GPU_NODE])


def kubelet(plane: ControlPlane, workdir: Path) -> Program:
    """Our kubelet for both nodes."""
    argv = [sys.executable, "-m", "tests.support.kubelet", str(workdir), CPU_NODE, GPU_NODE]
    return Program("kubelet", argv, env={"KUBECONFIG": str(plane.kubeconfig), "PYTHONPATH": str(ROOT)})


def operator(plane: ControlPlane, folder: Path, profiles: Mapping[str, Obj], chart: Sequence[Obj]) -> Program:
    """The operator under its own account, called as the chart's Deployment calls it."""
    [container] = find(chart, "Deployment", ACCOUNT)["spec"]["template"]["spec"]["containers"]
    namespaces = next(item["value"] for item in container["env"] if item["name"] == "BESSEMER_NAMESPACES")
    file = folder / "profiles.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump(dict(profiles), stream)
    port = free_port()
    environment = {
        "KUBECONFIG": str(plane.kubeconfig_for_service_account(NAMESPACE, ACCOUNT)),
        "BESSEMER_PROFILES": str(file),
        "BESSEMER_NAMESPACES": namespaces,
        "BESSEMER_METRICS_PORT": str(port),
        "BESSEMER_PROGRESS_SECONDS": "2",
    }
    argv = [sys.executable, "-m", *container["command"], *container["args"]]
    return Program("operator", argv, env=environment, is_ready=lambda: answers(f"http://127.0.0.1:{port}/readyz"))


def answers(url: str) -> bool:
    """Whether a health endpoint answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
