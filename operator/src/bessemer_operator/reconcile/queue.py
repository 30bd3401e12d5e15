"""A keyed work queue: each key at most once, never by two workers at a time, with back-off and a rate per key.

It knows nothing of what a key means.
"""

import asyncio
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 60.0
BURST = 20.0
"""Reconciles that one key may have in a row; after that one a second."""

K = TypeVar("K")


@dataclass
class _Bucket:
    """Tokens of one key, refilled by one a second."""

    at: float
    tokens: float = BURST

    def take(self, now: float) -> float:
        """Take a token; the seconds to wait until it is there."""
        self.tokens = min(BURST, self.tokens + now - self.at) - 1
        self.at = now
        return max(0.0, -self.tokens)


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
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        """Keys that are due now or later, or that a worker has."""
        return len(self._due) + len(self._busy)

    def oldest(self) -> float:
        """For how many seconds the longest waiting key has been due; 0 when none is."""
        now = self.clock()
        return max((now - at for at in self._due.values()), default=0.0) if self._due else 0.0

    def add(self, key: K, delay: float = 0.0) -> None:
        """Make `key` due in `delay` seconds, or earlier when it is due earlier already."""
        at = self.clock() + delay
        if key in self._busy:
            self._again[key] = min(at, self._again.get(key, at))
        elif at < self._due.get(key, float("inf")):
            self._due[key] = at
            self._count += 1
            heapq.heappush(self._heap, (at, self._count, key))
            self._wake.set()

    async def take(self) -> K:
        """Wait for the next due key; give it back with `done`."""
        while True:
            self._wake.clear()
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)
            wait = self._heap[0][0] - self.clock() if self._heap else None
            if wait is not None and wait <= 0:
                return self._hand_out(heapq.heappop(self._heap)[2])
            try:
                await asyncio.wait_for(self._wake.wait(), wait)
            except TimeoutError:
                continue

    def _hand_out(self, key: K) -> K:
        del self._due[key]
        self._busy.add(key)
        return key

    def done(self, key: K, *, failed: bool = False) -> None:
        """Give a key back; a failed one is due again after a growing, jittered pause, a busy one at its own rate."""
        self._busy.discard(key)
        again = self._again.pop(key, None)
        if failed:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            pause = min(FIRST_BACKOFF * 2**failures, LONGEST_BACKOFF)
            self.add(key, pause * self.rng.uniform(0.5, 1.0))
            return
        self._failures.pop(key, None)
        if again is not None:
            bucket = self._buckets.setdefault(key, _Bucket(self.clock()))
            self.add(key, max(again - self.clock(), bucket.take(self.clock()), 0.0))

    def forget(self, key: K) -> None:
        """Drop what is remembered of a key whose object is gone."""
        self._failures.pop(key, None)
        self._buckets.pop(key, None)
