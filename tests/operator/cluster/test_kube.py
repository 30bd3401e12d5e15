"""The API client against an HTTP server that misbehaves as an API server can: what a healthy one never shows.

The healthy case is the conformance table's, in tests/e2e.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bessemer_operator.cluster import (
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    Ref,
    Unavailable,
)
from bessemer_operator.cluster import kube as kube_module
from bessemer_operator.cluster.kube import KubeCluster

MAP = Ref("ConfigMap", "a", "team")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(
    handler: Handler, folder: Path, calls: list[tuple[str, str, int]] | None = None
) -> AsyncIterator[KubeCluster]:
    """A client of a server that answers every request by `handler`."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    cluster = await KubeCluster.connect(kubeconfig(folder, f"http://{host}:{port}"), on_request=record(calls))
    try:
        yield cluster
    finally:
        await cluster.close()
        await runner.cleanup()


def record(calls: list[tuple[str, str, int]] | None) -> Callable[[str, str, int], None] | None:
    return None if calls is None else lambda verb, resource, code: calls.append((verb, resource, code))


def kubeconfig(folder: Path, server: str) -> Path:
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    path.write_text(json.dumps(content))
    return path


def failure(code: int, reason: str, message: str, **headers: str) -> web.Response:
    return web.json_response({"kind": "Status", "reason": reason, "message": message}, status=code, headers=headers)


ERRORS = [
    (400, "BadRequest", "strict decoding error", Invalid),
    (401, "Unauthorized", "Unauthorized", Forbidden),
    (403, "Forbidden", "not allowed", Forbidden),
    (404, "NotFound", "not there", NotFound),
    (409, "Conflict", "modified", Conflict),
    (410, "Expired", "too old", Expired),
    (413, "RequestEntityTooLarge", "large", Invalid),
    (422, "Invalid", "spec.x: wrong", Invalid),
    (500, "InternalError", "etcdserver: request is too large", Invalid),
    (500, "InternalError", "webhook down", Unavailable),
    (503, "ServiceUnavailable", "starting", Unavailable),
    (504, "Timeout", "slow", Unavailable),
]


@pytest.mark.parametrize(("code", "reason", "message", "expected"), ERRORS)
async def test_an_error_has_its_type_and_the_server_s_words(
    code: int, reason: str, message: str, expected: type[ClusterError], tmp_path: Path
) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return failure(code, reason, message)

    async with served(answer, tmp_path) as cluster:
        with pytest.raises(expected, match=message):
            await cluster.get(MAP)


async def test_a_proxy_s_html_page_is_an_error_too(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=502, text="<html>Bad gateway</html>")

    async with served(answer, tmp_path) as cluster:
        with pytest.raises(Unavailable, match="Bad gateway"):
            await cluster.get(MAP)


async def test_overload_is_waited_out_as_long_as_the_server_says(tmp_path: Path) -> None:
    asked: list[float] = []

    async def answer(_: web.Request) -> web.StreamResponse:
        asked.append(asyncio.get_running_loop().time())
        if len(asked) < 3:
            return failure(429, "TooManyRequests", "slow down", **{"Retry-After": "0.2"})
        return web.json_response({"metadata": {"name": "a"}})

    calls: list[tuple[str, str, int]] = []
    async with served(answer, tmp_path, calls) as cluster:
        assert await cluster.get(MAP) == {"metadata": {"name": "a"}}
    assert [later - earlier >= 0.19 for earlier, later in pairwise(asked)] == [True, True]
    assert calls == [("GET", "configmaps", 429), ("GET", "configmaps", 429), ("GET", "configmaps", 200)]


async def test_overload_without_end_is_unavailable(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return failure(429, "TooManyRequests", "slow down", **{"Retry-After": "0"})

    async with served(answer, tmp_path) as cluster:
        with pytest.raises(Unavailable, match="overloaded"):
            await cluster.get(MAP)


async def test_a_server_that_never_answers_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube_module, "REQUEST_SECONDS", 0.2)

    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async with served(answer, tmp_path) as cluster:
        with pytest.raises(Unavailable, match="TimeoutError"):
            await cluster.get(MAP)


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    cluster = await KubeCluster.connect(kubeconfig(tmp_path, "http://127.0.0.1:1"))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        await cluster.get(MAP)
    await cluster.close()


