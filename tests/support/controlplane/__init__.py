"""The test cluster: a real Kubernetes control plane on this machine and the real training-operator; no kubelet."""

from tests.support.controlplane.client import KubectlError
from tests.support.controlplane.gobuild import BuildError
from tests.support.controlplane.process import ServerError, wait_for
from tests.support.controlplane.start import ControlPlane

__all__ = ["BuildError", "ControlPlane", "KubectlError", "ServerError", "wait_for"]
