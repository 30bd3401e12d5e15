"""One family of trained models for all tests of merging.

Importing mergekit takes seconds, so the engine runs inside of the tests' process, by the same function; as the process
of its own that it is, it runs in the test of a pod (test_merge_pod.py).
"""

import os
from pathlib import Path

import pytest

from bessemer_trainer.context import Context
from bessemer_trainer.merging import engine
from bessemer_trainer.stages import merge
from tests.trainer.merging.world import Family, build_family


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings of the libraries that mergekit imports are theirs; in its own process nobody turns them into errors."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return build_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(autouse=True)
def engine_in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own `main`, without the start of another interpreter."""
    if request.module.__name__.endswith("test_merge_pod"):
        return
    monkeypatch.setattr(merge, "_run_engine", run_here)


def run_here(context: Context, job: Path, method: str) -> None:
    from mergekit.io.tasks import LoaderCache

    LoaderCache().loaders.clear()  # by relative names, which mean other files in each merge
    before = Path.cwd()
    try:
        engine.main(job)
    finally:
        os.chdir(before)
