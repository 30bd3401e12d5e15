"""The test cluster: a real Kubernetes control plane on this machine and the real training-operator; no kubelet."""

from tests.support.controlplane.build import find_programs
from tests.support.controlplane.client import KubectlError
from tests.support.controlplane.gobuild import BuildError
from tests.support.controlplane.playground import Hook, up
from tests.support.controlplane.process import Program, ServerError, wait_for
from tests.support.controlplane.start import ControlPlane

__all__ = [
    "BuildError",
    "ControlPlane",
    "Hook",
    "KubectlError",
    "Program",
    "ServerError",
    "find_programs",
    "up",
    "wait_for",
]
