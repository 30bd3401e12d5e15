"""What test folders share: how tests are dealt out to workers, and the local runs of one tiny pipeline."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.localrun import Ended, Obj, Runner
from tests.support.mini import LEARNING_RATE, WORSE_RATE, Mini, write_mini

SHARED = ("control_plane", "local_story")
"""Fixtures of which there is one a session, because they cost minutes. No file should need both."""


class FileScheduling(LoadScopeScheduling):
    """A file stays on one worker of pytest-xdist; so do all files that share a fixture that exists once.

    (Its own `--dist loadgroup` does nothing under pytest 9.2: it writes an attribute that pytest no longer reads.)
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _shared_by(str(self.config.rootpath / file)) or file


@cache
def _shared_by(file: str) -> str:
    """Which of the shared fixtures a file needs; the empty word for none."""
    text = Path(file).read_text()
    return next((name for name in SHARED if name in text), "")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    return FileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: all that needs a control plane, of its own or the session's."""
    items.sort(key=lambda item: (item.get_closest_marker("e2e") is None, not _shared_by(str(item.path))))


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


class Failures:
    """Says at once what failed: the summary of a run of an hour comes an hour later."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if report.failed and reporter is not None:
            reporter.write_line(f"\n{report.outcome}, {report.when}: {report.nodeid}")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Failures(config))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each fault that was provoked, with its seed and what came of it."""
    found = [
        (str(value), outcome)
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, value in getattr(report, "user_properties", ())
        if name == "fault" and report.when == "call"
    ]
    if found:
        terminalreporter.section("faults")
        for text, outcome in sorted(found):
            terminalreporter.line(f"{outcome:6}  {text}")
