"""A keyed work queue: each key at most once, never by two workers at a time, with back-off and a rate per key.

It knows nothing of what a key means.
"""

import asyncio
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FIRST_BACKOFF = 0.1
LONGEST_BACKOFF = 60.0
BURST = 20.0
"""Times that one key may be handed out in a row; after that once a second."""
_SPARE = 64
"""Outdated entries of the heap that are tolerated before it is made anew."""

K = TypeVar("K")


class Closed(Exception):  # noqa: N818 - says what the queue is
    """The queue hands out no more keys."""


@dataclass
class _Bucket:
    """Tokens of one key, refilled by one a second."""

    at: float
    tokens: float = BURST

    def wait(self, now: float) -> float:
        """Seconds until there is a token."""
        return max(0.0, 1.0 - min(BURST, self.tokens + now - self.at))

    def take(self, now: float) -> None:
        """Use a token."""
        self.tokens = min(BURST, self.tokens + now - self.at) - 1
        self.at = now


@dataclass
class WorkQueue(Generic[K]):
    """Keys and when they are due. `clock` is monotonic seconds.

    A key that becomes due while a worker has it waits in `_again` until it is given back.
    """

    clock: Callable[[], float]
    rng: random.Random = field(default_factory=random.Random)
    _due: dict[K, float] = field(default_factory=dict)
    _heap: list[tuple[float, int, K]] = field(default_factory=list)
    _busy: set[K] = field(default_factory=set)
    _again: dict[K, float] = field(default_factory=dict)
    _failures: dict[K, int] = field(default_factory=dict)
    _buckets: dict[K, _Bucket] = field(default_factory=dict)
    _count: int = 0
    _is_closed: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        """Keys that are due now, or that a worker has."""
        now = self.clock()
        return sum(at <= now for at in self._due.values()) + len(self._busy)

    def oldest(self) -> float:
        """For how many seconds the longest waiting key has been due; 0 when none is."""
        now = self.clock()
        return max((now - at for at in self._due.values() if at <= now), default=0.0)

    def next_due(self) -> float | None:
        """When the next key is due, by the clock; None when there is none."""
        return min(self._due.values(), default=None)

    def add(self, key: K, delay: float = 0.0) -> None:
        """Make `key` due in `delay` seconds (or when its rate allows), or earlier when it is due earlier already."""
        now = self.clock()
        at = now + delay
        if key in self._busy:
            self._again[key] = min(at, self._again.get(key, at))
            return
        bucket = self._buckets.get(key)
        at = max(at, now + bucket.wait(now)) if bucket else at
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            self._push(at, key)

    def _push(self, at: float, key: K) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
        if len(self._heap) > 2 * len(self._due) + _SPARE:
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        self._wake.set()

    async def take(self) -> K:
        """Wait for the next due key; give it back with `done`. Raises Closed."""
        while not self._is_closed:
            self._wake.clear()
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)
            wait = self._heap[0][0] - self.clock() if self._heap else None
            if wait is not None and wait <= 0:
                return self._hand_out(heapq.heappop(self._heap)[2])
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue
        raise Closed

    def _hand_out(self, key: K) -> K:
        now = self.clock()
        del self._due[key]
        self._busy.add(key)
        self._buckets.setdefault(key, _Bucket(now)).take(now)
        return key

    def done(self, key: K, *, failed: bool = False) -> None:
        """Give a key back; a failed one is due again after a growing, jittered pause."""
        self._busy.discard(key)
        again = self._again.pop(key, None)
        if failed:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            pause = min(FIRST_BACKOFF * 2.0 ** min(failures, 20), LONGEST_BACKOFF)
            self.add(key, pause * self.rng.uniform(0.5, 1.0))
            return
        self._failures.pop(key, None)
        if again is not None:
            self.add(key, max(again - self.clock(), 0.0))

    def has_news(self, key: K) -> bool:
        """Whether a key that a worker has became due again meanwhile."""
        return key in self._again

    def forget(self, key: K) -> None:
        """Drop what is remembered of a key whose object is gone."""
        self._failures.pop(key, None)
        self._buckets.pop(key, None)

    def close(self) -> None:
        """Hand out no more keys; who waits for one gets Closed."""
        self._is_closed = True
        self._wake.set()
