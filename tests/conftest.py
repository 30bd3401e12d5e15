"""What test folders share: how tests are dealt out to workers, and the local runs of one tiny pipeline."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.localrun import Ended, Obj, Runner
from tests.support.mini import LEARNING_RATE, WORSE_RATE, Mini, write_mini


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal tests out to pytest-xdist's workers, for `--dist loadgroup --no-loadscope-reorder`.

    A file stays on one worker. All that needs the control plane or the local story stays on one, because these exist
    once a session, and begins first, because it takes longest.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group("cluster" if _is_of_the_cluster(item) else item.path.as_posix()))
    items.sort(key=lambda item: not _is_of_the_cluster(item))


def _is_of_the_cluster(item: pytest.Item) -> bool:
    shared = {"control_plane", "local_story"}.intersection(getattr(item, "fixturenames", ()))
    return bool(shared) or item.get_closest_marker("e2e") is not None


@dataclass(frozen=True)
class Step:
    """One `bessemer run` and what it left: the pipeline, and the names of all attempts."""

    ended: Ended
    pipeline: Obj
    attempts: frozenset[str]


@dataclass(frozen=True)
class LocalStory:
    """The same folder run again and again, as its user would: unchanged, edited, reverted, judged otherwise."""

    mini: Mini
    runner: Runner
    text: str
    """The file as it was applied first, and as it stands there again."""
    first: Step
    again: Step
    edited: Step
    reverted: Step
    underpowered: Step


@pytest.fixture(scope="session")
def local_story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStory]:
    """Five runs, made once a session because each costs a minute; only the first one trains everything."""
    mini = write_mini(tmp_path_factory.mktemp("mini"))
    runner, text = Runner(mini.file), mini.file.read_text()
    first, again = run_once(runner), run_once(runner)
    mini.write({LEARNING_RATE: WORSE_RATE})
    edited = run_once(runner)
    mini.write()
    reverted = run_once(runner)
    # Another channel, still empty, so that the gate compares with the stage; and a margin that no data can show.
    mini.write(
        {
            "spec.gates.0.baseline.channel": "lab",
            "spec.promotion.channels": [{"name": "lab"}],
            "spec.gates.0.axes.0.notWorseThan": 1e-6,
        }
    )
    underpowered = run_once(runner)
    mini.write()
    yield LocalStory(mini, runner, text, first, again, edited, reverted, underpowered)


def run_once(runner: Runner) -> Step:
    ended = runner.run()
    return Step(ended, runner.pipeline(), frozenset(runner.attempts()))
