"""The local controllers against the table of scenarios. tests/e2e runs it against the real ones."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bessemer_operator.cluster import Obj
from bessemer_operator.cluster.local import LocalCluster
from bessemer_operator.executor import run_expander
from tests.operator.executor.scenarios import NODE, POOL, SCENARIOS, Scenario, play


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
