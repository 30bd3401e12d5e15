"""The real controllers against the same table, and their pods, whole, against those that the local run makes."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bessemer_operator.cluster import Obj, Ref, ref_of
from bessemer_operator.cluster.kube import KubeCluster
from bessemer_operator.cluster.objects import controller_of
from bessemer_operator.executor import Node, run_node
from bessemer_operator.executor.jobs import expand_job
from bessemer_operator.executor.pytorchjobs import expand_pytorchjob
from tests.operator.executor.scenarios import NODE, POOL, SCENARIOS, Scenario, job, play, pods_of, pytorchjob
from tests.support.controlplane import ControlPlane, wait_for

pytestmark = pytest.mark.e2e

NAMESPACE = "expand-test"
SERVER_META = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "selfLink")


@pytest.fixture(scope="module")
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    control_plane.create_namespace(NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"})
    control_plane.add_node(NODE, labels=POOL)
    yield NAMESPACE
    control_plane.kubectl(["delete", "node", NODE])
    control_plane.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"])


@pytest_asyncio.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[KubeCluster]:
    cluster = await KubeCluster.connect(control_plane.kubeconfig)
    yield cluster
    await cluster.close()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
async def test_the_real_controllers_do_what_the_table_says(
    scenario: Scenario, cluster: KubeCluster, namespace: str
) -> None:
    assert await play(cluster, scenario, namespace) == {"status": scenario.status, "pods": scenario.pods}


def with_metadata(manifest: Obj, **spec: Any) -> Obj:
    """With annotations, more environment and a finalizer in the template: what controllers must carry over."""
    changed: Obj = json.loads(json.dumps(manifest))  # in which the roles share no template
    templates = [changed["spec"]["template"]] if "template" in changed["spec"] else []
    templates += [replica["template"] for replica in changed["spec"].get("pytorchReplicaSpecs", {}).values()]
    for template in templates:
        template["metadata"]["annotations"] = {"example.com/a": "1"}
        template["spec"]["containers"][0]["env"].append({"name": "WORLD_SIZE", "value": "overridden"})
    changed["spec"].update(spec)
    return changed


MANIFESTS = [
    pytest.param(pytorchjob("one-node", workers=0), id="a PyTorchJob of one node"),
    pytest.param(pytorchjob("gang", workers=3), id="a PyTorchJob of four nodes"),
    pytest.param(with_metadata(pytorchjob("rich"), nprocPerNode="8"), id="a PyTorchJob with a richer template"),
    pytest.param(job("plain"), id="a Job"),
    pytest.param(job("many", 3, parallelism=3), id="a Job of three pods"),
    pytest.param(job("index", 3, parallelism=2, completionMode="Indexed"), id="an Indexed Job"),
    pytest.param(with_metadata(job("rich-job", 2, completionMode="Indexed")), id="an Indexed Job with annotations"),
    pytest.param(job("l" * 55, 12, parallelism=12, completionMode="Indexed"), id="an Indexed Job with a long name"),
]


@pytest.mark.parametrize("manifest", MANIFESTS)
async def test_the_local_run_makes_the_same_pods(
    manifest: Obj, cluster: KubeCluster, control_plane: ControlPlane, namespace: str
) -> None:
    made = await cluster.create({**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}})
    # The local run has the manifest as it was written: nobody has filled in defaults.
    written = {**made, "spec": manifest["spec"], "status": {}}
    expand = expand_job if made["kind"] == "Job" else expand_pytorchjob
    expected = [defaulted(pod, control_plane) for pod in expand(written, [], "2026-01-01T00:00:00Z").create]

    def real() -> list[Obj]:
        found = control_plane.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
        return [pod for pod in found if (controller_of(pod) or {}).get("uid") == made["metadata"]["uid"]]

    wait_for(f"the pods of {ref_of(made)}", lambda: len(real()) == len(expected))
    assert in_order(comparable(pod) for pod in real()) == in_order(comparable(pod) for pod in expected)


def defaulted(pod: Obj, control_plane: ControlPlane) -> Obj:
    """The pod as the API server would store it, under a name that is free."""
    pod = with_the_cluster_s_init_container(pod)
    named = {key: value for key, value in pod["metadata"].items() if key != "name"}
    free = {**pod, "metadata": {"generateName": "free-", **named}}
    answer = control_plane.kubectl(["create", "--dry-run=server", "-o", "json", "-f", "-"], stdin=json.dumps(free))
    found: Obj = json.loads(answer)
    if "name" in pod["metadata"]:
        meta = {key: value for key, value in found["metadata"].items() if key != "generateName"}
        found["metadata"] = {**meta, "name": pod["metadata"]["name"]}
    return found


def with_the_cluster_s_init_container(pod: Obj) -> Obj:
    """training-operator takes this container from a template where it has one, as it has here."""
    if not pod["spec"].get("initContainers"):
        return pod
    [built_in] = pod["spec"]["initContainers"]
    assert (built_in["name"], built_in["command"][:2]) == ("init-pytorch", ["sh", "-c"])
    master = pod["metadata"]["labels"]["training.kubeflow.org/job-name"] + "-master-0"
    assert f"nslookup {master};" in built_in["command"][2]
    template = {
        **built_in,
        "command": ["sh", "-c", f"for i in $(seq 100); do nslookup {master} && exit 0; sleep 2; done; exit 1"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {**pod, "spec": {**pod["spec"], "initContainers": [template]}}


def comparable(pod: Obj) -> Obj:
    """Without what the server, the scheduler or chance adds."""
    meta = {key: value for key, value in pod["metadata"].items() if key not in SERVER_META}
    if "generateName" in meta:
        del meta["name"]
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    return {"metadata": meta, "spec": spec}


def in_order(pods: Any) -> list[Obj]:
    return sorted(pods, key=lambda pod: json.dumps(pod, sort_keys=True))


TRAINS = """
import os, torch.distributed as dist, torch
dist.init_process_group("gloo")
total = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(total)
if dist.get_rank() == 0:
    with open(os.environ["BESSEMER_TERMINATION_LOG"], "w") as file:
        file.write(f"{dist.get_world_size()} ranks, sum {total.item():g}")
