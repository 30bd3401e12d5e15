"""What becomes of jobs as their pods live and die, as one table for the real controllers and for ours.

Each scenario plays the kubelet: it writes pod phases, and waits for what the controllers make of them. The expected
outcomes were read off training-operator 1.9.4 and the Job controller of Kubernetes 1.36.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from bessemer_operator.cluster import Cluster, Obj, Ref
from bessemer_operator.cluster.objects import controller_of
from bessemer_operator.core.manifests.pod import build_pod_template
from bessemer_operator.core.profile import Profile

NODE = "scenario-node"
POOL = {"bessemer.test/pool": "scenario"}
WAIT_SECONDS = 30.0
TIME = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Scenario:
    """`moves` are `run|succeed|fail|delete <pod>` and `await <condition>` or `await <field>=<value>` of the status."""

    id: str
    manifest: Obj
    moves: tuple[str, ...]
    status: dict[str, Any]
    pods: dict[str, str]
    """At the end: phase of each pod, with a `-` where its deletion has been asked for."""


def template(name: str) -> Obj:
    profile = Profile(node_selector=POOL, cpu="100m", memory="64Mi", shared_memory="64Mi")
    return build_pod_template(name, ["python", "-m", "bessemer_trainer"], profile, {"bessemer.dev/attempt": name})


def pytorchjob(name: str, workers: int = 1, clean: str = "Running", **spec: Any) -> Obj:
    replica = {"restartPolicy": "Never", "template": template(name)}
    replicas = {"Master": {"replicas": 1, **replica}}
    if workers:
        replicas["Worker"] = {"replicas": workers, **replica}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name},
        "spec": {"nprocPerNode": "2", "runPolicy": {"cleanPodPolicy": clean}, "pytorchReplicaSpecs": replicas, **spec},
    }


def job(name: str, completions: int = 1, **spec: Any) -> Obj:
    found = {"backoffLimit": 0, "completions": completions, "parallelism": 1, "template": template(name), **spec}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": found}


async def play(cluster: Cluster, scenario: Scenario, namespace: str) -> dict[str, Any]:
    """The outcome of a scenario: status and pods, once they are as expected or the time is up."""
    manifest = scenario.manifest
    obj = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
    made = await cluster.create(obj)
    ref = Ref(made["kind"], made["metadata"]["name"], namespace)
    for move in scenario.moves:
        verb, _, what = move.partition(" ")
        await (reached(cluster, ref, what) if verb == "await" else act(cluster, made, verb, what))
    expected = {"status": scenario.status, "pods": scenario.pods}
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = await outcome(cluster, ref)
        if found == expected or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.05)


async def pods_of(cluster: Cluster, ref: Ref) -> dict[str, Obj]:
    """The job's pods by role and index, or by index, or by order of creation."""
    found = (await cluster.list("Pod", ref.namespace)).items
    owned = [pod for pod in found if (controller_of(pod) or {}).get("name") == ref.name]
    owned.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
    return {key(pod, number): pod for number, pod in enumerate(owned)}


def key(pod: Obj, number: int) -> str:
    labels = pod["metadata"]["labels"]
    if "training.kubeflow.org/replica-type" in labels:
        return f"{labels['training.kubeflow.org/replica-type']}-{labels['training.kubeflow.org/replica-index']}"
    return str(labels.get("batch.kubernetes.io/job-completion-index", number))


async def act(cluster: Cluster, job: Obj, verb: str, name: str) -> None:
    ref = Ref(job["kind"], job["metadata"]["name"], job["metadata"]["namespace"])
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        pod = (await pods_of(cluster, ref)).get(name)
        if pod is not None and pod["spec"].get("nodeName"):
            break
        assert time.monotonic() < deadline, f"{ref}: no pod {name} on a node"
        await asyncio.sleep(0.05)
    if verb == "delete":
        await cluster.delete(Ref("Pod", pod["metadata"]["name"], ref.namespace))
        return
    phase = {"run": "Running", "succeed": "Succeeded", "fail": "Failed"}[verb]
    ready = {"type": "Ready", "status": "True" if phase == "Running" else "False", "lastTransitionTime": TIME}
    await cluster.apply_status({**pod, "status": {"phase": phase, "conditions": [ready]}}, "kubelet")


