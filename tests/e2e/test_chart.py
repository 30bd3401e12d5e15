"""The chart as an administrator meets it: installed, upgraded and removed by the real Helm, with the operator's pod.

The control plane is this module's own. Namespaces enforce Pod Security `restricted`. The tests are one story, in order.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bessemer_api.crdgen import to_yaml
from bessemer_api.digest import input_digest
from bessemer_api.v1alpha1.evaluation import EvaluationInputs
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.stage import StageInputs
from tests.api.documents import DOCUMENTS, PIPELINE, edited
from tests.support.controlplane import ControlPlane, wait_for
from tests.support.helm.program import CHART, helm
from tests.support.installation import CPU_NODE, GPU_NODE, POOL, kubelet
from tests.support.mini import write_mini
from tests.support.operatorpod import OperatorNode

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SYSTEM, TEAM = "bessemer-system", "team"
PARKED = "parked-1"
"""A node behind which nothing runs: pods are bound to it and stay Pending."""
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}
OLD_VERSION = "0.0.9"
NEW_FIELDS = ("budget", "revisionHistoryLimit")
"""Fields of a pipeline that the CRD of the older release does not have."""
WORKER = "training.kubeflow.org/replica-type=worker"

Obj = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """A cluster whose administrator uses Helm."""

    plane: ControlPlane
    node: OperatorNode
    folder: Path

    def helm(self, *arguments: str, values: Obj | None = None) -> str:
        return helm(*arguments, "--namespace", SYSTEM, values=values, kubeconfig=self.plane.kubeconfig)

    def get(self, kind: str, name: str = "", *options: str, namespace: str = TEAM) -> Obj:
        arguments = ["get", kind, *([name] if name else []), "-n", namespace, "-o", "json", *options]
        found: Obj = json.loads(self.plane.kubectl(arguments))
        return found

    def condition(self, kind: str, name: str, what: str) -> tuple[str, str, str]:
        found = self.get(kind, name).get("status", {}).get("conditions", [])
        rows = [(item["status"], item["reason"], item["message"]) for item in found if item["type"] == what]
        return rows[0] if rows else ("", "", "")


def values(**more: Any) -> Obj:
    """Profiles for the nodes of this cluster."""
    small = {"memory": "1Gi", "gracePeriodSeconds": 30}
    profiles = {
        "default": {**small, "nodeSelector": {POOL: "cpu"}},
        "parked": {**small, "nodeSelector": {POOL: "parked"}, "pendingDeadline": "1s"},
        "no-room": {
            **small,
            "gpus": 64,
            "nodeSelector": {POOL: "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "pendingDeadline": "1s",
        },
    }
    return {"profiles": profiles, "nodeSelector": {POOL: "parked"}, "networkPolicy": {"namespaces": [TEAM]}, **more}


def older_chart(folder: Path) -> Path:
    """The chart as an earlier release had it: another version, and CRDs without some fields of today."""
    chart = folder / "older" / "bessemer"
    shutil.copytree(CHART, chart, symlinks=False)
    file = chart / "files" / "crds" / "bessemer.dev_adaptationpipelines.yaml"
    crd = YAML(typ="safe").load(file)
    for name in NEW_FIELDS:
        del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][name]
    file.write_text(to_yaml(crd))
    definition = chart / "Chart.yaml"
    definition.write_text(definition.read_text().replace("0.1.0", OLD_VERSION))
    return chart


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Nodes, namespaces, the kubelet of the nodes of attempts; nothing of Bessemer yet."""
    folder = tmp_path_factory.mktemp("chart")
    with ControlPlane.start(folder / "plane") as plane:
        for name in (SYSTEM, TEAM):
            plane.create_namespace(name, RESTRICTED)
        plane.add_node(CPU_NODE, labels={POOL: "cpu"})
        plane.add_node(GPU_NODE, gpus=4, labels={POOL: "gpu"}, taints=["nvidia.com/gpu=present:NoSchedule"])
        plane.add_node(PARKED, labels={POOL: "parked"})
        plane.processes.start(kubelet(plane, folder / "node"))
        yield Site(plane, OperatorNode(plane, SYSTEM, folder / "operator"), folder)


def words(folder: Path) -> Path:
    """A pipeline that prepares data and trains a tokenizer: Jobs of some seconds."""
    mini = write_mini(folder / "words", {"spec.gates": [], "spec.evaluation": {}, "spec.data.texts.prepare": {}})
    document: Obj = YAML(typ="safe").load(mini.file)
    document["metadata"] = {"name": "words", "namespace": TEAM}
    document["spec"]["stages"] = document["spec"]["stages"][:1]
    del document["spec"]["promotion"], document["spec"]["profiles"]
    file = folder / "words.json"
    file.write_text(json.dumps(document))
    return file


