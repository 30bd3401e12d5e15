"""One pipeline in both worlds: on this machine with no cluster, and on a real control plane. Real parts only."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bessemer_operator.cli.problems import EXIT_GATE, EXIT_OK
from bessemer_operator.core.naming import ANNOTATION_REPORT
from tests.conftest import LocalStory, Step
from tests.support.controlplane import ControlPlane
from tests.support.installation import ACCOUNT, CPU_NODE, GPU_NODE, NAMESPACE, Installation, installed
from tests.support.localrun import TRACEBACK, Obj, conditions_of, last_record, outputs_of, summary_of
from tests.support.mini import LEARNING_RATE, WORSE_RATE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TEAM = "both-worlds"


def stages_of(names: frozenset[str]) -> set[str]:
    """The part of each attempt's name that says what it was for."""
    return {name.rpartition("-a")[0].rpartition("-")[0].removeprefix("mini-") for name in names}


def new_work(before: Step, after: Step) -> set[str]:
    return stages_of(after.attempts - before.attempts)


# --- on this machine -------------------------------------------------------------------------------------------


def test_a_local_run_promotes_what_passed_its_gate(local_story: LocalStory) -> None:
    story, pipeline = local_story, local_story.first.pipeline
    [gate] = pipeline["status"]["gates"]
    cpt = outputs_of(pipeline)["cpt"]
    assert (story.first.ended.code, story.first.ended.errors) == (EXIT_OK, "")
    assert story.first.ended.output.splitlines()[-2].startswith(f"Channel prod holds {cpt} (record 1).")
    assert (gate["verdict"], gate["baseline"]) == ("Passed", outputs_of(pipeline)["pre"])
    assert conditions_of(pipeline)["Promoted"] == ("True", "Promoted")


def test_a_second_run_only_looks_at_the_world_again(local_story: LocalStory) -> None:
    assert local_story.again.ended.code == EXIT_OK
    assert new_work(local_story.first, local_story.again) <= {"resolve"}
    assert outputs_of(local_story.again.pipeline) == outputs_of(local_story.first.pipeline)


def test_an_edited_learning_rate_runs_again_what_depends_on_it_and_nothing_else(local_story: LocalStory) -> None:
    before, after = local_story.again, local_story.edited
    assert new_work(before, after) <= {"resolve", "cpt", "eval", "compare", "report"}
    assert {"cpt", "eval", "compare"} <= new_work(before, after)
    changed = dict(outputs_of(after.pipeline).items() - outputs_of(before.pipeline).items())
    assert changed.keys() == {"cpt"}


def test_the_edited_candidate_is_gated_against_the_promoted_one_and_refused(local_story: LocalStory) -> None:
    step, incumbent = local_story.edited, outputs_of(local_story.first.pipeline)["cpt"]
    [gate] = step.pipeline["status"]["gates"]
    assert (gate["verdict"], gate["baseline"], gate["candidate"]) == (
        "Failed",
        incumbent,
        outputs_of(step.pipeline)["cpt"],
    )
    assert step.ended.code == EXIT_GATE
    assert conditions_of(step.pipeline)["Promoted"] == ("False", "GateFailed")
    assert [(item["digest"], item["record"]) for item in step.pipeline["status"]["channels"]] == [(incumbent, 1)]


def test_after_the_edit_is_taken_back_nothing_runs_and_the_promotion_stands(local_story: LocalStory) -> None:
    step = local_story.reverted
    assert step.ended.code == EXIT_OK
    assert new_work(local_story.edited, step) <= {"resolve", "report"}
    assert outputs_of(step.pipeline) == outputs_of(local_story.first.pipeline)
    assert conditions_of(step.pipeline)["Promoted"][0] == "True"


def test_a_gate_that_could_not_show_its_margin_is_invalid_and_promotes_nothing(local_story: LocalStory) -> None:
    step = local_story.underpowered
    [gate] = step.pipeline["status"]["gates"]
    assert (gate["verdict"], gate["reason"]) == ("Invalid", "Underpowered")
    assert step.ended.code == EXIT_GATE
    assert new_work(local_story.reverted, step) <= {"resolve", "compare", "report"}
    assert list((local_story.mini.store / "channels" / "lab").glob("*.json")) == []


