"""kubeflow.org/v1 PyTorchJob to pods and status, as training-operator 1.9.4 does it. Pure.

Covers what the operator writes: Master and Worker, restartPolicy Never, cleanPodPolicy, nprocPerNode, suspend.
`expand_pytorchjob` raises Invalid for an elastic policy and for other restart policies. Services are not made:
on one host the kubelet puts 127.0.0.1 in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bessemer_operator.cluster import Invalid, Obj

from .expansion import Expansion, build_pod, has_status

CONTAINER = "pytorch"
PORT_NAME = "pytorchjob-port"
DEFAULT_PORT = 23456
INIT_IMAGE = "alpine:3.10"
INIT_TRIES = 100
_PREFIX = "training.kubeflow.org"
_ROLES = ("Master", "Worker")


def expand_pytorchjob(job: Obj, pods: Sequence[Obj], now: str) -> Expansion:
    """What to do next for a PyTorchJob, given all pods it controls. Raises Invalid for what is not supported."""
    _check(job)
    name = job["metadata"]["name"]
    status: Obj = job.get("status") or {}
    if not status.get("conditions"):
        status = _with_condition(status, ("Created", f"PyTorchJob {name} is created."), now)
    if has_status(status, "Succeeded") or has_status(status, "Failed"):
        return Expansion(_closed(status), delete=tuple(_to_clean(job, pods)))
    if (job["spec"].get("runPolicy") or {}).get("suspend"):
        return Expansion(_suspended(status, name, now), delete=tuple(pods))
    if has_status(status, "Suspended"):
        resumed = ("Suspended", f"PyTorchJob {name} is resumed.")
        status = {**_with_condition(status, resumed, now, "False", "Resumed"), "startTime": now}
    existing = {pod["metadata"]["name"] for pod in pods}
    wanted = [_pod(job, role, index) for role in _roles(job) for index in range(_replicas(job, role))]
    create = tuple(pod for pod in wanted if pod["metadata"]["name"] not in existing)
    return Expansion(_status(job, pods, status, now), create)


def _check(job: Obj) -> None:
    what = f"PyTorchJob {job['metadata']['name']}"
    spec = job["spec"]
    if "Master" not in spec["pytorchReplicaSpecs"] or spec.get("elasticPolicy"):
        raise Invalid(f"{what}: spec: a local run supports a Master with Workers, and no elasticPolicy")
    for role in _roles(job):
        replica = spec["pytorchReplicaSpecs"][role]
        if replica.get("restartPolicy", "OnFailure") != "Never":
            raise Invalid(f"{what}: spec.pytorchReplicaSpecs.{role}.restartPolicy: a local run supports Never only")
        names = [container["name"] for container in replica["template"]["spec"]["containers"]]
        if CONTAINER not in names:
            raise Invalid(f"{what}: there is no container named {CONTAINER} in {role}")


def _roles(job: Obj) -> Iterator[str]:
    return (role for role in _ROLES if role in job["spec"]["pytorchReplicaSpecs"])


def _replicas(job: Obj, role: str) -> int:
    return int(job["spec"]["pytorchReplicaSpecs"][role].get("replicas", 1))


def _labels(job: Obj) -> dict[str, str]:
    name = job["metadata"]["name"]
    return {f"{_PREFIX}/operator-name": "pytorchjob-controller", f"{_PREFIX}/job-name": name}


def _pod(job: Obj, role: str, index: int) -> Obj:
    name, kind = job["metadata"]["name"], role.lower()
    template: Obj = job["spec"]["pytorchReplicaSpecs"][role]["template"]
    own = {f"{_PREFIX}/replica-type": kind, f"{_PREFIX}/replica-index": str(index)}
    is_master = {f"{_PREFIX}/job-role": "master"} if role == "Master" else {}
    env = list(_env(job, index + 1 if role == "Worker" else 0))
    containers = [_container(container, env) for container in template["spec"]["containers"]]
    spec = {**template["spec"], "containers": containers, "restartPolicy": "Never"}
    if role == "Worker":
        spec["initContainers"] = [*(spec.get("initContainers") or ()), _init_container(f"{name}-master-0")]
    labels = {**_labels(job), **own, **is_master}
    return build_pod(job, template, spec, {"name": f"{name}-{kind}-{index}", "labels": labels})


def _container(container: Obj, env: Sequence[Obj]) -> Obj:
    ports = container.get("ports") or []
    if container["name"] == CONTAINER and not any(port.get("name") == PORT_NAME for port in ports):
        ports = [*ports, {"name": PORT_NAME, "containerPort": DEFAULT_PORT}]
    extra = {"ports": ports} if ports else {}
    return {**container, **extra, "env": [*(container.get("env") or ()), *env]}


def _env(job: Obj, rank: int) -> Iterator[Obj]:
    """The variables that training-operator appends, in its order."""
    port, address = str(_port(job)), f"{job['metadata']['name']}-master-0"
    nodes = sum(_replicas(job, role) for role in _roles(job))
    per_node = job["spec"].get("nprocPerNode", "auto")
    world = nodes * (int(per_node) if per_node.isdigit() else 1)
    values = (
        ("PYTHONUNBUFFERED", "1"),
        *(("MASTER_PORT", port), ("PET_MASTER_PORT", port), ("MASTER_ADDR", address), ("PET_MASTER_ADDR", address)),
        *(("WORLD_SIZE", world), ("RANK", rank), ("PET_NODE_RANK", rank)),
        *(("PET_NPROC_PER_NODE", per_node), ("PET_NNODES", nodes)),
    )
    return ({"name": name, "value": str(value)} for name, value in values)


def _port(job: Obj) -> int:
    for container in job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]:
        for port in container.get("ports") or ():
            if container["name"] == CONTAINER and port.get("name") == PORT_NAME:
                return int(port["containerPort"])
    return DEFAULT_PORT


def _init_container(master: str) -> Obj:
    lookup = (
        f"err=1;for i in $(seq {INIT_TRIES}); do if nslookup {master}; then err=0 && break; fi;"
        "echo waiting for master; sleep 2; done; exit $err"
    )
    limits, requests = {"cpu": "100m", "memory": "20Mi"}, {"cpu": "50m", "memory": "10Mi"}
    return {
        "name": "init-pytorch",
        "image": INIT_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"limits": limits, "requests": requests},
        "command": ["sh", "-c", lookup],
    }


def _status(job: Obj, pods: Sequence[Obj], status: Obj, now: str) -> Obj:
    """Counts by role, and the conditions that follow: running and success are the Master's, failure anyone's."""
    name = job["metadata"]["name"]
    counts = {role: _counts(pods, role) for role in _roles(job)}
    status = {**status, "replicaStatuses": {role: _replica(job, role, counts[role]) for role in counts}}
    status = {"startTime": now, **status}
    if counts["Master"]["active"]:
        status = _with_condition(status, ("Running", f"PyTorchJob {name} is running."), now)
    if counts["Master"]["succeeded"] == _replicas(job, "Master"):
        done = ("Succeeded", f"PyTorchJob {name} is successfully completed.")
        return _with_condition({"completionTime": now, **status}, done, now)
    for role, count in counts.items():
        if count["failed"] and _replicas(job, role) > count["succeeded"] + count["active"]:
            why = ("Failed", f"PyTorchJob {name} is failed because {count['failed']} {role} replica(s) failed.")
            status = _with_condition({"completionTime": now, **status}, why, now)
    return status


def _counts(pods: Sequence[Obj], role: str) -> dict[str, int]:
    counts = {"active": 0, "succeeded": 0, "failed": 0}
    for pod in pods:
        if pod["metadata"]["labels"].get(f"{_PREFIX}/replica-type") == role.lower():
            outcome = _outcome(pod)
            if outcome:
                counts[outcome] += 1
    return counts


def _outcome(pod: Obj) -> str:
    """A running pod that is being deleted counts as failed, which under Never ends the job."""
    running = "failed" if "deletionTimestamp" in pod["metadata"] else "active"
    return {"Running": running, "Succeeded": "succeeded", "Failed": "failed"}.get(pod["status"]["phase"], "")


def _replica(job: Obj, role: str, counts: dict[str, int]) -> Obj:
    labels = {**_labels(job), f"{_PREFIX}/replica-type": role.lower()}
    selector = ",".join(f"{key}={labels[key]}" for key in sorted(labels))
    return {"selector": selector, **{key: value for key, value in counts.items() if value}}


def _closed(status: Obj) -> Obj:
    """After success, what was still active counts as succeeded."""
    if not has_status(status, "Succeeded"):
        return status
    replicas = {role: _settled(found) for role, found in (status.get("replicaStatuses") or {}).items()}
    return {**status, "replicaStatuses": replicas}


def _settled(found: Obj) -> Obj:
    total = found.get("succeeded", 0) + found.get("active", 0)
    rest = {key: value for key, value in found.items() if key not in ("active", "succeeded")}
    return {**rest, **({"succeeded": total} if total else {})}


def _suspended(status: Obj, name: str, now: str) -> Obj:
    message = f"PyTorchJob {name} is suspended."
    if has_status(status, "Running"):
        status = _with_condition(status, ("Running", message), now, "False", "Suspended")
    replicas = status.get("replicaStatuses") or {}
    idle = {role: {key: value for key, value in found.items() if key != "active"} for role, found in replicas.items()}
    return _with_condition({**status, **({"replicaStatuses": idle} if idle else {})}, ("Suspended", message), now)


def _to_clean(job: Obj, pods: Sequence[Obj]) -> Iterator[Obj]:
    policy = (job["spec"].get("runPolicy") or {}).get("cleanPodPolicy", "None")
    for pod in pods:
        is_alive = pod["status"]["phase"] in ("Running", "Pending")
        if (policy == "All" or (policy == "Running" and is_alive)) and "deletionTimestamp" not in pod["metadata"]:
            yield pod


def _with_condition(status: Obj, what: tuple[str, str], now: str, value: str = "True", reason: str = "") -> Obj:
    """Set a condition as training-operator does: changed ones move to the end, and Failed is final."""
    kind, message = what
    reason = f"PyTorchJob{reason or kind}"
    found = status.get("conditions") or []
    old = next((item for item in found if item["type"] == kind), None)
    is_same = old is not None and (old["status"], old["reason"]) == (value, reason)
    if is_same or has_status(status, "Failed"):
        return status
    since = old["lastTransitionTime"] if old is not None and old["status"] == value else now
    new = {"type": kind, "status": value, "reason": reason, "message": message}
    times = {"lastUpdateTime": now, "lastTransitionTime": since}
    kept = [item for item in found if item["type"] != kind]
    if kind in ("Succeeded", "Failed"):
        kept = [{**item, "status": "False"} if item["type"] == "Running" else item for item in kept]
    return {**status, "conditions": [*kept, {**new, **times}]}
