"""Children of a test server: they die with the test run, and say why when they do not come up."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controlplane.process import ProcessGroup, Program, ServerError, wait_for

PARENT = """
import sys, time
from pathlib import Path
from tests.support.controlplane.process import ProcessGroup, Program
group = ProcessGroup(Path(sys.argv[1]), scratch=[Path(sys.argv[1])])
group.launch(Program("child", ["sh", "-c", "echo $$; exec sleep 600"]))
time.sleep(600)
"""


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ProcessGroup]:
    running = ProcessGroup(tmp_path)
    yield running
    running.close()


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # ended, and nobody has asked for its code


def test_children_and_their_folder_go_when_the_parent_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen([sys.executable, "-c", PARENT, str(folder)], env=environment) as parent:
        log = folder / "child.log"
        child = int(wait_for("the child to tell its pid", lambda: log.exists() and log.read_text()))
        assert is_alive(child)
        parent.send_signal(signal.SIGKILL)
    wait_for("the child to die", lambda: not is_alive(child))
    wait_for("the folder to go", lambda: not folder.exists())


def test_a_program_that_ends_at_once_is_an_error_with_the_tail_of_its_log(group: ProcessGroup) -> None:
    program = Program("broken", shell("echo no such flag; exit 3"), is_ready=lambda: False)
    with pytest.raises(ServerError, match=r"(?s)broken ended with code 3.*broken\.log\nno such flag"):
        group.start(program)


def test_a_program_is_not_started_twice(group: ProcessGroup) -> None:
    group.start(Program("server", shell("sleep 600")))
    with pytest.raises(ServerError, match="server runs already"):
        group.start(Program("server", shell("sleep 600")))


def test_a_stopped_program_starts_again_and_appends_to_its_log(group: ProcessGroup) -> None:
    group.launch(Program("server", shell("echo started; exec sleep 600"), is_ready=lambda: count_starts(group) > 0))
    group.await_ready("server")
    group.stop("server")
    assert not group.is_running("server")
    group.restart("server")
    wait_for("the second start", lambda: count_starts(group) == 2)


def count_starts(group: ProcessGroup) -> int:
    return group.log("server").read_text().count("started")
