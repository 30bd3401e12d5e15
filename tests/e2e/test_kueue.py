"""A real Kueue before our attempts: it lets them run, takes their pods, gives them back; and what is said meanwhile.

Kueue, training-operator, scheduler and operator are real. Pods are played, so that it is the test that says how long
they train, and how long they save when they are told to stop. The queues are those of examples/kueue.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bessemer_operator.core.naming import LABEL_QUEUE
from tests.support.controlplane import ControlPlane, wait_for
from tests.support.kueue import find_kueue, start_kueue
from tests.support.queues import PATIENCE, Site, site_on

REASON = "Kueue has not been built: `make platform`"
pytestmark = [pytest.mark.platform, pytest.mark.skipif(find_kueue() is None, reason=REASON)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "kueue"
GANG = YAML(typ="safe").load(EXAMPLE / "values.yaml")["profiles"]["gang"]
DEFAULT = {"cpu": "1", "memory": "1Gi", "nodeSelector": {"bessemer.dev/pool": "cpu"}}
PROFILES: dict[str, Any] = {
    "default": DEFAULT,
    "gang": GANG,
    "urgent": {**GANG, "priorityClass": "urgent"},
    "lost": {**GANG, "queue": "nowhere"},
    "unranked": {**GANG, "priorityClass": "unheard-of"},
}
TEAM, OTHERS = "team-a", "team-b"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ControlPlane.start(tmp_path_factory.mktemp("kueue")) as plane:
        start_kueue(plane)
        for space in (TEAM, OTHERS):
            plane.create_namespace(space)
        plane.kubectl(["apply", "--server-side", "-f", str(EXAMPLE / "queues.yaml")])
        with site_on(plane, PROFILES) as made:
            yield made


def test_kueue_lets_a_gang_run_and_preparation_runs_beside_the_queue(site: Site) -> None:
    site.held.add("calm")
    site.apply("calm", TEAM, "gang")
    site.await_gang("calm", TEAM)
    [job] = site.jobs("calm", TEAM)
    conditions = {item["type"]: item["reason"] for item in job["status"]["conditions"]}
    assert conditions["Suspended"] == "PyTorchJobResumed", "it was held back when it was made"
    [workload] = site.plane.get(f"/apis/kueue.x-k8s.io/v1beta1/namespaces/{TEAM}/workloads")["items"]
    usage = [item["resourceUsage"]["nvidia.com/gpu"] for item in workload["status"]["admission"]["podSetAssignments"]]
    assert (workload["metadata"]["ownerReferences"][0]["uid"], usage) == (job["metadata"]["uid"], ["2", "2"])
    prepared = site.every("jobs", TEAM)
    assert prepared
    assert [item for item in prepared if LABEL_QUEUE in item["metadata"]["labels"]] == []


def test_an_operator_with_other_profiles_leaves_the_running_attempt_as_it_is(site: Site) -> None:
    before, pods = site.jobs("calm", TEAM), {pod["metadata"]["uid"] for pod in site.running("calm", TEAM)}
    processes = site.plane.processes
    processes.stop("operator", signal.SIGTERM)
    file = Path(processes._programs["operator"].env["BESSEMER_PROFILES"])
    changed = {**PROFILES, "gang": {**GANG, "image": "bessemer-trainer:next", "memory": "20Gi"}}
    file.write_text(json.dumps(changed))
    processes.restart("operator")
    site.apply("after", TEAM, "gang")  # what is applied now is worked on: so is everything that was there before
    wait_for("the new operator to make an attempt", lambda: site.jobs("after", TEAM), PATIENCE)
    for found, known in zip(site.jobs("calm", TEAM), before, strict=True):
        assert {**found["metadata"], "managedFields": []} == {**known["metadata"], "managedFields": []}
        assert (found["spec"], found["status"]) == (known["spec"], known["status"])
    assert {pod["metadata"]["uid"] for pod in site.running("calm", TEAM)} == pods
    site.await_reason("after", TEAM, "Reconciling", "Queued", "waits in queue training")
    site.plane.kubectl(["delete", "apipe", "after", "-n", TEAM])


def test_a_preemption_is_counted_apart_and_told_and_costs_no_attempt(site: Site) -> None:
    site.saving = True
    site.held.add("storm")
    site.apply("storm", OTHERS, "urgent")
    site.await_suspended("calm", TEAM)
    site.await_reason("calm", TEAM, "Reconciling", "Queued", "waits in queue training")  # not yet while it is evicted
    site.saving = False
    site.await_gang("storm", OTHERS)
    assert site.attempts("calm", TEAM) == [("Running", 1)]
    assert site.training("calm", TEAM)["preemptions"] == 1
    events = site.plane.get(f"/api/v1/namespaces/{TEAM}/events")["items"]
    told = [item["message"] for item in events if item["reason"] == "AttemptPreempted"]
    assert len(told) == 1
    assert "its queue took its pods" in told[0]


def test_it_is_let_in_again_and_the_same_attempt_ends_with_its_report(site: Site) -> None:
    [before] = site.jobs("calm", TEAM)
    site.held.discard("storm")
    site.await_done("storm", OTHERS)
    site.await_gang("calm", TEAM)
    site.held.discard("calm")
    site.await_done("calm", TEAM)
    [job] = site.jobs("calm", TEAM)
    assert job["metadata"]["uid"] == before["metadata"]["uid"]
    assert site.attempts("calm", TEAM) == [("Succeeded", 1)]
    assert site.training("calm", TEAM)["outputDigest"]


def test_a_gang_that_is_let_in_while_its_old_pods_still_save_goes_on_as_the_next_attempt(site: Site) -> None:
    """training-operator takes the old pods for failed ones. Nothing of that is a failure of the work."""
    site.held |= {"trap", "squall"}
    site.apply("trap", TEAM, "gang")
    site.await_gang("trap", TEAM)
    site.saving = True
    site.apply("squall", OTHERS, "urgent")
    site.await_suspended("trap", TEAM)
    site.plane.kubectl(["delete", "apipe", "squall", "-n", OTHERS])
    wait_for("the first attempt to be over", lambda: site.attempts("trap", TEAM) == [("Preempted", 1)], PATIENCE)
    assert site.training("trap", TEAM)["phase"] == "Pending", "its pods still save"
    site.saving = False
    site.await_gang("trap", TEAM)
    assert [item[0] for item in site.attempts("trap", TEAM)] == ["Preempted", "Running"]
    site.held.discard("trap")
    site.await_done("trap", TEAM)
    assert site.attempts("trap", TEAM) == [("Preempted", 1), ("Succeeded", 0)]
    assert site.training("trap", TEAM)["preemptions"] == 1


def test_a_queue_that_does_not_exist_is_a_condition_until_it_does(site: Site) -> None:
    site.apply("lost", TEAM, "lost")
    site.await_reason("lost", TEAM, "Stalled", "QueueUnusable", "LocalQueue nowhere doesn't exist")
    queue = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "LocalQueue", "spec": {"clusterQueue": "gpus"}}
    site.plane.apply({**queue, "metadata": {"name": "nowhere", "namespace": TEAM}})
    site.await_done("lost", TEAM)
    assert site.attempts("lost", TEAM) == [("Succeeded", 0)]


def test_a_priority_class_that_does_not_exist_is_a_condition(site: Site) -> None:
    site.apply("unranked", TEAM, "unranked")
    said = site.await_reason("unranked", TEAM, "Stalled", "NotQueued")
    assert "PriorityClass unheard-of does not exist: make it" in said
    site.plane.kubectl(["delete", "apipe", "unranked", "-n", TEAM])


def test_while_kueue_is_down_attempts_wait_and_nothing_is_lost(site: Site) -> None:
    site.held.add("late")
    site.plane.stop_component("kueue")
    site.apply("late", TEAM, "gang")

    def says_so() -> bool:
        found = site.plane.get(f"/apis/bessemer.dev/v1alpha1/namespaces/{TEAM}/adaptationpipelines/late")
        conditions = (found.get("status") or {}).get("conditions") or []
        return any(item["reason"] == "WebhookDown" for item in conditions)

    wait_for("the pipeline to say that a webhook is down", says_so, PATIENCE)
    site.plane.start_component("kueue")
    site.await_gang("late", TEAM)
    site.held.discard("late")
    site.await_done("late", TEAM)
    assert site.attempts("late", TEAM) == [("Succeeded", 0)]
    assert "Traceback" not in site.bessemer.operator_log
