"""One tiny trained world for all tests of this folder; nothing in it is mocked. Tests must not change its artifacts."""

import pytest

from tests.trainer.evaluation.tiny import World, build_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))
