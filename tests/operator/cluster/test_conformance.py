"""The conformance table against the local directory. tests/e2e runs it against a real API server."""

from pathlib import Path

import pytest

from bessemer_operator.cluster.local import LocalCluster
from tests.operator.cluster.conformance import CASES, Case, World


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_the_directory_does_what_an_api_server_does(case: Case, tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    assert await case.steps(World(cluster, "team", "case")) == case.expected
    assert await rebuilt(tmp_path) == await rebuilt(cluster)


async def rebuilt(source: Path | LocalCluster) -> list[object]:
    """Everything in a directory, as a process sees it that opens it now."""
    cluster = LocalCluster(source) if isinstance(source, Path) else source
    kinds = ("ConfigMap", "TrainingStage", "Pod", "Event")
    return [obj for kind in kinds for obj in (await cluster.list(kind)).items]
