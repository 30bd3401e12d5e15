"""What the real training-operator makes of an attempt that is suspended and resumed, as a queue does it; what we count.

The queue itself is in test_kueue.py; here its writes are made by the test.
"""

import json
from collections.abc import Iterator

import pytest

from tests.support.controlplane import ControlPlane, wait_for
from tests.support.installation import PROFILES
from tests.support.queues import PATIENCE, Site, site_on

pytestmark = pytest.mark.e2e
SPACE = "suspension"


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ControlPlane.start(tmp_path_factory.mktemp("suspension")) as plane, site_on(plane, PROFILES) as made:
        plane.create_namespace(SPACE)
        yield made


def suspend(site: Site, wanted: bool) -> None:
    """Write the field as Kueue does, and wait until training-operator has seen it."""
    [job] = site.jobs("calm", SPACE)
    patch = json.dumps({"spec": {"runPolicy": {"suspend": wanted}}})
    site.plane.kubectl(["patch", "pytorchjob", job["metadata"]["name"], "-n", SPACE, "--type=merge", "-p", patch])

    def is_seen() -> bool:
        [job] = site.jobs("calm", SPACE)
        held = {item["type"]: item["status"] for item in job["status"]["conditions"]}
        return held.get("Suspended") == str(wanted)

    wait_for(f"training-operator to see suspend={wanted}", is_seen, PATIENCE)


def test_an_attempt_goes_on_after_a_preemption_and_the_next_one_after_a_hasty_return(site: Site) -> None:
    site.held.add("calm")
    site.apply("calm", SPACE, "gpu-2")
    wait_for("an attempt", lambda: site.jobs("calm", SPACE), PATIENCE)
    for preemptions in (0, 1):  # held back as soon as it is made, then preempted
        suspend(site, True)
        site.await_reason("calm", SPACE, "Reconciling", "Queued")
        assert site.attempts("calm", SPACE) == [("Running", preemptions)]
        wait_for("the pods to be gone", lambda: not site.pods("calm", SPACE), PATIENCE)
        suspend(site, False)
        site.await_gang("calm", SPACE)
        site.await_reason("calm", SPACE, "Reconciling", "Running")
    assert site.attempts("calm", SPACE) == [("Running", 1)]

    site.saving = True
    suspend(site, True)
    suspend(site, False)
    wait_for("the attempt to be over", lambda: site.attempts("calm", SPACE) == [("Preempted", 2)], PATIENCE)
    [job] = site.jobs("calm", SPACE)
    ended = {item["type"] for item in job["status"]["conditions"] if item["status"] == "True"}
    assert "Failed" in ended, "training-operator took pods that save for pods that failed"
    assert site.training("calm", SPACE)["phase"] == "Pending", "the pods still save"
    site.saving = False
    site.await_gang("calm", SPACE)
    site.held.discard("calm")
    site.await_done("calm", SPACE)
    assert site.attempts("calm", SPACE) == [("Preempted", 2), ("Succeeded", 0)]
    assert site.training("calm", SPACE)["preemptions"] == 2