def test_it_is_installed_and_its_pod_is_ready(site: Site) -> None:
    site.helm("install", "bessemer", str(older_chart(site.folder)), values=values())
    pod = site.node.run()
    assert pod["spec"]["nodeName"] == PARKED
    site.plane.kubectl(["rollout", "status", "deployment/bessemer-operator", "-n", SYSTEM, "--timeout=120s"])
    assert f"{pod['metadata']['name']} holds the lease" in site.node.log


def test_an_object_of_the_older_schema_is_stored(site: Site) -> None:
    old = edited(PIPELINE, {"metadata.name": "old", "metadata.namespace": TEAM, "spec.suspend": True})
    site.plane.kubectl(["create", "-f", "-"], stdin=json.dumps(old))
    assert not set(NEW_FIELDS) & site.get("apipe", "old")["spec"].keys()


def test_a_pipeline_runs_with_the_rights_of_the_chart(site: Site) -> None:
    site.plane.kubectl(["apply", "-f", str(words(site.folder))])
    wait_for("the pipeline to be Ready", lambda: site.condition("apipe", "words", "Ready")[0] == "True", 300)
    assert "Forbidden" not in site.node.log
    assert "forbidden" not in site.node.log


def test_it_is_upgraded_with_its_crds_and_what_is_stored_stays(site: Site) -> None:
    before = site.get("apipe", "old")
    site.helm("upgrade", "bessemer", str(CHART), values=values())
    site.node.stop()
    site.node.run()
    crd = site.get("crd", "adaptationpipelines.bessemer.dev")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert set(NEW_FIELDS) <= schema["properties"]["spec"]["properties"].keys()
    after = site.get("apipe", "old")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert {key: value for key, value in after["spec"].items() if key not in NEW_FIELDS} == before["spec"]
    assert site.condition("apipe", "old", "Suspended")[0] == "True"
    assert site.condition("apipe", "words", "Ready")[0] == "True"
    assert len(site.get("jobs")["items"]) == len({job["metadata"]["name"] for job in site.get("jobs")["items"]})


def test_an_old_object_takes_a_new_field(site: Site) -> None:
    change = json.dumps({"spec": {"revisionHistoryLimit": 3}})
    site.plane.kubectl(["patch", "apipe", "old", "-n", TEAM, "--type=merge", "-p", change])
    assert site.get("apipe", "old")["spec"]["revisionHistoryLimit"] == 3


def test_the_operator_restarts_when_profiles_change_and_only_then(site: Site) -> None:
    first = site.get("deployment", "bessemer-operator", namespace=SYSTEM)["metadata"]["generation"]
    site.helm("upgrade", "bessemer", str(CHART), values=values())
    assert site.get("deployment", "bessemer-operator", namespace=SYSTEM)["metadata"]["generation"] == first
    changed = values()
    changed["profiles"]["default"]["cpu"] = "2"
    site.helm("upgrade", "bessemer", str(CHART), values=changed)
    site.node.stop()
    pod = site.node.run()
    assert f"{pod['metadata']['name']} holds the lease" in site.node.log


STANDALONE = {"TrainingStage": StageInputs, "MergeJob": MergeInputs, "Evaluation": EvaluationInputs}


def standing_alone(kind: str, profile: str) -> Obj:
    """Work of a kind without a pipeline; its pods are what the test is about."""
    names = {"metadata.name": f"{profile}-{kind.lower()}", "metadata.namespace": TEAM, "spec.profile": profile}
    document = edited(DOCUMENTS[kind], names)
    if kind == "TrainingStage":
        document["spec"] |= {"nodes": 2}
    if profile == "no-room":  # other inputs than the parked one: the same work is not begun twice
        document["spec"]["inputs"] |= {"t": [{"value": [0.25]}]}
    inputs = STANDALONE[kind].model_validate(document["spec"]["inputs"])
    return edited(document, {"spec.inputDigest": input_digest(inputs)})


def pods(site: Site, selector: str) -> list[Obj]:
    found: list[Obj] = site.get("pods", "", f"--selector={selector}")["items"]
    return found


