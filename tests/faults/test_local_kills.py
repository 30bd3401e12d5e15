"""A local run is killed at several moments of one pipeline, and goes on each time, to the very same result.

The moments are real ones: SIGKILL of the runner, of one of two ranks under ZeRO-3 with packed data, and of everything
at once. What holds then: nothing is left running; every artifact equals that of the run that nobody disturbed.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import SystemRandom

import pytest

from bessemer_operator.cli.problems import EXIT_OK
from tests.conftest import LocalStory
from tests.support.localrun import Ended, Obj, Runner, conditions_of, summary_of
from tests.support.mini import STEPS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

Process = subprocess.Popen[str]


@dataclass(frozen=True)
class KilledStory:
    """How the disturbed run ended, and at which steps training was hit."""

    runner: Runner
    ended: Ended
    steps: dict[str, int]

    def stage(self, name: str) -> Obj:
        """The TrainingStage of that name."""
        found = self.runner.objects("TrainingStage")
        return next(item for item in found if item["metadata"]["labels"]["bessemer.dev/stage"] == name)

    def outcomes(self, name: str) -> list[tuple[int, str]]:
        """Number and outcome of each attempt of a stage."""
        return [(item["number"], item["outcome"]) for item in self.stage(name)["status"]["attempts"]]

    def logs(self, name: str) -> str:
        """All that the pods of a stage wrote."""
        folders = (self.runner.state / "node" / "pods").glob(f"*_mini-{name}-??????????-a*")
        return "".join(path.read_text() for folder in folders for path in folder.glob("*.log"))


def kill_everything(runner: Runner, process: Process) -> None:
    """The runner first, so that it can not take note of how the others end; then all at once."""
    for pid in (process.pid, *runner.left_over()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()
    runner.await_quiet()


@pytest.fixture(scope="module")
def killed_story(local_story: LocalStory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledStory]:
    """One pipeline, over the data of the undisturbed one, with a store and a state folder of its own."""
    folder = tmp_path_factory.mktemp("killed")
    edits = {"spec.store": f"file://{folder}/store"}
    runner = Runner(local_story.mini.write(edits, file=str(folder / "pipeline.yaml")))
    steps = {stage: SystemRandom().randint(1, STEPS - 4) for stage in ("pre", "cpt")}
    kill_at(runner, "data-texts")
    with started(runner) as process:
        victim = SystemRandom().choice(runner.await_ranks("pre", 2))
        runner.await_step("pre", 100 * steps["pre"] // STEPS)
        os.kill(victim, signal.SIGKILL)  # the runner goes on by itself
        runner.await_ranks("cpt", 2)
        runner.await_step("cpt", 100 * steps["cpt"] // STEPS)
        kill_everything(runner, process)
    kill_at(runner, "eval")
    kill_at(runner, "promote")
    yield KilledStory(runner, runner.run(), steps)


def kill_at(runner: Runner, part: str) -> None:
    """Start, and SIGKILL the runner as soon as a pod of this part of the pipeline runs."""
    with started(runner) as process:
        runner.await_pod(part)
        process.kill()
        process.communicate()
        runner.await_quiet()


@contextmanager
def started(runner: Runner) -> Iterator[Process]:
    """A run that is gone when the context ends, whatever happened in it."""
    process = runner.start()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_last_start_completes_the_pipeline(killed_story: KilledStory) -> None:
    assert (killed_story.ended.code, killed_story.ended.errors) == (EXIT_OK, "")
    assert conditions_of(killed_story.runner.pipeline())["Promoted"][0] == "True"


def test_every_artifact_and_the_verdict_equal_those_of_the_undisturbed_run(
    killed_story: KilledStory, local_story: LocalStory
) -> None:
    expected = summary_of(local_story.first.pipeline)
    assert summary_of(killed_story.runner.pipeline()) == expected, f"killed at steps {killed_story.steps}"


@pytest.mark.parametrize("stage", ["data-texts", "pre", "cpt"])
def test_attempts_are_numbered_in_a_row_and_only_the_last_one_succeeded(killed_story: KilledStory, stage: str) -> None:
    outcomes = killed_story.outcomes(stage)
    assert [number for number, _ in outcomes] == list(range(1, len(outcomes) + 1))
    assert len(outcomes) == 2
    assert [outcome for _, outcome in outcomes if outcome == "Succeeded"] == ["Succeeded"]
    assert outcomes[-1][1] == "Succeeded"


def test_work_that_was_not_hit_was_done_once(killed_story: KilledStory) -> None:
    names = ("bank-bank", "words", "pre-data", "cpt-data")
    assert [killed_story.outcomes(name) for name in names] == [[(1, "Succeeded")]] * len(names)


@pytest.mark.parametrize("stage", ["pre", "cpt"])
def test_training_goes_on_from_the_newest_checkpoint_and_not_from_the_start(
    killed_story: KilledStory, stage: str
) -> None:
    is_saved = killed_story.steps[stage] > 4
    assert ("resumed at step" in killed_story.logs(stage)) or not is_saved


def test_nothing_is_left_running(killed_story: KilledStory) -> None:
    assert killed_story.runner.left_over() == []
