"""Runs the programs of a test server as child processes that can not outlive the test run.

All children are one process group. A guard process leads it and kills the group as soon as the test run is gone, even
by kill -9. (Linux's parent-death signal is no help here: it fires when the thread that started the child ends.)
It must not know what the programs are.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

START_SECONDS = 600.0
POLL_SECONDS = 0.05
TAIL = 30
T = TypeVar("T")

GUARD = """
import os, shutil, signal, sys, time
while os.getppid() == int(sys.argv[1]):
    time.sleep(0.2)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
time.sleep(2)
for folder in sys.argv[2:]:
    shutil.rmtree(folder, ignore_errors=True)
os.killpg(0, signal.SIGKILL)
"""


class ServerError(RuntimeError):
    """A test server did not come up or did not answer; the message ends with the tail of its log."""


@dataclass(frozen=True)
class Program:
    """How one child is started. `is_ready` is asked until it says so; None means ready at once."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    is_ready: Callable[[], bool] | None = None


class ProcessGroup:
    """The children of one test server, each with a log in `folder`."""

    def __init__(self, folder: Path, scratch: Sequence[Path] = ()) -> None:
        """Start the guard; it removes the `scratch` folders if this process dies without closing the group."""
        self.folder = folder
        self._programs: dict[str, Program] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", GUARD, str(os.getpid()), *map(str, scratch)],
            process_group=0,
            stdin=subprocess.DEVNULL,
        )

    def log(self, name: str) -> Path:
        """Where a program's output goes; a restart appends."""
        return self.folder / f"{name}.log"

    def launch(self, program: Program) -> None:
        """Start a program, without waiting until it is ready."""
        if self.is_running(program.name):
            raise ServerError(f"{program.name} runs already")
        with self.log(program.name).open("ab") as log:
            self._children[program.name] = subprocess.Popen(
                [str(part) for part in program.argv],
                env={**os.environ, **program.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=self._guard.pid,
            )
        self._programs[program.name] = program

    def await_ready(self, name: str) -> None:
        """Wait until a launched program is ready.

        Raises:
            ServerError: it ended, or was not ready in time.
        """
        is_ready = self._programs[name].is_ready
        if is_ready is None:
            return

        def has_come_up() -> bool:
            if not self.is_running(name):
                raise ServerError(f"{name} ended with code {self._children[name].returncode}{self._tail(name)}")
            return is_ready()

        try:
            wait_for(f"{name} to be ready", has_come_up, START_SECONDS)
        except TimeoutError as error:
            raise ServerError(f"{error}{self._tail(name)}") from error

    def start(self, program: Program) -> None:
        """Launch a program and wait until it is ready."""
        self.launch(program)
        self.await_ready(program.name)

    def restart(self, name: str) -> None:
        """Start a program again as it was started before (same ports, same data)."""
        self.start(self._programs[name])

    def stop(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End a program by a signal, SIGKILL unless told, and wait until it is gone."""
        child = self._children[name]
        child.send_signal(how)
        child.wait(timeout=START_SECONDS)

    def send_signal(self, name: str, which: signal.Signals) -> None:
        """Send a signal and do not wait: SIGSTOP and SIGCONT freeze and thaw a program."""
        self._children[name].send_signal(which)

    def is_running(self, name: str) -> bool:
        child = self._children.get(name)
        return child is not None and child.poll() is None

    def close(self) -> None:
        """Kill all children and the guard. What they hold is thrown away, so there is nothing to save."""
        for child in (*self._children.values(), self._guard):
            child.kill()
        for child in (*self._children.values(), self._guard):
            child.wait()

    def _tail(self, name: str) -> str:
        with self.log(name).open(errors="replace") as lines:
            return f"\n--- last lines of {self.log(name)}\n{''.join(deque(lines, TAIL))}"


def wait_for(what: str, probe: Callable[[], T], seconds: float = 60.0) -> T:
    """Return the probe's first true answer.

    Raises:
        TimeoutError: there was none within `seconds`; the message says what was awaited.
    """
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if answer := probe():
            return answer
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(max(POLL_SECONDS, 2 * (now - begun)))  # a probe that costs much, as kubectl, is asked less often


def free_port() -> int:
    """Return a TCP port of this host that nobody listens on.

    From below the range that outgoing connections take theirs from, so that none can take it before the server does.
    """
    for port in random.sample(range(20000, 32000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise ServerError("no free TCP port between 20000 and 32000; 200 were tried")
