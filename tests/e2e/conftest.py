"""End-to-end tests run on one real control plane a session. Nothing is mocked; only a kubelet is missing."""

from collections.abc import Iterator

import pytest

from tests.support.controlplane import ControlPlane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane; each test works in a namespace of its own."""
    with ControlPlane.start(tmp_path_factory.mktemp("controlplane")) as plane:
        yield plane
