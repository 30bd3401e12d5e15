"""An attempt: its ConfigMap with the RunSpec, and its Job or PyTorchJob. Created once; what runs is never changed."""

from dataclasses import dataclass, field
from typing import Any

from bessemer_api.job import RunSpec
from bessemer_operator.core.manifests.pod import build_pod_template, with_git, with_signing
from bessemer_operator.core.naming import (
    ANNOTATION_DIGEST,
    ANNOTATION_RETRY,
    LABEL_ATTEMPT,
    LABEL_OWNER,
    LABEL_QUEUE,
    MANAGED_BY,
)
from bessemer_operator.core.profile import Profile

MASTER_PORT = 23456


@dataclass(frozen=True, slots=True)
class Owner:
    """The object that an attempt belongs to."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    def reference(self) -> dict[str, Any]:
        """An ownerReference that names it as the controller."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """All that is needed to build one attempt. `nodes` is 0 for a Job, else the nodes of a PyTorchJob."""

    name: str
    owner: Owner
    run: RunSpec
    profile: Profile
    nodes: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    retry: str = ""


def build_attempt(spec: AttemptSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """ConfigMap and Job (or PyTorchJob), in the order in which they must be created."""
    return build_config_map(spec), build_pytorchjob(spec) if spec.nodes else build_job(spec)


def build_config_map(spec: AttemptSpec) -> dict[str, Any]:
    """The RunSpec as an immutable ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(spec),
        "immutable": True,
        "data": {"run.json": spec.run.model_dump_json(by_alias=True, exclude_none=True)},
    }


def build_job(spec: AttemptSpec) -> dict[str, Any]:
    """A Job of one pod that is never retried by the Job controller: attempts are ours."""
    template = build_pod_template(spec.name, ["python", "-m", "bessemer_trainer"], spec.profile, _labels(spec))
    if any(task is not None and task.git is not None for task in (spec.run.promote, spec.run.rollback)):
        template = with_git(template, spec.profile)
    template = with_signing(template, spec.profile, _keys(spec.run))
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(spec, queue=True),
        "spec": {"backoffLimit": 0, "completions": 1, "parallelism": 1, "template": template},
    }


def _keys(run: RunSpec) -> tuple[str, ...]:
    """Which keys the pod sees: all who use a promoted model verify, and promotions alone sign."""
    if run.verb == "promote":
        return ("private.pem", "public.pem")
    uses = run.verb in {"resolve", "rollback"} or (run.stage is not None and run.stage.method == "import")
    return ("public.pem",) if uses else ()


def build_pytorchjob(spec: AttemptSpec) -> dict[str, Any]:
    """A PyTorchJob with every value written, because the defaults of training-operator are not persisted."""
    command = ["python", "-m", "bessemer_trainer.launch"]
    template = build_pod_template(spec.name, command, spec.profile, _labels(spec))
    port = {"name": "pytorchjob-port", "containerPort": MASTER_PORT, "protocol": "TCP"}
    template["spec"]["containers"][0]["ports"].append(port)
    replica = {"restartPolicy": "Never", "template": template}
    replicas: dict[str, Any] = {"Master": {"replicas": 1, **replica}}
    if spec.nodes > 1:
        replicas["Worker"] = {"replicas": spec.nodes - 1, **replica}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": _metadata(spec, queue=True),
        "spec": {
            "nprocPerNode": str(spec.profile.ranks),
            "runPolicy": {"cleanPodPolicy": "Running", "suspend": False},
            "pytorchReplicaSpecs": replicas,
        },
    }


def _labels(spec: AttemptSpec) -> dict[str, str]:
    return {**spec.labels, **MANAGED_BY, LABEL_OWNER: spec.owner.uid, LABEL_ATTEMPT: spec.name}


def _metadata(spec: AttemptSpec, *, queue: bool = False) -> dict[str, Any]:
    labels = _labels(spec)
    if queue and spec.profile.queue:
        labels[LABEL_QUEUE] = spec.profile.queue
    return {
        "name": spec.name,
        "namespace": spec.owner.namespace,
        "labels": labels,
        "annotations": {ANNOTATION_DIGEST: spec.run.input_digest, ANNOTATION_RETRY: spec.retry},
        "ownerReferences": [spec.owner.reference()],
    }
