"""The real controllers against the same table, and their pods, whole, against those that the local run makes."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from bessemer_operator.cluster import Obj, ref_of
from bessemer_operator.cluster.kube import KubeCluster
from bessemer_operator.cluster.objects import controller_of
from bessemer_operator.executor.jobs import expand_job
from bessemer_operator.executor.pytorchjobs import expand_pytorchjob
from tests.operator.executor.scenarios import NODE, POOL, SCENARIOS, Scenario, job, play, pytorchjob
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
