"""A proxy in front of an API server that breaks what a test tells it to break. Everything else passes unchanged.

It speaks plain HTTP to the client and TLS to the server, and passes the client's own credentials on.
"""

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from ruamel.yaml import YAML
from yarl import URL

Event = dict[str, Any]
AUTOMATIC = ("Content-Type", "User-Agent")
HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "accept-encoding"}


@dataclass(frozen=True)
class Asked:
    """One request as a rule sees it."""

    method: str
    path: str
    is_watch: bool
    at: float
    is_continued: bool = False
    """The next part of a list that is read in parts."""

    @property
    def plural(self) -> str:
        """The resource of a list or watch."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def is_write(self) -> bool:
        """Whether it asks for a change."""
        return self.method not in {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True)
class Fault:
    """What happens instead, or besides: an answer, silence, another list, a stream that is changed or cut, a kill."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    is_silent: bool = False
    ends_at_once: bool = False
    first: Event | None = None
    """An event that comes before all others of a watch."""
    drop: Callable[[Event], bool] | None = None
    """Events of a watch that never arrive."""
    follow: Callable[[Event], list[Event]] | None = None
    """Events that come after one of a watch."""
    edit: Callable[[Event], Event] | None = None
    """Another body for an answer that is no watch."""
    limit: int | None = None
    """A list is answered in parts of this size."""
    before: Callable[[], None] | None = None
    """Called before the server gets the request."""
    after: Callable[[], None] | None = None
    """Called after the server has answered, and before the client hears of it."""


Rule = Callable[[Asked], Fault | None]


def nothing(_: Asked) -> None:
    return None


class FaultProxy:
    """Runs in a thread of its own while the context is open. `rule` may be changed at any time."""

    def __init__(self, server: str, authority: Path) -> None:
        self._server, self._tls = server, ssl.create_default_context(cafile=str(authority))
        self.rule: Rule = nothing
        self.asked: list[Asked] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        self._is_up.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def kubeconfig(self, original: Path, target: Path) -> Path:
        """A copy of a kubeconfig that goes through this proxy."""
        yaml = YAML(typ="safe")
        document = yaml.load(original)
        for item in document["clusters"]:
            item["cluster"] = {"server": self.url}
        with target.open("w") as stream:
            yaml.dump(document, stream)
        return target

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            self._session = session
            app = web.Application(client_max_size=2**24)
            app.add_routes([web.route("*", "/{path:.*}", self._handle)])
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._is_up.set()
            await self._stop.wait()
            await runner.cleanup()
        await asyncio.sleep(0.2)  # transports are closed in the next rounds of the loop

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        asked = Asked(request.method, request.path, "watch" in query, time.monotonic(), "continue" in query)
        self.asked.append(asked)
        fault = self.rule(asked) or Fault()
        if fault.is_silent:
            await self._stop.wait()
            raise web.HTTPServiceUnavailable
        if fault.status:
            reason = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status}
            body = {**reason, "message": f"broken by a test: {fault.status}", "reason": ""}
            return web.json_response(body, status=fault.status, headers=fault.headers)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP}
        headers["Accept-Encoding"] = "identity"
        target, body = self._server + str(_limited(request, fault)), await request.read()
        timeout = aiohttp.ClientTimeout(total=None)
        _call(fault.before)
        try:
            async with self._session.request(
                request.method, target, headers=headers, data=body or None, timeout=timeout, skip_auto_headers=AUTOMATIC
            ) as response:
                return await self._pass_on(request, response, asked, fault)
        except aiohttp.ClientError:  # the server is gone: so is this connection
            if request.transport is not None:
                request.transport.close()
            raise web.HTTPBadGateway from None

    async def _pass_on(
        self, request: web.Request, response: aiohttp.ClientResponse, asked: Asked, fault: Fault
    ) -> web.StreamResponse:
        headers = {key: value for key, value in response.headers.items() if key.lower() not in HOP}
        if not asked.is_watch:
            answer = await response.read()
            if fault.edit is not None:
                answer = json.dumps(fault.edit(json.loads(answer))).encode()
            _call(fault.after)
            return web.Response(status=response.status, headers=headers, body=answer)
        stream = web.StreamResponse(status=response.status, headers=headers)
        await stream.prepare(request)
        if fault.first is not None:
            await stream.write(json.dumps(fault.first).encode() + b"\n")
        if fault.ends_at_once or fault.first is not None:
            return stream
        with contextlib.suppress(ConnectionError):  # the client has gone
            async for line in response.content:
                if fault.drop is None or not fault.drop(json.loads(line)):
                    await stream.write(line)
                for event in fault.follow(json.loads(line)) if fault.follow else ():
                    await stream.write(json.dumps(event).encode() + b"\n")
        return stream


def _call(hook: Callable[[], None] | None) -> None:
    if hook is not None:
        hook()


def _limited(request: web.Request, fault: Fault) -> URL:
    """The address to ask for: a list's `limit` may be another than was asked."""
    is_list = request.method == "GET" and request.query.get("limit", "0") != "0"
    if fault.limit is None or not is_list:
        return request.rel_url
    return request.rel_url.update_query(limit=str(fault.limit))
