"""What a pod wrote, kept beside its run in the store: pods go, and their logs with them.

Kept is the newest part of what Python wrote to stdout and stderr (no library's own C code), put there once a minute and
at the end. It must never cost the work: a store that does not take it is not waited for.
"""

import contextlib
import io
import sys
import threading
from typing import Any, Self

from bessemer_trainer.errors import TrainerError
from bessemer_trainer.store import Store

KEPT_BYTES = 262_144
EVERY_SECONDS = 60.0
LAST_WRITE_SECONDS = 5.0


class KeptLog:
    """Within the context, what goes to stdout and stderr is remembered as well; `keep_in` says where to put it."""

    def __init__(self, every: float = EVERY_SECONDS) -> None:
        self._every = every
        self._lock = threading.Lock()
        self._text = ""
        self._written: str | None = None
        self._place: tuple[Store, str] | None = None
        self._is_over = threading.Event()
        self._streams = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._streams.enter_context(contextlib.redirect_stdout(_Tee(sys.stdout, self)))
        self._streams.enter_context(contextlib.redirect_stderr(_Tee(sys.stderr, self)))
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._streams.close()

    def add(self, text: str) -> None:
        """Remember a piece of text; of too much, the newest part."""
        with self._lock:
            self._text = (self._text + text)[-KEPT_BYTES:]

    def keep_in(self, store: Store, key: str, *, from_now: bool) -> None:
        """Where the log belongs; `from_now`: it is put there from time to time, not only by `write`."""
        self._place = (store, key)
        if from_now:
            threading.Thread(target=self._keep, daemon=True, name="kept-log").start()

    def write(self) -> None:
        """Put the log where it belongs, if that is known and takes it soon."""
        last = threading.Thread(target=self._write, daemon=True)
        last.start()
        last.join(LAST_WRITE_SECONDS)

    def _keep(self) -> None:
        while not self._is_over.wait(self._every):
            self._write()

    def _write(self) -> None:
        with self._lock:
            text, place = self._text, self._place
        if place is None or text == self._written:
            return
        store, key = place
        with contextlib.suppress(TrainerError, OSError):
            store.write(key, text.encode(errors="replace"))
            self._written = text


class _Tee(io.TextIOBase):
    """A stream that remembers what it is given."""

    def __init__(self, stream: Any, log: KeptLog) -> None:  # noqa: ANN401 - whatever stands for a standard stream
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        self._log.add(text)
        return int(self._stream.write(text))

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    @property
    def buffer(self) -> Any:  # noqa: ANN401 - as above
        return self._stream.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self._stream.encoding)
