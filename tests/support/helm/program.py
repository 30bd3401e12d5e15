"""Calls Helm and helm-unittest, built once from their Go modules, as the control plane is. It keeps no state."""

import json
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.support.controlplane.build import pinned_version
from tests.support.controlplane.gobuild import GoModule, cached_programs

CHART = Path(__file__).parents[3] / "charts" / "bessemer"
PROGRAMS = {
    "helm": "helm.sh/helm/v3/cmd/helm",
    "helm-unittest": "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
}
Obj = dict[str, Any]


class HelmError(RuntimeError):
    """Helm refused; the message has its command line and what it wrote to stderr."""


@cache
def program(name: str) -> Path:
    """A program, after building it if it is missing (a minute, once)."""
    # Without these, Helm renders for Kubernetes 1.20.
    major, minor, _ = pinned_version("k8s.io/kubernetes").removeprefix("v").split(".")
    packages = ("pkg/chartutil", "pkg/lint/rules")
    stamps = [
        f"-X helm.sh/helm/v3/{package}.k8sVersion{name}={value}"
        for package in packages
        for name, value in (("Major", major), ("Minor", minor))
    ]
    module = GoModule("helm", Path(__file__).parent, PROGRAMS, " ".join(["-s -w", *stamps]))
    return cached_programs(module, [name])[name]


def helm(*arguments: str, values: Obj | None = None, kubeconfig: Path | None = None) -> str:
    """Return what Helm prints. `values` are given as a file on stdin.

    Raises:
        HelmError: it ended with another code than 0.
    """
    target = [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    given = ["--values=-"] if values is not None else []
    command = [str(program("helm")), *arguments, *target, *given]
    text = "" if values is None else json.dumps(values)
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=text, timeout=300)
    if done.returncode != 0:
        raise HelmError(f"helm {' '.join(arguments)}: {done.stderr.strip()}\n{done.stdout[-4000:]}")
    return done.stdout


def render(values: Obj | None = None, *, namespace: str = "bessemer-system") -> list[Obj]:
    """The manifests of the chart with these values, as release `bessemer`."""
    text = helm("template", "bessemer", str(CHART), f"--namespace={namespace}", values=values or {})
    return [document for document in YAML(typ="safe").load_all(text) if document]


def find(manifests: Sequence[Obj], kind: str, name: str) -> Obj:
    """The one manifest of this kind and name."""
    [found] = [item for item in manifests if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found
