"""Ports for pods that share one host: each job its master port, each pod its metrics port."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

FIRST, LAST = 20_000, 32_000
"""Below the range from which Linux takes ports for outgoing connections."""


@dataclass
class Ports:
    """Hands out free ports by key, the same one for the same key until it is released."""

    held: dict[str, int] = field(default_factory=dict)
    _next: int = field(default_factory=lambda: FIRST + os.getpid() * 97 % (LAST - FIRST))

    def take(self, key: str) -> int:
        """A port that nobody listens on now. Raises OSError when there is none."""
        if key not in self.held:
            self.held[key] = self._find()
        return self.held[key]

    def release(self, key: str) -> None:
        self.held.pop(key, None)

    def _find(self) -> int:
        for _ in range(LAST - FIRST):
            self._next = FIRST + (self._next + 1 - FIRST) % (LAST - FIRST)
            if self._next not in self.held.values() and _is_free(self._next):
                return self._next
        raise OSError(f"no free port between {FIRST} and {LAST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
