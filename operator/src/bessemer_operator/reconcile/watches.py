"""Keeps an eye on kopf's requests: counts them, takes signs of life, holds back watches that end at once, and begins a
watch anew whose version the server no longer knows.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import aiohttp

CALM_SECONDS = 5.0
"""A watch that lives for longer than this is begun anew without a pause."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0

RequestCounter = Callable[[str, str, int], None]


@dataclass
class Pacer:
    """How long the next watch of a path must wait: longer and longer while watches end at once."""

    clock: Callable[[], float] = time.monotonic
    _begun: dict[str, float] = field(default_factory=dict)
    _short: dict[str, int] = field(default_factory=dict)

    def pause(self, path: str) -> float:
        """Seconds to wait before a watch of this path begins."""
        now = self.clock()
        is_calm = now - self._begun.get(path, float("-inf")) > CALM_SECONDS + self._pause(path)
        self._short[path] = 0 if is_calm else self._short.get(path, 0) + 1
        self._begun[path] = now
        return self._pause(path)

    def _pause(self, path: str) -> float:
        short = self._short.get(path, 0)
        return min(FIRST_PAUSE * 2.0 ** (short - 1), LONGEST_PAUSE) if short else 0.0


def build_session(
    context: ssl.SSLContext,
    headers: Mapping[str, str],
    sign: Callable[[str], None],
    count: RequestCounter,
    end: Callable[[str], None],
) -> aiohttp.ClientSession:
    """A session for kopf. `sign` gets the plural of each watch that was answered; `count` every request.

    `end` is called when the server no longer knows what is watched: kopf would end the process with a traceback.
    """
    pacer = Pacer()

    async def started(_: Any, __: Any, params: aiohttp.TraceRequestStartParams) -> None:  # noqa: ANN401 - not used
        if "watch" in params.url.query:
            await asyncio.sleep(pacer.pause(params.url.path))

    async def ended(_: Any, __: Any, params: aiohttp.TraceRequestEndParams) -> None:  # noqa: ANN401 - not used
        is_watch, plural = "watch" in params.url.query, params.url.path.rstrip("/").rpartition("/")[2]
        count("WATCH" if is_watch else params.method, plural, params.response.status)
        if is_watch and params.response.status == 200:
            sign(plural)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(started)
    trace.on_request_end.append(ended)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context),
        headers=dict(headers),
        trace_configs=[trace],
        middlewares=[partial(_watch_on, end)],
    )


async def _watch_on(
    end: Callable[[str], None], request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A watch that is answered 410 goes on from the state of now: it tells first of every object that there is.

    kopf knows a 410 inside a stream; one in place of a stream would end the process.
    """
    response = await send(request)
    is_watch = "watch" in request.url.query
    if is_watch and response.status == HTTPStatus.NOT_FOUND:
        end(f"the server no longer knows {request.url.path}: its CRD was deleted")
    if not is_watch or response.status != HTTPStatus.GONE:
        return response
    response.release()
    request.url = request.url.without_query_params("resourceVersion")
    return await send(request)
