"""The node of the operator's pod: runs the pod that the real Deployment controller made, as a process of this host.

Command, arguments, environment, files and account are those of the pod; its probes say whether it is ready. Only how it
reaches the API server differs: a kubeconfig with a token of its account stands for the token that a kubelet mounts.
"""

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bessemer_operator.executor.kubelet import host_environment
from bessemer_operator.executor.launch import PodContext, build_launch
from bessemer_operator.executor.volumes import build_volumes
from tests.support.controlplane import ControlPlane, Program, wait_for
from tests.support.controlplane.process import free_port
from tests.support.installation import answers

Obj = dict[str, Any]
NAME = "operator"


@dataclass(frozen=True)
class OperatorNode:
    """Stands for the node to which the operator's pods are bound; one pod at a time, as its Deployment has it."""

    plane: ControlPlane
    namespace: str
    folder: Path

    def run(self) -> Obj:
        """Wait for the pod, start it, wait until its readiness probe answers, and say so; the pod."""
        pod = wait_for("the operator's pod to be bound to a node", self._bound)
        port = free_port()
        [container] = pod["spec"]["containers"]
        path = container["readinessProbe"]["httpGet"]["path"]
        argv, env = self._process(pod, container, port)
        probe = partial(answers, f"http://127.0.0.1:{port}{path}")
        self.plane.processes.start(Program(NAME, argv, env=env, is_ready=probe))
        self._say_ready(pod)
        return pod

    def stop(self) -> None:
        """What a kubelet does about a pod that is being deleted: SIGTERM, then it is gone."""
        pod = wait_for("the operator's pod to be deleted", self._ending)
        self.plane.processes.stop(NAME, signal.SIGTERM)
        name = pod["metadata"]["name"]
        self.plane.kubectl(["delete", "pod", name, "-n", self.namespace, "--grace-period=0", "--force", "--wait=false"])

    @property
    def log(self) -> str:
        return self.plane.processes.log(NAME).read_text()

    def _pods(self) -> list[Obj]:
        selector = "labelSelector=app.kubernetes.io/component%3Doperator"
        found: list[Obj] = self.plane.get(f"/api/v1/namespaces/{self.namespace}/pods?{selector}")["items"]
        return found

    def _bound(self) -> Obj | None:
        found = [pod for pod in self._pods() if not pod["metadata"].get("deletionTimestamp")]
        return next((pod for pod in found if pod["spec"].get("nodeName")), None)

    def _ending(self) -> Obj | None:
        return next((pod for pod in self._pods() if pod["metadata"].get("deletionTimestamp")), None)

    def _process(self, pod: Obj, container: Obj, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        names = [item["configMap"]["name"] for item in pod["spec"]["volumes"] if "configMap" in item]
        config = {("ConfigMap", name): self._config(name) for name in names}
        folder = self.folder / pod["metadata"]["name"]
        host = host_environment({})
        context = PodContext(folder, host, master_port=0, metrics_port=port, data=config)
        volumes = [item for item in pod["spec"]["volumes"] if "projected" not in item]
        build_volumes({**pod, "spec": {**pod["spec"], "volumes": volumes}}, context, self.folder)
        launch = build_launch(pod, container, context)
        account = self.plane.kubeconfig_for_service_account(self.namespace, pod["spec"]["serviceAccountName"])
        return launch.argv, {**launch.env, "KUBECONFIG": str(account)}

    def _config(self, name: str) -> dict[str, bytes]:
        data: dict[str, str] = self.plane.get(f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")["data"]
        return {key: value.encode() for key, value in data.items()}

    def _say_ready(self, pod: Obj) -> None:
        ready = [{"type": kind, "status": "True"} for kind in ("Initialized", "Ready", "ContainersReady")]
        change = json.dumps({"status": {"phase": "Running", "conditions": ready}})
        target = ["pod", pod["metadata"]["name"], "-n", self.namespace]
        self.plane.kubectl(["patch", *target, "--subresource=status", "--type=strategic", "-p", change])
