"""The conformance table against a real API server: what the local directory is held to."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from bessemer_operator.cluster.kube import KubeCluster
from tests.operator.cluster.conformance import CASES, Case, World
from tests.support.controlplane import ControlPlane

pytestmark = [
    pytest.mark.e2e,
    # aiohttp advises against bodies over 1 MiB; one case sends one, to see it refused.
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
]

NAMESPACE = "conformance-test"
CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="module")
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    control_plane.kubectl(["apply", "--server-side", "-f", str(CRDS)])
    control_plane.kubectl(["wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS)])
    control_plane.create_namespace(NAMESPACE)
    yield NAMESPACE
    control_plane.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"])


@pytest_asyncio.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[KubeCluster]:
    cluster = await KubeCluster.connect(control_plane.kubeconfig)
    yield cluster
    await cluster.close()


@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)), ids=[case.id for case in CASES])
async def test_the_api_server_does_what_the_table_says(
    cluster: KubeCluster, namespace: str, number: int, case: Case
) -> None:
    assert await case.steps(World(cluster, namespace, f"case-{number}")) == case.expected
