"""docs/conditions.md holds: in every situation the real kubectl waits for what the page says, on a real API server.

The real reconcile plays each situation; its status is then that of a pipeline in the cluster.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controlplane import ControlPlane, KubectlError
from tests.support.situations import ELSEWHERE, SITUATIONS, table
from tests.support.world import World, memory_folder

CRDS = Path(__file__).parents[2] / "crds"
NAMESPACE = "conditions-test"
KEYS = ("apiVersion", "kind", "spec")


def test_every_situation_of_the_page_is_played_or_tested_elsewhere() -> None:
    assert table().keys() == SITUATIONS.keys() | ELSEWHERE.keys()


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.kubectl(["apply", "--server-side", "-f", str(CRDS)])
    control_plane.kubectl(["wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS)])
    control_plane.create_namespace(NAMESPACE)
    yield control_plane
    control_plane.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"])


@pytest.mark.e2e
@pytest.mark.parametrize("situation", SITUATIONS)
async def test_kubectl_waits_for_what_the_page_says(cluster: ControlPlane, situation: str) -> None:
    with memory_folder() as folder:
        world = World(folder / "cluster")
        await SITUATIONS[situation](world)
        pipeline = await world.pipeline()
        await world.cluster.close()
    name = re.sub(r"[^a-z]+", "-", situation.lower()).strip("-")[:40].strip("-")
    found = {item["type"]: item for item in pipeline["status"]["conditions"]}
    wanted = table()[situation]
    assert {kind for kind, item in wanted.items() if not item.is_met_by(found.get(kind))} == set(), found

    target = ["apipe", name, f"--namespace={NAMESPACE}"]
    metadata = {"name": name, "namespace": NAMESPACE}
    cluster.apply({**{key: pipeline[key] for key in KEYS}, "metadata": metadata})
    patch = ["patch", *target, "--subresource=status", "--type=merge", "-p"]
    cluster.kubectl([*patch, json.dumps({"status": pipeline["status"]})])
    promoted = wanted.get("Promoted")
    for kind, item in wanted.items():
        if kind in {"Ready", "Promoted"}:
            cluster.kubectl(["wait", *target, f"--for=condition={kind}={item.status}", "--timeout=30s"])
    if promoted is not None and promoted.status != "True":
        with pytest.raises(KubectlError, match="timed out"):
            cluster.kubectl(["wait", *target, "--for=condition=Promoted", "--timeout=1ms"])
