"""The work of `prepare` in pieces: which rows each examines, processes that do it, and where finished ones are kept.

What a piece holds depends on the sources alone, never on how many processes there are; so does the order in which
pieces are given back. Finished pieces stay in the run folder until the stage is done: an attempt that was interrupted
goes on from them.
"""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bessemer_api.digest import canonical_json, sha256_digest
from bessemer_api.v1alpha1.data import DataKind, Prepare, Source
from bessemer_trainer.blocks import VERSION, is_whole, write_blocks
from bessemer_trainer.errors import TransientError
from bessemer_trainer.examine import Examiner, index_bank
from bessemer_trainer.rows import Span, read_span, spans_of
from bessemer_trainer.store import Store

PIECE_BYTES = 32 << 20
"""About so much of the sources makes a piece."""

WORKERS_ENV = "BESSEMER_WORKERS"
_AHEAD = 2
"""Pieces a worker that may be finished before they are asked for: what waits takes disk, not memory."""


@dataclass(frozen=True, slots=True)
class Task:
    """What every piece is examined by."""

    sources: tuple[Source, ...]
    kind: DataKind
    rules: Prepare
    items: tuple[str, ...]
    """Texts of the items of banks that must not be there."""

    def examiner(self) -> Examiner:
        rule = self.rules.decontaminate
        return Examiner(self.rules, index_bank(self.items, rule.ngram) if rule else None)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some spans in a row, and the name of what they give."""

    spans: tuple[Span, ...]
    name: str

    @property
    def size(self) -> int:
        """Bytes of the sources."""
        return sum(span.size for span in self.spans)


def plan_pieces(task: Task, largest: int = PIECE_BYTES) -> list[Piece]:
    """All of the sources in pieces of about `largest` bytes."""
    pieces: list[Piece] = []
    spans: list[Span] = []
    for span in spans_of(task.sources, largest):
        if spans and sum(each.size for each in spans) + span.size > largest:
            pieces.append(_piece(task, spans))
            spans = []
        spans.append(span)
    return [*pieces, _piece(task, spans)] if spans else pieces


def _piece(task: Task, spans: Sequence[Span]) -> Piece:
    made_of = [
        [span.source, span.file.name, span.file.size, span.file.version, span.start, span.end, span.before]
        for span in spans
    ]
    sources = [source.wire() for source in task.sources]
    told = [VERSION, sources, task.kind, task.rules.wire(), sha256_digest(canonical_json(task.items)), made_of]
    return Piece(tuple(spans), sha256_digest(canonical_json(told)).removeprefix("sha256:")[:32])


class Shelf:
    """Finished pieces in the run folder. In a store on disk they are written there; else a copy stays in scratch."""

    def __init__(self, store: Store, key: str, scratch: Path) -> None:
        self._backend = store.backend
        self._key = f"{key}/pieces"
        local = self._backend.local_path(self._key)
        self._is_local = local is not None
        self._folder = local or scratch / "pieces"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._stored = set() if self._is_local else set(self._backend.keys(self._key))

    def temporary(self, piece: Piece) -> Path:
        """Where a worker writes."""
        return self._folder / f".tmp-{piece.name}-{os.getpid()}"

    def find(self, piece: Piece) -> Path | None:
        """The finished piece, if there is one that is whole."""
        path, key = self._folder / piece.name, f"{self._key}/{piece.name}"
        if key in self._stored and not path.exists():
            self._backend.download(key, path)
        return path if is_whole(path) else None

    def put(self, piece: Piece) -> Path:
        """Take over what a worker wrote."""
        path = self._folder / piece.name
        self.temporary(piece).rename(path)
        if not self._is_local:
            self._backend.upload(f"{self._key}/{piece.name}", path)
        return path

    def clear(self) -> None:
        """Remove all pieces: the artifact is there."""
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
        for key in [] if self._is_local else self._backend.keys(self._key):
            self._backend.delete(key)


def examined(task: Task, pieces: Sequence[Piece], shelf: Shelf, workers: int) -> Iterator[tuple[Piece, Path]]:
    """Every piece with its file, in order, by so many processes (one: by this one)."""
    if workers == 1 or len(pieces) <= 1:
        examiner = task.examiner()
        for piece in pieces:
            path = shelf.find(piece)
            if path is None:
                _examine(task, examiner, piece, shelf.temporary(piece))
            yield piece, path or shelf.put(piece)
        return
    with _pool(task, workers) as pool:
        yield from _in_order(pool, pieces, shelf, workers * _AHEAD)


def _in_order(
    pool: ProcessPoolExecutor, pieces: Sequence[Piece], shelf: Shelf, ahead: int
) -> Iterator[tuple[Piece, Path]]:
    waiting: list[tuple[Piece, Path | None, Future[None] | None]] = []
    for place, piece in enumerate([*pieces, None]):
        if piece is not None:
            path = shelf.find(piece)
            future = None if path else pool.submit(_examine_in_worker, piece, shelf.temporary(piece))
            waiting.append((piece, path, future))
        while waiting and (len(waiting) > ahead or place == len(pieces)):
            first, path, future = waiting.pop(0)
            if future is not None:
                future.result()
            yield first, path or shelf.put(first)


@contextmanager
def _pool(task: Task, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes (a fork would copy the threads of the metrics server). Whatever happens, none outlives it."""
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _start_worker, (task, os.getpid()))
    try:
        yield pool
    except BrokenProcessPool:
        raise TransientError("WorkerLost", "a worker process was killed; give the pod more memory") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.kill()


_WORKER: dict[str, tuple[Task, Examiner]] = {}
"""What the process that a worker is was started with."""


def _start_worker(task: Task, parent: int) -> None:
    """Die with the parent, whatever kills it; leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    _WORKER["own"] = (task, task.examiner())


def _examine_in_worker(piece: Piece, path: Path) -> None:
    task, examiner = _WORKER["own"]
    _examine(task, examiner, piece, path)


def _examine(task: Task, examiner: Examiner, piece: Piece, path: Path) -> None:
    rows = (row for span in piece.spans for row in read_span(span, task.sources[span.source], task.kind))
    write_blocks(path, examiner.blocks(rows))


def count_workers() -> int:
    """Processes to use: BESSEMER_WORKERS, else the processors that this process may use."""
    asked = os.environ.get(WORKERS_ENV, "")
    return max(1, int(asked)) if asked.isdecimal() else max(1, min(len(os.sched_getaffinity(0)), _quota()))


def _quota() -> int:
    """Processors of the control group's quota; many when there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return int(quota) // int(period)
    except (OSError, ValueError):
        return 1 << 10
