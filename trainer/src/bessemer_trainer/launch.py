"""Start the ranks of this pod: `python -m bessemer_trainer.launch`. Reads what a PyTorchJob gives (PET_*), as torchrun.

It is no torchrun because the contract needs two things that torchrun does not give: the exit code of the rank that
failed (torchrun always exits 1), and all of the pod's grace period to save in (torchrun kills its workers 30 s after
SIGTERM). Ranks are never restarted here: an attempt is one gang, and the operator starts the next.
It imports no torch and knows nothing of the work.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from bessemer_api.job import EXIT_PREEMPTED, REPORT_ENV

_GRACE_SECONDS = 20.0
"""For the others, after a rank failed: time to write what they know. A gang without one rank can not save."""

_POLL_SECONDS = 0.05


class Worker(Protocol):
    """A process, as subprocess.Popen has it."""

    def poll(self) -> int | None: ...
    def send_signal(self, sig: int) -> None: ...
    def wait(self) -> int: ...


def rank_environments(environment: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment of each rank of this pod. Without PET_* the pod is a gang of one. Raises ValueError."""
    nodes = int(environment.get("PET_NNODES", "1"))
    local_world = int(environment.get("PET_NPROC_PER_NODE", "1"))
    node = int(environment.get("PET_NODE_RANK", "0"))
    common = {
        "WORLD_SIZE": str(nodes * local_world),
        "LOCAL_WORLD_SIZE": str(local_world),
        "MASTER_ADDR": environment.get("PET_MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": environment.get("PET_MASTER_PORT") or str(_free_port()),
        "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", "1"),
    }
    ranks = [{"RANK": str(node * local_world + local), "LOCAL_RANK": str(local)} for local in range(local_world)]
    return [{**environment, **common, **rank} for rank in ranks]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Run the ranks; the exit code of the first that failed, 0 when all are done."""
    try:
        environments = rank_environments(os.environ)
    except ValueError as error:
        sys.stderr.write(f"error: SpecInvalid: PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK: {error}\n")
        return 64
    _forget_report()
    workers: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        _signal_all(workers, number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    for environment in environments:
        workers.append(subprocess.Popen([sys.executable, "-m", "bessemer_trainer"], env=environment))
    return wait_for(workers)


def _forget_report() -> None:
    """What an earlier pod left at the same path is not about this one. Kubernetes itself makes an empty file."""
    path = os.environ.get(REPORT_ENV)
    if path:
        with contextlib.suppress(OSError):
            Path(path).write_bytes(b"")


def _signal_all(workers: Sequence[Worker], number: int) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)


def wait_for(workers: Sequence[Worker]) -> int:
    """Wait for a gang; its exit code. When a rank fails the others are ended: a gang without one rank can do nothing.

    Ranks that were preempted have agreed on it: each is given the time it needs.
    """
    code = 0
    while any(worker.poll() is None for worker in workers):
        code = next((_exit_code(worker) for worker in workers if worker.poll()), 0)
        if code not in (0, EXIT_PREEMPTED):
            _end(workers)
            return code
        time.sleep(_POLL_SECONDS)
    codes = [_exit_code(worker) for worker in workers]
    return next((code for code in codes if code not in (0, EXIT_PREEMPTED)), max(codes))


def _end(workers: Sequence[Worker]) -> None:
    _signal_all(workers, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    _signal_all(workers, signal.SIGKILL)
    for worker in workers:
        worker.wait()


def _exit_code(worker: Worker) -> int:
    """As a shell has it: 128 and the signal for a process that a signal ended."""
    code = worker.poll() or 0
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
