"""Three tiny trained worlds for all tests of this folder; nothing is mocked. Tests must not change their artifacts."""

import pytest

from tests.trainer.evaluation import habits as manners
from tests.trainer.evaluation import taught as lessons
from tests.trainer.evaluation.habits import Habits
from tests.trainer.evaluation.taught import Taught
from tests.trainer.evaluation.tiny import World, build_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    return lessons.build(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="session")
def habits(tmp_path_factory: pytest.TempPathFactory) -> Habits:
    return manners.build(tmp_path_factory.mktemp("habits"))
