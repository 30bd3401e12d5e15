"""Starts a real Kubernetes control plane with the real training-operator, for tests and for playing.

Everything is real but the kubelet: nothing runs the pods unless a test brings an executor. It must not know Bessemer.
"""

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.controlplane.build import Programs, find_programs
from tests.support.controlplane.client import AdminClient
from tests.support.controlplane.layout import Layout
from tests.support.controlplane.process import ProcessGroup, Program, wait_for
from tests.support.controlplane.training_operator import CRD, NAMESPACE, SERVICE_ACCOUNT, build_manifests

# This path is compiled into the training-operator, which waits until the file exists and never reads it: its server
# reads the certificate below TMPDIR. So instances share the marker and nothing else.
CERTIFICATE_MARKER = Path("/tmp/k8s-webhook-server/serving-certs/tls.crt")


class ControlPlane(AdminClient):
    """A running control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, training-operator.

    `with ControlPlane.start() as cp: cp.kubectl(["get", "nodes"])`. Any number can run on one machine at once: each
    has its own ports and folder, and dies with the process that started it. Its components are named as above, for
    `stop_component`, `start_component` and `signal_component`; `processes.start` adds programs that live as long.
    """

    def __init__(self, layout: Layout, programs: Programs, *, is_folder_kept: bool) -> None:
        """Prepare, without starting anything; callers use `start`."""
        super().__init__(layout, programs.paths["kubectl"])
        self.folder = layout.folder
        self.programs_folder = programs.paths["kubectl"].parent
        self._layout = layout
        self._programs = programs
        self._scratch = layout.data if is_folder_kept else layout.folder
        self.processes = ProcessGroup(layout.folder, [self._scratch])

    @classmethod
    def start(cls, folder: Path | None = None) -> Self:
        """Start a control plane and return it when all of it is ready.

        Args:
            folder: for its logs, audit log and kubeconfigs, kept afterwards; a temporary one if not given.

        Raises:
            BuildError: its programs were not there and could not be built.
            ServerError: a component did not come up; the message ends with the tail of its log.
        """
        programs = find_programs()
        layout = Layout(folder or Path(tempfile.mkdtemp(prefix="bessemer-controlplane-")))
        plane = cls(layout, programs, is_folder_kept=folder is not None)
        with contextlib.ExitStack() as undo:
            undo.callback(plane.close)
            plane._bring_up()
            undo.pop_all()
        return plane

    def close(self) -> None:
        """Kill everything and remove what nobody asked to keep."""
        self.processes.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stop_component(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End a component by a signal and wait until it is gone; what it stored stays."""
        self.processes.stop(name, how)

    def start_component(self, name: str) -> None:
        """Start a stopped component again, on the same ports and data, and wait until it is ready."""
        self.processes.restart(name)

    def signal_component(self, name: str, which: signal.Signals) -> None:
        """Send a component a signal: SIGSTOP and SIGCONT freeze and thaw it."""
        self.processes.send_signal(name, which)

    def _bring_up(self) -> None:
        layout, ports = self._layout, self._layout.ports
        self.processes.start(self._program("etcd", layout.etcd_arguments(), f"http://127.0.0.1:{ports.etcd}/health"))
        self.processes.start(self._program("kube-apiserver", layout.apiserver_arguments(), f"{layout.server}/readyz"))
        manager, scheduler = "kube-controller-manager", "kube-scheduler"
        self.processes.launch(
            self._program(manager, layout.controller_manager_arguments(), local(ports.controller_manager))
        )
        self.processes.launch(self._program(scheduler, layout.scheduler_arguments(), local(ports.scheduler)))
        self._start_training_operator()
        self.processes.await_ready(manager)
        self.processes.await_ready(scheduler)
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        wait_for("the default ServiceAccount", lambda: self.get(accounts)["items"])

    def _start_training_operator(self) -> None:
        layout, ports = self._layout, self._layout.ports
        self.apply(*build_manifests(self._programs.manifests, layout.authority.pair, layout.server_pair, ports.webhook))
        wait_for(f"the server to serve {CRD}", partial(self.is_established, CRD))
        CERTIFICATE_MARKER.parent.mkdir(parents=True, exist_ok=True)
        CERTIFICATE_MARKER.touch()
        kubeconfig = self.kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
        program = Program(
            "training-operator",
            [self._programs.paths["training-operator"], *layout.training_operator_arguments()],
            env={"KUBECONFIG": str(kubeconfig), "TMPDIR": str(layout.file("tmp"))},
            is_ready=self._answers(f"http://127.0.0.1:{ports.training_operator}/readyz"),
        )
        self.processes.start(program)

    def _program(self, name: str, arguments: list[str], health: str) -> Program:
        return Program(name, [self._programs.paths[name], *arguments], is_ready=self._answers(health))

    def _answers(self, url: str) -> Callable[[], bool]:
        return partial(self.answers_ok, url)


def local(port: int) -> str:
    return f"https://127.0.0.1:{port}/healthz"
