"""A process that has imported the trainer once and forks its ranks, so that a test pays no start of torch a rank.

Each rank is the real `bessemer_trainer.__main__.main()` in a process of its own, with the environment that the launcher
would give it; only the interpreter's start and the imports are shared. Ranks can be signalled and killed by pid.
Run as a script it is that process; `Zygote` is its client.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Zygote:
    """Client of one zygote process. Not to be used from several threads at once."""

    def __init__(self) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PET_", "BESSEMER_"))}
        environment = {**kept, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment,
            text=True,
        )

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        with self._lock:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            return json.loads(stdout.readline())

    def fork(self, environment: Mapping[str, str], stderr: Path) -> "Rank":
        answer = self.ask({"fork": dict(environment), "stderr": str(stderr)})
        return Rank(self, answer["pid"])

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)


@dataclass
class Rank:
    """One forked rank; looks like subprocess.Popen to the launcher's wait_for."""

    zygote: Zygote
    pid: int
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.zygote.ask({"poll": self.pid})["code"]
        return self.code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def wait(self) -> int:
        self.code = self.zygote.ask({"wait": self.pid})["code"] if self.code is None else self.code
        assert self.code is not None
        return self.code


def _serve() -> None:
    # Imported here so that the ranks need not; torch imports its compiler at the first optimizer.
    import torch._inductor.compile_fx  # noqa: F401

    import bessemer_trainer.stages.pretrain  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_answer(request)), flush=True)  # noqa: T201 - the protocol


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if "fork" in request:
        return {"pid": _fork(request["fork"], request["stderr"])}
    options = 0 if "wait" in request else os.WNOHANG
    pid, status = os.waitpid(request.get("wait") or request["poll"], options)
    return {"code": os.waitstatus_to_exitcode(status) if pid else None}


def _fork(environment: dict[str, str], stderr: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no rank outlives the tests
    file = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((null, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the parent's buffered requests are not ours
    os.environ.clear()
    os.environ.update(environment)
    from bessemer_trainer.__main__ import main

    code = 1
    try:
        code = main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
