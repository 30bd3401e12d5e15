"""Finds or builds the programs of the test cluster: etcd, Kubernetes and the training-operator.

They come from KUBEBUILDER_ASSETS or PATH where their version is the pinned one, else from the cache, else they are
built. There is no download of official binaries: the training-operator is published as an image only, so Go is needed
in any case, and the others then share its build cache. It must not start a server.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.controlplane.gobuild import GoModule, cached_module_folder, cached_programs

FOLDER = Path(__file__).parent
TRAINING_OPERATOR = "github.com/kubeflow/training-operator"
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "training-operator": f"{TRAINING_OPERATOR}/cmd/training-operator.v1",
}


@dataclass(frozen=True)
class Programs:
    """Where the programs lie, and the folder with the training-operator's own manifests (CRDs, RBAC, webhook)."""

    paths: Mapping[str, Path]
    manifests: Path


def pinned_version(module: str) -> str:
    """Return the version, with its v, that go.mod pins for a module."""
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)", (FOLDER / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(f"{FOLDER / 'go.mod'} requires no {module}")
    return found[1]


def control_plane_module() -> GoModule:
    """Return the Go module of the test cluster."""
    # Kubernetes takes its version from the linker; without it the server calls itself v0.0.0 and clients compare that.
    version = pinned_version("k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".")
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamps.items()]
    return GoModule("controlplane", FOLDER, PROGRAMS, " ".join(["-s -w", *flags]))


def find_programs() -> Programs:
    """Return all programs, building what is not there yet (minutes, once).

    Raises:
        BuildError: something had to be built and could not be.
    """
    module = control_plane_module()
    installed = {name: path for name in PROGRAMS if (path := installed_program(name)) is not None}
    cached = cached_programs(module, [name for name in PROGRAMS if name not in installed])
    return Programs(installed | cached, cached_module_folder(module, TRAINING_OPERATOR, "manifests/base"))


def installed_program(name: str) -> Path | None:
    """Return a program of exactly the pinned version from KUBEBUILDER_ASSETS or PATH, if there is one."""
    asking = {"training-operator": None, "kubectl": ["version", "--client"]}.get(name, ["--version"])
    if asking is None:  # it can not tell its version
        return None
    module = PROGRAMS["etcd"] if name == "etcd" else "k8s.io/kubernetes"
    folders = [os.environ.get("KUBEBUILDER_ASSETS", ""), *os.get_exec_path()]
    for folder in filter(None, folders):
        path = shutil.which(name, path=folder)
        if path is not None and pinned_version(module).removeprefix("v") in reported_versions([path, *asking]):
            return Path(path)
    return None


def reported_versions(command: list[str]) -> list[str]:
    """Return every x.y.z that a program prints when asked for its version; none if it does not run."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"(?<![\d.])\d+\.\d+\.\d+(?![\w.+-])", done.stdout)