def test_the_channel_in_the_store_says_what_the_status_says(local_story: LocalStory) -> None:
    record = last_record(local_story.mini.store, "prod")
    [gate] = local_story.first.pipeline["status"]["gates"]
    assert (record["record"], record["digest"], record["evidence"]) == (1, gate["candidate"], gate["evidenceDigest"])


def test_no_process_is_left_behind_by_local_runs(local_story: LocalStory) -> None:
    assert local_story.runner.left_over() == []


# --- on a cluster ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterStory:
    """The same file on a control plane: applied, then edited to train the same on two nodes."""

    installation: Installation
    first: Obj
    table: str
    edited: Obj
    placed: dict[str, str]
    """Node of each pod by its name, as the scheduler said; also of pods that are gone by now."""
    attempts: list[Obj]

    def pods_of(self, pipeline: Obj, stage: str) -> list[str]:
        """What the pods of a stage's object are called, behind the name of the object."""
        name = next(row["object"] for row in pipeline["status"]["stages"] if row["name"] == stage)
        return sorted(pod.removeprefix(f"{name}-") for pod in self.placed if pod.startswith(f"{name}-a"))


def get_all(plane: ControlPlane, kinds: str) -> list[Obj]:
    found = json.loads(plane.kubectl(["get", kinds, "-n", TEAM, "-o", "json", "--show-managed-fields"]))
    return list(found["items"])


def placements(plane: ControlPlane) -> dict[str, str]:
    """Node by pod, from the events of the scheduler."""
    events = [event for event in get_all(plane, "events") if event["reason"] == "Scheduled"]
    assert {event["reportingComponent"] for event in events} == {"default-scheduler"}
    return {event["involvedObject"]["name"]: event["message"].rpartition(" ")[2] for event in events}


def apply_and_wait(plane: ControlPlane, file: Path, condition: str) -> Obj:
    """What a user does: apply, and wait for what must become of it."""
    plane.kubectl(["apply", "-n", TEAM, "-f", str(file)])
    wanted = [f"--for=condition={condition}", "--timeout=15m", "apipe/mini"]
    plane.kubectl(["wait", "-n", TEAM, *wanted])
    plane.kubectl(["wait", "-n", TEAM, "--for=condition=Reconciling=False", "--timeout=5m", "apipe/mini"])
    return dict(json.loads(plane.kubectl(["get", "apipe", "mini", "-n", TEAM, "-o", "json"])))


@pytest.fixture(scope="module")
def cluster_story(local_story: LocalStory, control_plane: ControlPlane) -> Iterator[ClusterStory]:
    """Into an empty store: that of the local runs stands aside meanwhile."""
    mini, plane = local_story.mini, control_plane
    aside = mini.folder / "store-of-local-runs"
    mini.store.rename(aside)
    plane.create_namespace(TEAM, {"pod-security.kubernetes.io/enforce": "restricted"})
    try:
        with installed(plane) as installation:
            first = apply_and_wait(plane, mini.file, "Promoted")
            table = plane.kubectl(["get", "apipe", "mini", "-n", TEAM])
            on_two_nodes = {"spec.stages.2.nodes": 2, "spec.stages.2.profile": "gpu-1"}
            file = mini.write({LEARNING_RATE: WORSE_RATE, **on_two_nodes}, file="two-nodes.yaml")
            edited = apply_and_wait(plane, file, "Stalled")
            attempts = get_all(plane, "jobs,pytorchjobs")
            yield ClusterStory(installation, first, table, edited, placements(plane), attempts)
    finally:
        mini.store.rename(mini.folder / "store-of-the-cluster")
        aside.rename(mini.store)
        plane.kubectl(["delete", "namespace", TEAM, "--wait=false"])


@pytest.mark.e2e
def test_the_same_file_is_promoted_on_the_cluster_with_equal_digests_and_equal_evidence(
    cluster_story: ClusterStory, local_story: LocalStory
) -> None:
    assert local_story.mini.file.read_text() == local_story.text
    assert conditions_of(cluster_story.first)["Promoted"] == ("True", "Promoted")
    assert summary_of(cluster_story.first) == summary_of(local_story.first.pipeline)


@pytest.mark.e2e
def test_an_edit_that_trains_on_two_nodes_gives_the_same_checkpoint_and_the_same_refusal(
    cluster_story: ClusterStory, local_story: LocalStory
) -> None:
    """Two pods of one rank each, instead of one pod of two: the mathematics is the same."""
    assert summary_of(cluster_story.edited) == summary_of(local_story.edited.pipeline)
    assert cluster_story.pods_of(cluster_story.first, "cpt") == ["a1-master-0"]
    assert cluster_story.pods_of(cluster_story.edited, "cpt") == ["a1-master-0", "a1-worker-0"]


