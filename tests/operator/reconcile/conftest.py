"""Worlds for tests of the operator: see tests/support/world.py for what is real in them and what is played."""

from collections.abc import AsyncIterator

import pytest

from tests.api.documents import PIPELINE
from tests.support.world import World, memory_folder


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world in which the pipeline `poems` has been applied and nothing has happened yet."""
    with memory_folder() as folder:
        world = World(folder / "cluster")
        await world.apply(PIPELINE)
        yield world