async def reached(cluster: Cluster, ref: Ref, what: str) -> None:
    field, equals, value = what.partition("=")
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        status = (await cluster.get(ref)).get("status") or {}
        held = {item["type"] for item in status.get("conditions") or () if item["status"] == "True"}
        if (str(status.get(field)) == value) if equals else (what in held):
            return
        assert time.monotonic() < deadline, f"{ref}: never {what}: {status}"
        await asyncio.sleep(0.05)


async def outcome(cluster: Cluster, ref: Ref) -> dict[str, Any]:
    status = (await cluster.get(ref)).get("status") or {}
    shown = {name: value for name, value in status.items() if name != "uncountedTerminatedPods"}
    shown["conditions"] = [
        " ".join((item["type"], item["status"], item["reason"])) for item in status.get("conditions") or ()
    ]
    for name in ("startTime", "completionTime"):
        if name in shown:
            shown[name] = "a time"
    if "replicaStatuses" in shown:  # whether a selector is shown is left to chance (the order of a Go map)
        counts = shown["replicaStatuses"].items()
        shown["replicaStatuses"] = {role: {k: v for k, v in count.items() if k != "selector"} for role, count in counts}
    pods = await pods_of(cluster, ref)
    going = {name: "deletionTimestamp" in pod["metadata"] for name, pod in pods.items()}
    return {"status": shown, "pods": {name: pods[name]["status"]["phase"] + "-" * going[name] for name in sorted(pods)}}


CREATED, RUNNING, RAN = "Created True", "Running True", "Running False"
FAILED_JOB = ["FailureTarget True BackoffLimitExceeded", "Failed True BackoffLimitExceeded"]
FAILING_JOB = FAILED_JOB[:1]
COMPLETE_JOB = ["SuccessCriteriaMet True CompletionsReached", "Complete True CompletionsReached"]


def gang(conditions: tuple[str, ...], **replicas: dict[str, int]) -> dict[str, Any]:
    """The status of a PyTorchJob, whose reasons repeat its conditions."""
    named = [f"{item} PyTorchJob{item.split()[0]}" for item in conditions]
    ended = {"completionTime": "a time"} if "False" in conditions[1] else {}
    return {"conditions": named, "startTime": "a time", "replicaStatuses": replicas, **ended}


def batch(conditions: list[str], *, ready: int = 0, terminating: int = 0, **numbers: Any) -> dict[str, Any]:
    """The status of a Job."""
    ended = {"completionTime": "a time"} if conditions == COMPLETE_JOB else {}
    numbers |= {"ready": ready, "terminating": terminating, "startTime": "a time"}
    return {"conditions": conditions, **numbers, **ended}


