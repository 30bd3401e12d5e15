"""The local controllers against the table of scenarios. tests/e2e runs it against the real ones."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bessemer_operator.cluster import Obj, WatchEvent, ref_of
from bessemer_operator.cluster.local import LocalCluster
from bessemer_operator.executor import run_expander
from bessemer_operator.executor.expand import KINDS, handle
from tests.operator.executor.scenarios import NODE, POOL, SCENARIOS, Scenario, act, job, play, pytorchjob, reached


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """A directory with a node and controllers, and no kubelet."""
    cluster, stop = LocalCluster(tmp_path), asyncio.Event()
    cluster.claim()
    node: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": POOL}}
    await cluster.create(node)
    resources = {"cpu": "8", "memory": "8Gi", "pods": "110"}
    await cluster.apply_status({**node, "status": {"allocatable": resources}}, "kubelet")
    task = asyncio.create_task(run_expander(cluster, stop))
    yield cluster
    stop.set()
    await task
    await cluster.close()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
async def test_jobs_become_what_the_real_controllers_make_of_them(scenario: Scenario, cluster: LocalCluster) -> None:
    assert await play(cluster, scenario, "team") == {"status": scenario.status, "pods": scenario.pods}
    before = (await cluster.list("Pod")).resource_version
    for obj in [obj for kind in KINDS for obj in (await cluster.list(kind)).items]:
        await handle(cluster, WatchEvent("MODIFIED", obj))
    assert (await cluster.list("Pod")).resource_version == before, "what is level is written again"


async def test_a_deleted_job_takes_its_pods_and_their_finalizers_with_it(cluster: LocalCluster) -> None:
    ref = ref_of(await cluster.create({**job("goes"), "metadata": {"name": "goes", "namespace": "team"}}))
    await act(cluster, await cluster.get(ref), "run", "0")
    await act(cluster, await cluster.get(ref), "succeed", "0")
    await reached(cluster, ref, "Complete")
    await cluster.delete(ref)
    async with asyncio.timeout(30):
        while (await cluster.list("Pod")).items:
            await asyncio.sleep(0.02)


REFUSED = [
    pytest.param(job("r", activeDeadlineSeconds=5), "spec.activeDeadlineSeconds is not supported", id="a deadline"),
    pytest.param(job("r", template={}), "KeyError: 'spec'", id="a template without a spec"),
    pytest.param(pytorchjob("r", elasticPolicy={"minReplicas": 1}), "no elasticPolicy", id="an elastic policy"),
    pytest.param(
        pytorchjob("r", pytorchReplicaSpecs={"Worker": {}}), "supports a Master with Workers", id="workers alone"
    ),
    pytest.param(
        pytorchjob("r", pytorchReplicaSpecs={"Master": {"template": {"spec": {"containers": []}}}}),
        "restartPolicy: a local run supports Never only",
        id="another restart policy",
    ),
    pytest.param(
        pytorchjob(
            "r",
            pytorchReplicaSpecs={
                "Master": {"restartPolicy": "Never", "template": {"spec": {"containers": [{"name": "x"}]}}}
            },
        ),
        "no container named pytorch",
        id="no container pytorch",
    ),
]


@pytest.mark.parametrize(("manifest", "expected"), REFUSED)
async def test_what_a_local_run_can_not_do_is_said_in_an_event(
    manifest: Obj, expected: str, cluster: LocalCluster
) -> None:
    await cluster.create({**manifest, "metadata": {**manifest["metadata"], "namespace": "team"}})
    async with asyncio.timeout(30):
        while not (events := (await cluster.list("Event")).items):
            await asyncio.sleep(0.02)
    assert expected in events[0]["message"]
    assert (await cluster.list("Pod")).items == ()