def test_pods_as_the_real_controllers_make_them_pass_pod_security_restricted(site: Site) -> None:
    """Of every kind of work, a gang with its init container among them; none was refused."""
    for kind in STANDALONE:
        site.plane.kubectl(["create", "-f", "-"], stdin=json.dumps(standing_alone(kind, "parked")))
    made = "app.kubernetes.io/managed-by=bessemer,bessemer.dev/attempt"

    def parked() -> list[Obj]:
        return [pod for pod in pods(site, made) if pod["spec"].get("nodeName") == PARKED]

    wait_for("four pods on the parked node", lambda: len(parked()) == 4, 120)
    [worker] = pods(site, WORKER)
    [init] = worker["spec"]["initContainers"]
    assert (init["name"], init["securityContext"]["runAsNonRoot"]) == ("init-pytorch", True)
    events = [item["message"] for item in site.get("events")["items"]]
    assert not [message for message in events if "PodSecurity" in message]


def test_a_pod_without_room_becomes_a_condition_with_the_schedulers_reason(site: Site) -> None:
    site.plane.kubectl(["create", "-f", "-"], stdin=json.dumps(standing_alone("MergeJob", "no-room")))

    def is_stalled() -> bool:
        return site.condition("mergejob", "no-room-mergejob", "Stalled")[0] == "True"

    wait_for("the wait to be a condition", is_stalled, 120)
    _, reason, message = site.condition("mergejob", "no-room-mergejob", "Stalled")
    assert reason == "Unschedulable"
    assert "Insufficient nvidia.com/gpu" in message
    assert "longer than the pendingDeadline of its profile (1s)" in message


def test_an_image_that_can_not_be_pulled_becomes_a_condition(site: Site) -> None:
    """What a kubelet writes about it is written here: this cluster has no images."""
    selector = "bessemer.dev/attempt=parked-evaluation-a1"
    [pod] = pods(site, selector)
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/trainer"'}
    status = {"name": "pytorch", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    change = {"status": {"containerStatuses": [{**status, "state": {"waiting": waiting}}]}}
    target = ["pod", pod["metadata"]["name"], "-n", TEAM, "--subresource=status"]
    site.plane.kubectl(["patch", *target, "--type=strategic", "-p", json.dumps(change)])

    def is_told() -> bool:
        return site.condition("eval", "parked-evaluation", "Stalled")[:2] == ("True", "ImagePullBackOff")

    wait_for("the wait to be a condition", is_told, 120)
    assert "nowhere/trainer" in site.condition("eval", "parked-evaluation", "Stalled")[2]


def test_a_pod_asks_for_what_its_profile_says(site: Site) -> None:
    [pod] = pods(site, "bessemer.dev/attempt=no-room-mergejob-a1")
    spec = pod["spec"]
    assert spec["nodeSelector"] == {POOL: "gpu"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists"} in spec["tolerations"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "64"
    assert (spec["terminationGracePeriodSeconds"], spec["automountServiceAccountToken"]) == (30, False)
    [memory] = [item["emptyDir"] for item in spec["volumes"] if item["name"] == "shm"]
    assert memory == {"medium": "Memory", "sizeLimit": "1Gi"}


def test_it_is_removed_and_the_kinds_and_pipelines_stay(site: Site) -> None:
    store = site.folder / "words" / "store"
    artifacts = {path.relative_to(store) for path in store.rglob("*")}
    site.helm("uninstall", "bessemer")
    site.node.stop()
    assert site.get("deployments", namespace=SYSTEM)["items"] == []
    assert site.condition("apipe", "words", "Ready")[0] == "True"
    left = site.plane.kubectl(["get", "validatingadmissionpolicies,clusterroles", "-o", "name"])
    assert "bessemer" not in left
    assert {path.relative_to(store) for path in store.rglob("*")} == artifacts


def test_it_is_installed_again_and_runs_nothing_again(site: Site) -> None:
    before = {job["metadata"]["uid"] for job in site.get("jobs", "", "--selector=bessemer.dev/pipeline=words")["items"]}
    site.helm("install", "bessemer", str(CHART), values=values())
    site.node.run()
    site.plane.kubectl(["annotate", "apipe", "words", "-n", TEAM, "bessemer.dev/note=again"])
    wait_for("the pipeline to be Ready", lambda: site.condition("apipe", "words", "Ready")[0] == "True", 120)
    after = {job["metadata"]["uid"] for job in site.get("jobs", "", "--selector=bessemer.dev/pipeline=words")["items"]}
    assert after == before
    assert "Traceback" not in site.node.log
