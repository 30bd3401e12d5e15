"""Pipelines that wait in queues: real controllers, played pods, and a test that says what trains, and what saves.

It must not know what makes an attempt wait.
"""

import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bessemer_api.job import RunSpec
from tests.api.documents import ABSENT, PIPELINE, edited
from tests.support.controlplane import ControlPlane, wait_for
from tests.support.installation import Installation, installed
from tests.support.played import PlayedKubelet
from tests.support.world import Ending

PATIENCE = 240.0
GROUPS = {"jobs": "/apis/batch/v1", "pytorchjobs": "/apis/kubeflow.org/v1", "pods": "/api/v1"}

Obj = dict[str, Any]


@dataclass
class Site:
    """The cluster, and which pipelines' training goes on until it is let go."""

    plane: ControlPlane
    bessemer: Installation
    kubelet: PlayedKubelet
    held: set[str] = field(default_factory=set)
    saving: bool = False

    def __post_init__(self) -> None:
        self.kubelet.script = self._script
        self.kubelet.is_saving = lambda: self.saving

    def _script(self, spec: RunSpec, name: str) -> Ending | str | None:
        is_training = spec.stage is not None and spec.stage.method == "pretrain"
        return "hang" if is_training and name.split("-", maxsplit=1)[0] in self.held else None

    def apply(self, name: str, space: str, profile: str) -> None:
        """A pipeline that prepares, makes a tokenizer, and trains a gang of two pods with two GPUs each."""
        absent = {f"spec.{part}": ABSENT for part in ("gates", "evaluation", "promotion")}
        edits = {
            "metadata": {"name": name, "namespace": space},
            "spec.store": f"s3://models/{name}",
            "spec.data.poems.prepare": {},
            "spec.stages": PIPELINE["spec"]["stages"][:2],
            "spec.profiles": {"train": profile},
        }
        document = edited(edited(PIPELINE, {**edits, **absent}), {"spec.stages.1.nodes": 2})
        self.plane.kubectl(["apply", "-f", "-"], stdin=json.dumps(document))

    def every(self, plural: str, space: str, begin: str = "") -> list[Obj]:
        base = GROUPS.get(plural, "/apis/bessemer.dev/v1alpha1")
        found = self.plane.get(f"{base}/namespaces/{space}/{plural}")["items"]
        return [item for item in found if item["metadata"]["name"].startswith(begin)]

    def training(self, name: str, space: str) -> Obj:
        """The status of the stage that trains; empty before there is one."""
        found = self.every("trainingstages", space, f"{name}-pretrain-")
        stages = [item for item in found if item["spec"]["inputs"]["method"] == "pretrain"]
        return (stages[0].get("status") or {}) if stages else {}

    def reason(self, name: str, space: str, kind: str = "Reconciling") -> tuple[str, str, str]:
        found = self.training(name, space).get("conditions") or []
        return next(((c["status"], c["reason"], c["message"]) for c in found if c["type"] == kind), ("", "", ""))

    def attempts(self, name: str, space: str) -> list[tuple[str, int]]:
        found = self.training(name, space).get("attempts") or []
        return [(item["outcome"], item.get("preemptions", 0)) for item in found]

    def jobs(self, name: str, space: str) -> list[Obj]:
        return self.every("pytorchjobs", space, f"{name}-pretrain-")

    def pods(self, name: str, space: str) -> list[Obj]:
        """All pods that train for it, also those that have been told to stop."""
        found = self.every("pods", space, f"{name}-pretrain-")
        return [pod for pod in found if "training.kubeflow.org/replica-type" in pod["metadata"]["labels"]]

    def running(self, name: str, space: str) -> list[Obj]:
        """Pods that train, and have not been told to stop."""
        alive = [pod for pod in self.pods(name, space) if not pod["metadata"].get("deletionTimestamp")]
        return [pod for pod in alive if (pod.get("status") or {}).get("phase") == "Running"]

    def await_gang(self, name: str, space: str) -> None:
        wait_for(f"both pods of {name} to train", lambda: len(self.running(name, space)) == 2, PATIENCE)

    def await_suspended(self, name: str, space: str) -> None:
        def is_suspended() -> bool:
            return any(job["spec"]["runPolicy"].get("suspend") for job in self.jobs(name, space))

        wait_for(f"Kueue to suspend {name}", is_suspended, PATIENCE)

    def await_reason(self, name: str, space: str, kind: str, reason: str, words: str = "") -> str:
        """Until the condition of the stage is True with this reason, and these words in its message; the message."""

        def is_said() -> bool:
            status, found, message = self.reason(name, space, kind)
            return (status, found) == ("True", reason) and words in message

        wait_for(f"{name} to say {reason} {words}", is_said, PATIENCE)
        return self.reason(name, space, kind)[2]

    def await_done(self, name: str, space: str) -> None:
        wait_for(f"{name} to be done", lambda: self.training(name, space).get("phase") == "Succeeded", PATIENCE)


@contextmanager
def site_on(plane: ControlPlane, profiles: Mapping[str, Obj], namespaces: Sequence[str] = ()) -> Iterator[Site]:
    """An installation on a control plane, for these namespaces or all; its pods are played."""
    with installed(plane, profiles, namespaces) as bessemer:
        plane.processes.stop("kubelet", signal.SIGTERM)
        with PlayedKubelet(plane.kubeconfig) as kubelet:
            yield Site(plane, bessemer, kubelet)
