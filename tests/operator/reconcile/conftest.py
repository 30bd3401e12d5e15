"""Worlds for tests of the operator: see tests/support/world.py for what is real in them and what is played."""

import pytest

from tests.api.documents import PIPELINE
from tests.support.world import World


@pytest.fixture
async def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which the pipeline `poems` has been applied and nothing has happened yet."""
    world = World(tmp_path_factory.mktemp("world") / "cluster")
    await world.apply(PIPELINE)
    return world
