"""Whether this process still sees the cluster and gets its work done. Answers /healthz, /readyz and /metrics."""

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from bessemer_operator.reconcile.cache import WATCHED

SIGN_SECONDS = 420.0
"""A watch gives a sign with each event, and when it is begun anew: every 300 s (server_timeout), with time to spare."""
OLDEST_SECONDS = 180.0
"""The longest back-off is 60 s; a key that has been due for longer than this is not being worked on."""
LAG_SECONDS = 10.0
PROBE_SECONDS = 0.5


@dataclass
class Health:
    """What is known about this process. Times are monotonic seconds."""

    oldest: Callable[[], float]
    is_leader: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    is_synced: bool = False
    lag: float = 0.0
    signs: dict[str, float] = field(default_factory=dict)

    def sign(self, kind: str) -> None:
        """The watch of this kind has shown that it is alive."""
        self.signs[kind] = self.clock()

    def problems(self) -> list[str]:
        """Why this process should be started again; empty while it is well."""
        found = []
        now = self.clock()
        if self.is_synced:
            ages = {kind: now - self.signs.get(kind, now) for kind in WATCHED}
            found += [
                f"no sign of the watch of {kind} for {age:.0f} s" for kind, age in ages.items() if age > SIGN_SECONDS
            ]
        if self.is_leader() and self.oldest() > OLDEST_SECONDS:
            found.append(f"an object has been waiting for {self.oldest():.0f} s")
        if self.lag > LAG_SECONDS:
            found.append(f"the event loop was {self.lag:.1f} s late")
        return found

    async def measure_lag(self) -> None:
        """Keep `lag` at the newest delay of the event loop, for ever."""
        while True:
            begun = self.clock()
            await asyncio.sleep(PROBE_SECONDS)
            self.lag = self.clock() - begun - PROBE_SECONDS


async def serve(port: int, health: Health, render: Callable[[], bytes]) -> tuple[web.AppRunner, int]:
    """Answer on `port` (0 chooses one) of all addresses; the runner, to clean up, and the port. Raises OSError."""

    async def healthz(_: web.Request) -> web.Response:
        problems = health.problems()
        return web.Response(status=500 if problems else 200, text="\n".join(problems) or "ok")

    async def readyz(_: web.Request) -> web.Response:
        missing = [] if health.is_synced else ["the first lists are not complete"]
        missing += [] if health.is_leader() else ["another operator holds the lease"]
        return web.Response(status=503 if missing else 200, text="\n".join(missing) or "ok")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    bound = _listen(port)
    await web.SockSite(runner, bound).start()
    return runner, int(bound.getsockname()[1])


def _listen(port: int) -> socket.socket:
    """A socket on all addresses of both families, where the host has both."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
