"""The whole pipeline in both worlds: on this machine with no cluster, and on a real control plane. Real parts only.

Tokenizer, pretraining, CPT, SFT, ORPO and DPO as branches, a merge with its control, a nominee chosen on dev items, a
gate, a promotion; then an edit that is refused. What the two worlds decide is equal, and what they store is equal bit
for bit, but for times and the namespace in a record.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bessemer_operator.cli.problems import EXIT_GATE, EXIT_OK
from bessemer_operator.core.naming import ANNOTATION_REPORT
from tests.conftest import Step, run_once
from tests.support import worlds
from tests.support.controlplane import ControlPlane
from tests.support.installation import ACCOUNT, CPU_NODE, GPU_NODE, NAMESPACE, Installation, installed
from tests.support.localrun import TRACEBACK, Obj, Runner, conditions_of, outputs_of
from tests.support.mini import Mini
from tests.support.whole import BRANCHES, EDITS, RETRAINED, write_whole

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(7200)]

TEAM = "both-worlds"
CANDIDATES = {"slerp", *BRANCHES}
KINDS = {"bank", "data", "tokenizer", "mixture", "checkpoint", "evaluation", "comparison", "release"}
"""Kinds of artifacts; of each at least one is compared, byte by byte."""


# --- on this machine -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalWorld:
    """A run, the run of the edited file, and what both left in the store."""

    mini: Mini
    store: Path
    first: Step
    edited: Step


@pytest.fixture(scope="module")
def local_world(tmp_path_factory: pytest.TempPathFactory) -> LocalWorld:
    """The store is moved out of the way: the cluster works in an empty one at the same place."""
    mini = write_whole(tmp_path_factory.mktemp("whole"))
    runner, aside = Runner(mini.file), mini.folder / "store-of-local-runs"
    first = run_once(runner)
    mini.write(EDITS)
    edited = run_once(runner)
    mini.write()
    mini.store.rename(aside)
    return LocalWorld(mini, aside, first, edited)


def test_one_of_three_candidates_is_chosen_on_dev_items_and_promoted(local_world: LocalWorld) -> None:
    status = local_world.first.pipeline["status"]
    states = {row["name"]: row["state"] for row in status["candidates"]}
    nominee = status["nomination"]
    [gate] = status["gates"]
    assert local_world.first.ended.code == EXIT_OK, local_world.first.ended.errors
    assert states == {name: "Nominee" if name == nominee["name"] else "NotChosen" for name in CANDIDATES}
    assert (gate["verdict"], gate["candidate"]) == ("Passed", nominee["digest"])
    assert gate["baseline"] == outputs_of(local_world.first.pipeline)["pre"]
    assert [(item["digest"], item["record"]) for item in status["channels"]] == [(nominee["digest"], 1)]
    assert conditions_of(local_world.first.pipeline)["Promoted"] == ("True", "Promoted")


def test_synergy_of_the_merge_is_stated_against_its_control_and_its_parents(local_world: LocalWorld) -> None:
    [merge] = local_world.first.pipeline["status"]["merges"]
    assert (merge["name"], merge["control"], merge["synergy"]) == ("slerp", "slerp-linear", merge["synergy"])
    assert merge["synergy"] in {"shown", "none"}, "it was measured"


def test_a_branch_that_learns_nothing_more_is_refused_against_what_was_promoted(local_world: LocalWorld) -> None:
    [gate] = local_world.edited.pipeline["status"]["gates"]
    incumbent = local_world.first.pipeline["status"]["nomination"]["digest"]
    assert local_world.edited.ended.code == EXIT_GATE
    assert (gate["verdict"], gate["baseline"]) == ("Failed", incumbent)
    assert gate["candidate"] == outputs_of(local_world.edited.pipeline)["orpo"]
    assert conditions_of(local_world.edited.pipeline)["Promoted"] == ("False", "GateFailed")


# --- on a cluster ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterStory:
    """The same file on a control plane: applied, then edited to train the same on two nodes."""

    installation: Installation
    store: Path
    text: str
    """The file as it was applied first."""
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
    wanted = [f"--for=condition={condition}", "--timeout=60m", "apipe/mini"]
    plane.kubectl(["wait", "-n", TEAM, *wanted])
    plane.kubectl(["wait", "-n", TEAM, "--for=condition=Reconciling=False", "--timeout=30m", "apipe/mini"])
    return dict(json.loads(plane.kubectl(["get", "apipe", "mini", "-n", TEAM, "-o", "json"])))


@pytest.fixture(scope="module")
def cluster_story(local_world: LocalWorld, control_plane: ControlPlane) -> Iterator[ClusterStory]:
    """The same folder, with an empty store. The edit is that of the local run, and asks for two nodes besides."""
    mini, plane = local_world.mini, control_plane
    text = mini.file.read_text()
    plane.create_namespace(TEAM, {"pod-security.kubernetes.io/enforce": "restricted"})
    try:
        with installed(plane) as installation:
            first = apply_and_wait(plane, mini.file, "Promoted")
            table = plane.kubectl(["get", "apipe", "mini", "-n", TEAM])
            on_two_nodes = {f"{RETRAINED}.nodes": 2, f"{RETRAINED}.profile": "gpu-1"}
            edited = apply_and_wait(plane, mini.write({**EDITS, **on_two_nodes}, file="two-nodes.yaml"), "Stalled")
            attempts = get_all(plane, "jobs,pytorchjobs")
            yield ClusterStory(installation, mini.store, text, first, table, edited, placements(plane), attempts)
    finally:
        plane.kubectl(["delete", "namespace", TEAM, "--wait=false"])


def test_the_same_file_leads_to_the_same_digests_choices_verdict_and_conditions(
    cluster_story: ClusterStory, local_world: LocalWorld
) -> None:
    assert local_world.mini.file.read_text() == cluster_story.text
    assert conditions_of(cluster_story.first)["Promoted"] == ("True", "Promoted")
    assert worlds.decided(cluster_story.first) == worlds.decided(local_world.first.pipeline)


def test_an_edit_that_trains_on_two_nodes_gives_the_same_checkpoint_and_the_same_refusal(
    cluster_story: ClusterStory, local_world: LocalWorld
) -> None:
    """Two pods of one rank each, instead of one pod of two: the mathematics is the same."""
    assert worlds.decided(cluster_story.edited) == worlds.decided(local_world.edited.pipeline)
    assert cluster_story.pods_of(cluster_story.first, "orpo") == ["a1-master-0"]
    assert cluster_story.pods_of(cluster_story.edited, "orpo") == ["a1-master-0", "a1-worker-0"]


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(worlds.artifacts, id="every file of every artifact"),
        pytest.param(worlds.results, id="what each piece of work made"),
        pytest.param(worlds.losses, id="the loss of every step"),
        pytest.param(worlds.channel_files, id="records and tries but for time and namespace"),
    ],
)
def test_both_stores_hold_the_same_bit_for_bit(
    cluster_story: ClusterStory, local_world: LocalWorld, part: Callable[[Path], dict[str, Any]]
) -> None:
    here, there = part(local_world.store), part(cluster_story.store)
    assert here
    assert sorted(here) == sorted(there)
    assert [name for name, content in here.items() if there[name] != content] == []


def test_artifacts_of_every_kind_were_compared(local_world: LocalWorld) -> None:
    assert worlds.kinds(local_world.store) == KINDS


def test_no_process_is_left_behind_by_local_runs(local_world: LocalWorld) -> None:
    assert Runner(local_world.mini.file).left_over() == []


def test_the_scheduler_puts_training_on_gpu_nodes_and_everything_else_on_cpu_nodes(cluster_story: ClusterStory) -> None:
    trains = {name: "-master-" in name or "-worker-" in name for name in cluster_story.placed}
    assert sum(trains.values()) == 7, "five stages, and one of them again on two nodes"
    assert cluster_story.placed == {name: GPU_NODE if is_training else CPU_NODE for name, is_training in trains.items()}


def test_a_training_pod_asks_for_the_gpus_of_its_profile_and_has_a_rank_for_each(cluster_story: ClusterStory) -> None:
    asked = []
    for job in (item["spec"] for item in cluster_story.attempts if item["kind"] == "PyTorchJob"):
        replicas = job["pytorchReplicaSpecs"].values()
        limits = [each["template"]["spec"]["containers"][0]["resources"]["limits"] for each in replicas]
        asked.append((job["nprocPerNode"], [limit["nvidia.com/gpu"] for limit in limits]))
    assert sorted(asked) == [("1", ["1", "1"]), *[("2", ["2"])] * 5]


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


def test_kubectl_get_shows_the_columns(cluster_story: ClusterStory) -> None:
    head, row = (line.split() for line in cluster_story.table.splitlines())
    promoted = str(cluster_story.first["status"]["nomination"]["digest"]).removeprefix("sha256:")[:12]
    assert head == ["NAME", "STAGE", "PROGRESS", "GATE", "PROMOTED", "READY", "AGE"]
    assert row[:-1] == ["mini", "done", "17/17", "Passed", promoted, "True"]


def test_the_operator_meets_no_error_and_is_refused_nothing(cluster_story: ClusterStory) -> None:
    log = cluster_story.installation.operator_log
    account = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
    refused = [
        (event["verb"], event["requestURI"])
        for event in cluster_story.installation.plane.audit_events()
        if event["user"]["username"] == account and event["responseStatus"]["code"] == 403
    ]
    assert (refused, [line for line in log.splitlines() if TRACEBACK in line or "[ERROR" in line]) == ([], [])
