"""A control plane to play with: up until Ctrl-C. What else should run on it comes in as hooks."""

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.support.controlplane.gobuild import say
from tests.support.controlplane.start import ControlPlane

# Entered when the control plane is ready and left before it stops: CRDs, nodes, a kubelet, the operator.
Hook = Callable[[ControlPlane], AbstractContextManager[object]]

WELCOME = """
The control plane is up; it stops with Ctrl-C. Its logs and audit log: {folder}
  export KUBECONFIG={kubeconfig}
  export PATH={programs}:$PATH
  kubectl get nodes
"""


def up(hooks: Sequence[Hook] = (), folder: Path | None = None) -> None:
    """Start a control plane, enter the hooks in order, and stay until SIGINT or SIGTERM.

    Args:
        hooks: each is called with the running control plane and returns a context manager.
        folder: for logs and kubeconfigs, kept afterwards; a temporary one if not given.
    """
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane.start(folder))
        for hook in hooks:
            stack.enter_context(hook(plane))
        say(WELCOME.format(folder=plane.folder, kubeconfig=plane.kubeconfig, programs=plane.programs_folder))
        await_interrupt()
        say("stopping")


def await_interrupt() -> None:
    """Sleep until SIGINT or SIGTERM arrives."""
    asked = threading.Event()
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, lambda *_: asked.set())
    asked.wait()