dist.destroy_process_group()
"""
OWN_NODE, OWN_POOL = "expand-test-kubelet", {"bessemer.test/pool": "kubelet"}


@pytest_asyncio.fixture
async def kubelet(control_plane: ControlPlane, cluster: KubeCluster, tmp_path: Path) -> AsyncIterator[Path]:
    """Our kubelet for a node of its own, on the real control plane."""
    control_plane.add_node(OWN_NODE, cpu="8", labels=OWN_POOL)
    stop = asyncio.Event()
    node = Node(OWN_NODE, {"cpu": "8", "memory": "16Gi"}, OWN_POOL)
    task = asyncio.create_task(run_node(cluster, [node], tmp_path, stop))
    yield tmp_path
    stop.set()
    await task
    control_plane.kubectl(["delete", "node", OWN_NODE])


def on_own_node(manifest: Obj, command: list[str]) -> Obj:
    changed: Obj = json.loads(json.dumps(manifest))
    changed["metadata"]["namespace"] = NAMESPACE
    replicas = changed["spec"].get("pytorchReplicaSpecs") or {"Job": changed["spec"]}
    for replica in replicas.values():
        spec = replica["template"]["spec"]
        spec["nodeSelector"] = OWN_POOL
        spec["containers"][0]["command"] = command
        spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] != "run"]
        mounts = spec["containers"][0]["volumeMounts"]
        spec["containers"][0]["volumeMounts"] = [mount for mount in mounts if mount["name"] != "run"]
    return changed


async def ended(cluster: KubeCluster, obj: Obj) -> list[str]:
    """The conditions of a job when it has ended."""
    made = await cluster.create(obj)
    async with asyncio.timeout(120):
        while True:
            found = (await cluster.get(ref_of(made))).get("status") or {}
            held = [item["type"] for item in found.get("conditions") or () if item["status"] == "True"]
            if {"Complete", "Succeeded", "Failed"} & set(held):
                return held
            await asyncio.sleep(0.1)


async def test_a_gang_trains_under_the_real_training_operator_and_our_kubelet(
    cluster: KubeCluster, namespace: str, kubelet: Path
) -> None:
    command = ["torchrun", "--no-python", "python", "-c", TRAINS]
    assert await ended(cluster, on_own_node(pytorchjob("trains"), command)) == ["Created", "Succeeded"]
    master = await cluster.get(Ref("Pod", "trains-master-0", namespace))
    state = master["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["message"]) == (0, "4 ranks, sum 10")
    lease = await cluster.get(Ref("Lease", OWN_NODE, "kube-node-lease"))
    assert lease["spec"]["holderIdentity"] == OWN_NODE


async def test_a_job_runs_under_the_real_controller_and_our_kubelet(
    cluster: KubeCluster, namespace: str, kubelet: Path
) -> None:
    good, bad = (["python", "-c", f"raise SystemExit({code})"] for code in (0, 64))
    assert await ended(cluster, on_own_node(job("good"), good)) == ["SuccessCriteriaMet", "Complete"]
    assert await ended(cluster, on_own_node(job("bad"), bad)) == ["FailureTarget", "Failed"]
    pods = await pods_of(cluster, Ref("Job", "bad", namespace))
    assert pods["0"]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 64


async def test_a_deleted_job_takes_its_processes_with_it(
    cluster: KubeCluster, namespace: str, kubelet: Path, tmp_path: Path
) -> None:
    program = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(99)"
    made = await cluster.create(on_own_node(job("runs-on"), ["python", "-c", program]))
    await asyncio.to_thread(wait_for, "the process", (tmp_path / "pid").exists)
    await cluster.delete(ref_of(made))
    await asyncio.to_thread(wait_for, "the pod to go", lambda: not list(tmp_path.glob("pods/*_runs-on*/volumes")))
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
