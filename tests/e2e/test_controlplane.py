"""The test cluster itself: what the other end-to-end tests take for granted about it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.controlplane import ControlPlane, KubectlError, wait_for
from tests.support.controlplane.build import pinned_version

pytestmark = pytest.mark.e2e

NAMESPACE = "controlplane-test"
GPU_NODE, CPU_NODE = "controlplane-test-gpu", "controlplane-test-cpu"
POOL = "bessemer.test/pool"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """Two nodes, one with GPUs behind a taint, and a namespace under Pod Security `restricted`."""
    control_plane.create_namespace(NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"})
    control_plane.add_node(CPU_NODE, cpu="8", memory="32Gi", labels={POOL: "cpu"})
    taint = "nvidia.com/gpu=present:NoSchedule"
    control_plane.add_node(GPU_NODE, gpus=4, labels={POOL: "h100"}, taints=[taint])
    yield control_plane
    control_plane.kubectl(["delete", "node", CPU_NODE, GPU_NODE])
    control_plane.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"])


def pod_template(container: str = "pytorch", *, gpus: int = 0, pool: str = "cpu") -> dict[str, Any]:
    limits = {"nvidia.com/gpu": gpus} if gpus else {"cpu": "1"}
    spec = {
        "containers": [
            {"name": container, "image": "trainer", "resources": {"limits": limits}, "securityContext": RESTRICTED}
        ],
        "nodeSelector": {POOL: pool},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "restartPolicy": "Never",
    }
    return {"spec": spec}


def pytorch_job(name: str, template: dict[str, Any]) -> dict[str, Any]:
    replica = {"replicas": 1, "restartPolicy": "Never", "template": template}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"nprocPerNode": "2", "pytorchReplicaSpecs": {"Master": replica, "Worker": replica}},
    }


def job(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"template": pod_template("main")},
    }


def pods_of(plane: ControlPlane, selector: str) -> list[dict[str, Any]]:
    """Return the pods with these labels that the scheduler has looked at, by name."""
    answer = plane.get(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector}")
    pods = [pod for pod in answer["items"] if scheduling(pod)]
    return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))


def scheduling(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in pod["status"].get("conditions", []) if each["type"] == "PodScheduled"]


def await_pods(plane: ControlPlane, selector: str, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def are_all_there() -> bool:
        found[:] = pods_of(plane, selector)
        return len(found) == count

    wait_for(f"{count} pods with {selector}", are_all_there)
    return found


def test_the_server_has_the_pinned_version_and_is_ready(cluster: ControlPlane) -> None:
    assert json.loads(cluster.kubectl(["get", "--raw", "/version"]))["gitVersion"] == pinned_version(
        "k8s.io/kubernetes"
    )
    assert cluster.kubectl(["get", "--raw", "/readyz"]) == "ok"


def test_the_training_operator_makes_the_pods_and_the_scheduler_puts_them_on_the_gpu_node(
    cluster: ControlPlane,
) -> None:
    cluster.apply(pytorch_job("train", pod_template(gpus=2, pool="h100")))
    pods = await_pods(cluster, "training.kubeflow.org/job-name=train", 2)
    assert [(pod["metadata"]["name"], pod["spec"]["nodeName"]) for pod in pods] == [
        ("train-master-0", GPU_NODE),
        ("train-worker-0", GPU_NODE),
    ]
    environment = {each["name"]: each.get("value") for each in pods[1]["spec"]["containers"][0]["env"]}
    expected = {"RANK": "1", "WORLD_SIZE": "4", "PET_NNODES": "2", "PET_NPROC_PER_NODE": "2"}
    assert environment | expected == environment
    assert [each["name"] for each in pods[1]["spec"]["initContainers"]] == ["init-pytorch"]


@pytest.mark.parametrize(
    ("gpus", "pool", "expected"),
    [
        pytest.param(5, "h100", "Insufficient nvidia.com/gpu", id="more GPUs than a node has"),
        pytest.param(1, "b200", "didn't match Pod's node affinity/selector", id="a pool that no node is in"),
    ],
)
def test_the_scheduler_says_why_a_pod_waits(cluster: ControlPlane, gpus: int, pool: str, expected: str) -> None:
    name = f"waits-{pool}"
    cluster.apply(pytorch_job(name, pod_template(gpus=gpus, pool=pool)))
    pods = await_pods(cluster, f"training.kubeflow.org/job-name={name}", 2)
    for pod in pods:
        [condition] = scheduling(pod)
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
        assert expected in condition["message"]


def test_the_webhook_refuses_a_pytorchjob_without_a_container_named_pytorch(cluster: ControlPlane) -> None:
    with pytest.raises(
        KubectlError, match=r"validator\.pytorchjob.*must have at least one container with name pytorch"
    ):
        cluster.apply(pytorch_job("nameless", pod_template("main")))


def test_a_job_gets_its_pod(cluster: ControlPlane) -> None:
    cluster.apply(job("work"))
    [pod] = await_pods(cluster, "batch.kubernetes.io/job-name=work", 1)
    assert pod["spec"]["nodeName"] == CPU_NODE


def test_pod_security_refuses_a_privileged_pod_where_restricted_is_enforced(cluster: ControlPlane) -> None:
    template = pod_template()
    template["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root", "namespace": NAMESPACE}, **template}
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        cluster.apply(pod)


def test_a_service_account_may_do_only_what_rbac_gives_it(cluster: ControlPlane) -> None:
    kubeconfig = cluster.kubeconfig_for_service_account(NAMESPACE, "default")
    binding = ["create", "rolebinding", "reader", "--clusterrole=view", f"--serviceaccount={NAMESPACE}:default"]
    cluster.kubectl([*binding, "-n", NAMESPACE])
    cluster.kubectl(["get", "pods", "-n", NAMESPACE], kubeconfig=kubeconfig)
    with pytest.raises(KubectlError, match=r"cannot list resource \"secrets\""):
        cluster.kubectl(["get", "secrets", "-n", NAMESPACE], kubeconfig=kubeconfig)


def test_the_audit_log_has_each_creation_once_with_its_author(cluster: ControlPlane) -> None:
    kubeconfig = cluster.kubeconfig_for_user("alice", ["system:masters"])
    cluster.kubectl(["create", "configmap", "audited", "-n", NAMESPACE], kubeconfig=kubeconfig)
    events = [
        (event["user"]["username"], event["responseStatus"]["code"])
        for event in cluster.audit_events()
        if event["verb"] == "create" and event.get("objectRef", {}).get("name") == "audited"
    ]
    assert events == [("alice", 201)]


def test_a_killed_api_server_comes_back_with_what_was_stored(cluster: ControlPlane) -> None:
    cluster.kubectl(["create", "configmap", "kept", "-n", NAMESPACE])
    cluster.stop_component("kube-apiserver")
    with pytest.raises(KubectlError, match="refused"):
        cluster.kubectl(["get", "configmap", "kept", "-n", NAMESPACE])
    cluster.start_component("kube-apiserver")
    assert "kept" in cluster.kubectl(["get", "configmap", "kept", "-n", NAMESPACE, "-o", "name"])