@pytest.mark.e2e
def test_the_scheduler_puts_training_on_gpu_nodes_and_everything_else_on_cpu_nodes(cluster_story: ClusterStory) -> None:
    trains = {name: "-master-" in name or "-worker-" in name for name in cluster_story.placed}
    assert sum(trains.values()) == 4
    assert cluster_story.placed == {name: GPU_NODE if is_training else CPU_NODE for name, is_training in trains.items()}


@pytest.mark.e2e
def test_a_training_pod_asks_for_the_gpus_of_its_profile_and_has_a_rank_for_each(cluster_story: ClusterStory) -> None:
    asked = []
    for job in (item["spec"] for item in cluster_story.attempts if item["kind"] == "PyTorchJob"):
        replicas = job["pytorchReplicaSpecs"].values()
        limits = [each["template"]["spec"]["containers"][0]["resources"]["limits"] for each in replicas]
        asked.append((job["nprocPerNode"], [limit["nvidia.com/gpu"] for limit in limits]))
    assert sorted(asked) == [("1", ["1", "1"]), ("2", ["2"]), ("2", ["2"])]


@pytest.mark.e2e
def test_only_the_scheduler_binds_pods_and_only_controllers_make_them(cluster_story: ClusterStory) -> None:
    by = {"binding": set[str](), "pods": set[str]()}
    for event in cluster_story.installation.plane.audit_events():
        what = event.get("objectRef", {})
        if event["verb"] == "create" and (what.get("resource"), what.get("namespace")) == ("pods", TEAM):
            by[what.get("subresource", "pods")].add(event["user"]["username"])
    assert by == {
        "binding": {"system:kube-scheduler"},
        "pods": {
            "system:serviceaccount:kube-system:job-controller",
            "system:serviceaccount:kubeflow:training-operator",
        },
    }


@pytest.mark.e2e
def test_status_of_attempts_is_written_by_their_controllers_alone_and_what_runs_is_never_changed(
    cluster_story: ClusterStory,
) -> None:
    """After its creation the operator writes one thing to an attempt: the annotation that keeps its report."""
    writers = {"Job": set[tuple[str, str]](), "PyTorchJob": set[tuple[str, str]]()}
    annotated = []
    for attempt in cluster_story.attempts:
        entries = attempt["metadata"]["managedFields"]
        writers[attempt["kind"]] |= {(entry["manager"], entry.get("subresource", "")) for entry in entries}
        annotated += [entry["fieldsV1"] for entry in entries if entry["manager"] == "bessemer-annotate"]
    own = {("bessemer", ""), ("bessemer-annotate", "")}
    assert writers == {
        "Job": {*own, ("kube-controller-manager", "status")},
        "PyTorchJob": {*own, ("training-operator", "status")},
    }
    kept = {"f:metadata": {"f:annotations": {f"f:{ANNOTATION_REPORT}": {}}}}
    assert [fields for fields in annotated if fields != kept] == []
    assert {attempt["metadata"]["generation"] for attempt in cluster_story.attempts} == {1}


@pytest.mark.e2e
def test_kubectl_get_shows_the_columns(cluster_story: ClusterStory) -> None:
    head, row = (line.split() for line in cluster_story.table.splitlines())
    promoted = str(outputs_of(cluster_story.first)["cpt"]).removeprefix("sha256:")[:12]
    assert head == ["NAME", "STAGE", "PROGRESS", "GATE", "PROMOTED", "READY", "AGE"]
    assert row[:-1] == ["mini", "done", "7/7", "Passed", promoted, "True"]


@pytest.mark.e2e
def test_the_operator_meets_no_error_and_is_refused_nothing(cluster_story: ClusterStory) -> None:
    log = cluster_story.installation.operator_log
    account = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
    refused = [
        (event["verb"], event["requestURI"])
        for event in cluster_story.installation.plane.audit_events()
        if event["user"]["username"] == account and event["responseStatus"]["code"] == 403
    ]
    assert (refused, [line for line in log.splitlines() if TRACEBACK in line or "[ERROR" in line]) == ([], [])