SCENARIOS = [
    Scenario(
        "a gang runs",
        pytorchjob("starts"),
        ("run master-0", "run worker-0", "await Running"),
        gang((CREATED, RUNNING), Master={"active": 1}, Worker={"active": 1}),
        {"master-0": "Running", "worker-0": "Running"},
    ),
    Scenario(
        "the master alone makes a job Running",
        pytorchjob("master"),
        ("run master-0", "await Running"),
        gang((CREATED, RUNNING), Master={"active": 1}, Worker={}),
        {"master-0": "Running", "worker-0": "Pending"},
    ),
    Scenario(
        "a gang succeeds with its master",
        pytorchjob("succeeds"),
        ("run master-0", "run worker-0", "await Running", "succeed worker-0", "succeed master-0"),
        gang((CREATED, RAN, "Succeeded True"), Master={"succeeded": 1}, Worker={"succeeded": 1}),
        {"master-0": "Succeeded", "worker-0": "Succeeded"},
    ),
    Scenario(
        "a worker that is late goes when its master succeeds, and counts as succeeded",
        pytorchjob("late", workers=2),
        ("run master-0", "run worker-0", "run worker-1", "await Running", "succeed worker-0", "succeed master-0"),
        gang((CREATED, RAN, "Succeeded True"), Master={"succeeded": 1}, Worker={"succeeded": 2}),
        {"master-0": "Succeeded", "worker-0": "Succeeded", "worker-1": "Running-"},
    ),
    Scenario(
        "one failed worker fails the job and stops the rest",
        pytorchjob("fails", workers=2),
        ("run master-0", "run worker-0", "run worker-1", "await Running", "fail worker-1"),
        gang((CREATED, RAN, "Failed True"), Master={"active": 1}, Worker={"active": 1, "failed": 1}),
        {"master-0": "Running-", "worker-0": "Running-", "worker-1": "Failed"},
    ),
    Scenario(
        "cleanPodPolicy None leaves the rest running",
        pytorchjob("none", clean="None"),
        ("run master-0", "run worker-0", "await Running", "fail master-0"),
        gang((CREATED, RAN, "Failed True"), Master={"failed": 1}, Worker={"active": 1}),
        {"master-0": "Failed", "worker-0": "Running"},
    ),
    Scenario(
        "a job of one node has a master only",
        pytorchjob("alone", workers=0),
        ("run master-0", "await Running", "succeed master-0"),
        gang((CREATED, RAN, "Succeeded True"), Master={"succeeded": 1}),
        {"master-0": "Succeeded"},
    ),
    Scenario(
        "a running pod that is deleted fails the job",
        pytorchjob("deleted"),
        ("run master-0", "run worker-0", "await Running", "delete worker-0"),
        gang((CREATED, RAN, "Failed True"), Master={"active": 1}, Worker={"failed": 1}),
        {"master-0": "Running-", "worker-0": "Running-"},
    ),
    Scenario("a Job waits for its pod", job("waits"), ("await active=1",), batch([], active=1), {"0": "Pending"}),
    Scenario(
        "a running pod is active and ready",
        job("runs"),
        ("run 0", "await ready=1"),
        batch([], active=1, ready=1),
        {"0": "Running"},
    ),
    Scenario(
        "a Job completes",
        job("completes"),
        ("run 0", "await ready=1", "succeed 0"),
        batch(COMPLETE_JOB, succeeded=1),
        {"0": "Succeeded"},
    ),
    Scenario(
        "a Job without retries fails with its pod",
        job("job-fails"),
        ("run 0", "fail 0"),
        batch(FAILED_JOB, failed=1),
        {"0": "Failed"},
    ),
    Scenario(
        "a deleted pod counts as failed, and its Job fails when it is gone",
        job("job-deleted"),
        ("run 0", "await ready=1", "delete 0"),
        batch(FAILING_JOB, failed=1, terminating=1),
        {"0": "Running-"},
    ),
    Scenario(
        "an Indexed Job runs every index once",
        job("indexed", 3, parallelism=2, completionMode="Indexed"),
        ("run 0", "run 1", "await ready=2", "succeed 0", "run 2", "await ready=2", "succeed 1", "succeed 2"),
        batch(COMPLETE_JOB, succeeded=3, completedIndexes="0-2"),
        {"0": "Succeeded", "1": "Succeeded", "2": "Succeeded"},
    ),
    Scenario(
        "an Indexed Job keeps count of what is done",
        job("half", 4, parallelism=2, completionMode="Indexed"),
        ("run 0", "run 1", "succeed 0", "succeed 1", "run 2", "await ready=1"),
        batch([], succeeded=2, completedIndexes="0,1", active=2, ready=1),
        {"0": "Succeeded", "1": "Succeeded", "2": "Running", "3": "Pending"},
    ),
    Scenario(
        "one failed index stops the others",
        job("index-fails", 3, parallelism=2, completionMode="Indexed"),
        ("run 0", "run 1", "await ready=2", "fail 1"),
        batch(FAILING_JOB, failed=2, terminating=1),
        {"0": "Running-", "1": "Failed"},
    ),
    Scenario(
        "a suspended Job has no pods",
        job("suspended", suspend=True),
        ("await Suspended",),
        {"conditions": ["Suspended True JobSuspended"], "ready": 0, "terminating": 0},
        {},
    ),
]
