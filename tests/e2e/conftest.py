"""End-to-end tests run on one real control plane a session. Nothing is mocked; only a kubelet is missing."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.support.controlplane import BuildError, ControlPlane, find_programs
from tests.support.s3 import S3Server


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane, where needed, before the first test: it takes longer than a test may."""
    is_needed = any("control_plane" in getattr(item, "fixturenames", ()) for item in session.items)
    if not is_needed or session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    # Progress is shown as it comes. A failed build is met again, and reported, by the fixture.
    with capture.global_and_fixture_disabled(), contextlib.suppress(BuildError):
        find_programs()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane; each test works in a namespace of its own."""
    with ControlPlane.start(tmp_path_factory.mktemp("controlplane")) as plane:
        yield plane


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """A real S3 server, for the tests of one file."""
    with S3Server.start() as running:
        yield running
