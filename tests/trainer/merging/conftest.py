"""One family of trained models for all tests of merging."""

import pytest

from tests.trainer.merging.world import Family, build_family


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return build_family(tmp_path_factory.mktemp("family"))
