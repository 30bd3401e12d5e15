"""One container's process under its supervisor: start, ask to stop, kill, wait."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

from .launch import Launch

_SUPERVISOR = Path(__file__).with_name("supervisor.py")


class StartError(Exception):
    """The program could not be started; the message says why."""


class Process:
    """A running container. Dies with this Python, whatever ends it."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    @classmethod
    async def start(cls, launch: Launch) -> Process:
        """Raises StartError when the program or its working directory is not on this host."""
        program, *rest = launch.argv
        found = shutil.which(program, path=launch.env["PATH"])
        if found is None:
            raise StartError(f'exec: "{program}": executable file not found in $PATH')
        if not launch.cwd.is_dir():
            raise StartError(f"working directory {launch.cwd} does not exist")
        launch.message.write_bytes(b"")
        spec = {"argv": [found, *rest], "env": dict(launch.env), "cwd": str(launch.cwd), "log": str(launch.log)}
        text = json.dumps(spec).encode()
        with launch.log.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                env={},
                start_new_session=True,  # a Ctrl-C in the terminal is the runner's to handle
            )
        process = cls(child)
        process._send(len(text).to_bytes(4, "big") + text)
        return process

    def terminate(self) -> None:
        """SIGTERM to the main process."""
        self._send(b"T")

    def kill(self) -> None:
        """End every process of the container now."""
        if self._child.stdin is not None:
            self._child.stdin.close()

    async def wait(self) -> int:
        """The exit code, 128 + n for a signal n; the container's other processes are gone by then."""
        code = await self._child.wait()
        self.kill()
        return code

    def _send(self, data: bytes) -> None:
        if self._child.stdin is not None and not self._child.stdin.is_closing():
            self._child.stdin.write(data)
