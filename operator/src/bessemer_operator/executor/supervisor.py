"""What holds one container's processes on a host without containers: the role of a PID namespace.

Run as a script (`python -I -S supervisor.py`), by the kubelet only; standard library only, so that it starts in
milliseconds. On stdin: four bytes of length (big endian) and that much JSON {argv, env, cwd, log}; then a `T`
whenever the main process shall get SIGTERM (it alone, as in a container).
When stdin ends (the kubelet let go, or died, even by SIGKILL) or the main process exits, every descendant is
killed: the supervisor is their reaper (PR_SET_CHILD_SUBREAPER), so new sessions and double forks do not escape.
Exit status: the main process's, or 128 + the number of the signal that ended it.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Start the process, relay, wait, and leave nothing behind."""
    spec = json.loads(_read_exactly(int.from_bytes(_read_exactly(4), "big")))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        _become(spec)
    code = _wait(child, wake)
    _kill_descendants(child)
    return code


def _read_exactly(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(0, size)
        if not part:
            sys.exit(128 + signal.SIGKILL)  # the kubelet let go before it had said what to start
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _become(spec: dict[str, object]) -> None:
    """In the child: a session of its own, its log as output, then the program. Never returns."""
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        log = os.open(str(spec["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.chdir(str(spec["cwd"]))
        argv, env = spec["argv"], spec["env"]
        os.execvpe(argv[0], argv, env)  # type: ignore[index,arg-type]  # noqa: S606 - JSON from the kubelet; never a shell
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
        os.write(2, f"can not start: {error}\n".encode())
    finally:
        os._exit(128)


def _wait(child: int, wake: int) -> int:
    """The child's exit code; kills it when stdin ends."""
    sources = [0, wake]
    while True:
        code = _reap(child)
        if code is not None:
            return code
        ready, _, _ = select.select(sources, [], [])
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready:
            order = os.read(0, 1)
            if order == b"T":
                os.kill(child, signal.SIGTERM)
            elif not order:
                os.kill(child, signal.SIGKILL)
                sources.remove(0)


def _reap(child: int) -> int | None:
    """Collect every process that ended; the child's code if it is among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None


def _kill_descendants(child: int) -> None:
    while True:
        for pid in _descendants() or [-child]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _descendants() -> list[int]:
    """All processes below this one, from /proc; none where there is no /proc."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():  # noqa: PTH112, PTH208 - pathlib is slow to import
        if name.isdigit():
            parent = _parent(name)
            if parent is not None:
                parents[int(name)] = parent
    below: list[int] = []
    frontier = {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier}
        below.extend(frontier)
    return below


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