@pytest.mark.parametrize("content", ["", "x: [", "{}", "apiVersion: v1\nkind: Config\ncurrent-context: no\n"])
async def test_a_bad_kubeconfig_is_unavailable_and_says_why(content: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(Unavailable, match=r"no cluster to talk to: ."):
        await KubeCluster.connect(path)


async def test_a_list_comes_in_pages(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        page = int(request.query.get("continue", "0"))
        token = str(page + 1) if page < 2 else ""
        meta = {"resourceVersion": "7", "continue": token}
        return web.json_response({"metadata": meta, "items": [{"metadata": {"name": f"a{page}"}}]})

    async with served(answer, tmp_path) as cluster:
        found = await cluster.list("ConfigMap", "team")
    assert [(obj["kind"], obj["metadata"]["name"]) for obj in found.items] == [("ConfigMap", f"a{n}") for n in range(3)]
    assert found.resource_version == "7"


async def test_a_list_whose_token_expired_begins_again(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "continue" in request.query:
            return failure(410, "Expired", "the token is too old")
        meta = {"resourceVersion": "7", "continue": "x" if request.query["limit"] != "0" else ""}
        return web.json_response({"metadata": meta, "items": [{"metadata": {"name": "a"}}]})

    async with served(answer, tmp_path) as cluster:
        assert len((await cluster.list("ConfigMap", "team")).items) == 1


def lines(*events: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def event(kind: str, version: int) -> dict[str, Any]:
    meta = {"name": "a", "namespace": "team", "resourceVersion": str(version)}
    return {"type": kind, "object": {"kind": "ConfigMap", "metadata": meta}}


async def stream(request: web.Request, data: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(data)
    return response


async def test_a_watch_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.query["resourceVersion"])
        version = int(asked[-1])
        torn = b'{"type": "MODIFIED", "object": {"meta' if len(asked) == 1 else b""
        return await stream(request, lines(event("MODIFIED", version + 1)) + torn)

    seen = []
    async with served(answer, tmp_path) as cluster:
        events = cluster.watch(["ConfigMap"], {"ConfigMap": "5"})
        while len(seen) < 3:
            found = await asyncio.wait_for(anext(events), 20)
            seen.append(found.obj["metadata"]["resourceVersion"])
        await events.aclose()
    assert (seen, asked[:3]) == (["6", "7", "8"], ["5", "6", "7"])


async def test_a_watch_that_is_closed_at_once_is_no_storm(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.query["resourceVersion"])
        return await stream(request, b"")

    async with served(answer, tmp_path) as cluster:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0), aclosing(cluster.watch(["ConfigMap"], {"ConfigMap": "5"})) as events:
                await anext(events)
    assert 2 <= len(asked) <= 10


@pytest.mark.parametrize("in_stream", [False, True], ids=["as a status", "in the stream"])
async def test_a_version_that_is_too_old_ends_a_watch(in_stream: bool, tmp_path: Path) -> None:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}

    async def answer(request: web.Request) -> web.StreamResponse:
        if in_stream:
            return await stream(request, lines({"type": "ERROR", "object": status}))
        return web.json_response(status, status=410)

    async with served(answer, tmp_path) as cluster:
        events = cluster.watch(["ConfigMap"], {"ConfigMap": "5"})
        with pytest.raises(Expired, match="too old"):
            await asyncio.wait_for(anext(events), 20)


async def test_credentials_are_sent_and_never_shown(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return failure(403, "Forbidden", "no")

    async with served(answer, tmp_path) as cluster:
        with pytest.raises(Forbidden) as error:
            await cluster.get(MAP)
    assert seen == ["Bearer secret"]
    assert "secret" not in str(error.value)
