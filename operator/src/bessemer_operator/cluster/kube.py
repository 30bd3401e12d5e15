"""A `Cluster` on a Kubernetes API server. The only module that imports the Kubernetes client.

Raw dicts over plain REST: the client library gives configuration, credentials, TLS and connections, its model
classes are not used. Every request has a time-out; what the server asks to retry (429) is retried; nothing else is.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from .clock import now_stamp
from .objects import build_event
from .protocol import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    Kind,
    Listing,
    NotFound,
    Obj,
    Propagation,
    Ref,
    Unavailable,
    WatchEvent,
    kind_of,
    ref_of,
)

REQUEST_SECONDS = 30.0
WATCH_SECONDS = 300
WATCH_SILENCE_SECONDS = 100.0
"""Longest silence of a watch; bookmarks come every minute."""
PAGE_ITEMS = 500
RETRIES = 5
MAX_RETRY_AFTER_SECONDS = 30.0
_MANAGER = "bessemer"
_JSON, _APPLY, _MERGE = "application/json", "application/apply-patch+yaml", "application/merge-patch+json"
_ERRORS: Mapping[int, type[ClusterError]] = {
    **dict.fromkeys((400, 413, 422), Invalid),
    **dict.fromkeys((401, 403), Forbidden),
    404: NotFound,
    409: Conflict,
    410: Expired,
}

Query = Mapping[str, str | int]

_WRITE: Query = {"fieldManager": _MANAGER, "fieldValidation": "Strict"}
"""Unknown fields are refused, where the server would drop them without a word."""


_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def default_namespace(kubeconfig: Path | None = None, context: str | None = None) -> str:
    """The namespace that the context names, or that of this pod; empty where neither says one."""
    try:
        if kubeconfig is None and _is_in_cluster():
            return _POD_NAMESPACE.read_text().strip()
        contexts, active = config.list_kube_config_contexts(str(kubeconfig) if kubeconfig else None)
        named = [item for item in contexts if item["name"] == context] if context else [active]
        return str((named[0].get("context") or {}).get("namespace") or "")
    except (OSError, LookupError, AttributeError, config.ConfigException):
        return ""


def _is_in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ


class KubeCluster:
    """An API server. Use `connect`; `close` when done."""

    def __init__(self, client: ApiClient, on_request: Callable[[str, str, int], None] | None = None) -> None:
        """`on_request` is told (verb, plural, HTTP status or 0) of every request, for metrics."""
        self._client = client
        self._on_request = on_request or (lambda _verb, _resource, _code: None)

    @classmethod
    async def connect(
        cls,
        kubeconfig: Path | None = None,
        context: str | None = None,
        on_request: Callable[[str, str, int], None] | None = None,
    ) -> KubeCluster:
        """By `kubeconfig`, else $KUBECONFIG, else the pod's service account, else ~/.kube/config.

        Raises Unavailable, with the reason, when none of them can be used.
        """
        settings = Configuration()
        try:
            if kubeconfig is None and _is_in_cluster():
                config.load_incluster_config(client_configuration=settings)
            else:
                path = str(kubeconfig) if kubeconfig else None
                await config.load_kube_config(path, context, client_configuration=settings, persist_config=False)
        except Exception as error:  # noqa: BLE001 - the library passes on whatever a bad file makes it meet
            raise Unavailable(f"no cluster to talk to: {type(error).__name__}: {error}") from None
        return cls(ApiClient(settings), on_request)

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return str(self._client.configuration.host)

    async def get(self, ref: Ref) -> Obj:
        return await self._json("GET", _path(ref))

    async def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Listing:
        found = kind_of(kind)
        query: dict[str, str | int] = {"limit": PAGE_ITEMS}
        if labels:
            query["labelSelector"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        path = _collection(found, namespace)
        try:
            return await self._pages(found, path, query)
        except Expired:  # the continue token; begin again, in one piece
            return await self._pages(found, path, {**query, "limit": 0})

    async def create(self, obj: Obj) -> Obj:
        kind = kind_of(str(obj.get("kind", "")))
        namespace = obj["metadata"].get("namespace", "")
        return await self._json("POST", _collection(kind, namespace), _WRITE, obj)

    async def update(self, obj: Obj) -> Obj:
        return await self._json("PUT", _path(ref_of(obj)), _WRITE, obj)

    async def apply(self, obj: Obj, field_manager: str) -> Obj:
        kind = kind_of(str(obj.get("kind", "")))
        meta = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
        body = {key: value for key, value in obj.items() if not (key == "status" and kind.has_status)}
        return await self._apply(_path(ref_of(obj)), {**body, "metadata": meta}, field_manager)

    async def apply_status(self, obj: Obj, field_manager: str, resource_version: str | None = None) -> Obj:
        meta = {key: obj["metadata"][key] for key in ("name", "namespace", "uid") if obj["metadata"].get(key)}
        if resource_version:
            meta["resourceVersion"] = resource_version
        body = {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "metadata": meta,
            "status": obj.get("status") or {},
        }
        return await self._apply(f"{_path(ref_of(obj))}/status", body, field_manager)

    async def patch_annotations(self, ref: Ref, annotations: Mapping[str, str | None]) -> Obj:
        body = {"metadata": {"annotations": dict(annotations)}}
        return await self._json("PATCH", _path(ref), {"fieldManager": "bessemer-annotate"}, body, _MERGE)

    async def delete(
        self,
        ref: Ref,
        propagation: Propagation = "Background",
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        await self._json("DELETE", _path(ref), {}, body)

    async def watch(
        self, kinds: Collection[str], since: Mapping[str, str], namespace: str | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        queue: asyncio.Queue[WatchEvent | ClusterError] = asyncio.Queue(maxsize=1000)
        tasks = [asyncio.create_task(self._pump(queue, kind_of(kind), since[kind], namespace)) for kind in kinds]
        try:
            while True:
                item = await queue.get()
                if isinstance(item, ClusterError):
                    raise item
                yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def pod_log(self, ref: Ref, container: str | None = None, tail_lines: int | None = None) -> str:
        query: dict[str, str | int] = {}
        if container is not None:
            query["container"] = container
        if tail_lines is not None:
            query["tailLines"] = tail_lines
        return (await self._text("GET", f"{_path(ref)}/log", query)).decode(errors="replace")

    async def record_event(self, obj: Obj, event_type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        event = build_event(obj, ref_of(obj), (event_type, reason, message), now_stamp())
        try:
            await self.create(event)
        except AlreadyExists:
            old = await self.get(ref_of(event))
            body = {"count": old.get("count", 1) + 1, "lastTimestamp": event["lastTimestamp"]}
            await self._json("PATCH", _path(ref_of(event)), {"fieldManager": _MANAGER}, body, _MERGE)

    async def who_am_i(self) -> str:
        """Name of the user, as the API server knows it."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        found = await self._json("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, body)
        return str(found["status"]["userInfo"]["username"])

    async def may(self, verb: str, resource: str, namespace: str) -> bool:
        """Whether the user may do `verb` on `resource` (`plural[/subresource].group`) in a namespace."""
        plural, _, group = resource.partition(".")
        plural, _, subresource = plural.partition("/")
        asked = {"verb": verb, "group": group, "resource": plural, "namespace": namespace}
        spec = {"resourceAttributes": {**asked, **({"subresource": subresource} if subresource else {})}}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool((await self._json("POST", path, {}, body))["status"]["allowed"])

    async def close(self) -> None:
        await self._client.close()

    async def _apply(self, path: str, body: Obj, field_manager: str) -> Obj:
        return await self._json("PATCH", path, {"fieldManager": field_manager, "force": "true"}, body, _APPLY)

    async def _pages(self, kind: Kind, path: str, query: Query) -> Listing:
        items: list[Obj] = []
        token = ""
        while True:
            page = await self._json("GET", path, {**query, **({"continue": token} if token else {})})
            # Items of a built-in kind come without their type.
            items.extend({"apiVersion": kind.api_version, "kind": kind.name, **item} for item in page["items"])
            token = page["metadata"].get("continue", "")
            if not token:
                return Listing(tuple(items), page["metadata"]["resourceVersion"])

    async def _pump(
        self, queue: asyncio.Queue[WatchEvent | ClusterError], kind: Kind, version: str, namespace: str | None
    ) -> None:
        """One kind's watch, again and again; ends with an error in the queue that its reader shall see."""
        failures = 0
        while True:
            before = version
            try:
                async with aclosing(self._stream(kind, version, namespace)) as events:
                    async for event in events:
                        version = event.obj["metadata"]["resourceVersion"]
                        await queue.put(event)
            except Unavailable:
                failures += 1
            except ClusterError as error:
                await queue.put(error)
                return
            failures = 0 if version != before else failures + 1
            # A watch that the server closes at once must not become a storm of requests.
            await asyncio.sleep(min(0.1 * 2**failures, 15.0) if failures else 0.0)

    async def _stream(self, kind: Kind, version: str, namespace: str | None) -> AsyncGenerator[WatchEvent, None]:
        query: dict[str, str | int] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": WATCH_SECONDS,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=WATCH_SILENCE_SECONDS)
        try:
            response = await self._send("GET", _collection(kind, namespace), query, None, _JSON, timeout)
            try:
                await self._raise_for_status(response)
                async for line in response.response.content:
                    yield _event(json.loads(line))
            finally:
                response.response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"watch of {kind.plural}: {type(error).__name__}: {error}") from None

    async def _json(self, method: str, path: str, query: Query = {}, body: Obj | None = None, kind: str = _JSON) -> Obj:  # noqa: B006 - never changed
        found: Obj = json.loads(await self._text(method, path, query, body, kind))
        return found

    async def _text(
        self, method: str, path: str, query: Query, body: Obj | None = None, content_type: str = _JSON
    ) -> bytes:
        """One request. 429 is retried when the server says; the request was then not carried out."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        for _ in range(RETRIES):
            try:
                response = await self._send(method, path, query, body, content_type, timeout)
                if response.status == 429:
                    await response.read()
                    await asyncio.sleep(_retry_after(response.headers))
                    continue
                await self._raise_for_status(response)
                data: bytes = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Unavailable(f"{method} {path}: {type(error).__name__}: {error}") from None
            return data
        raise Unavailable(f"{method} {path}: the server is overloaded (429), {RETRIES} times")

    async def _send(
        self, method: str, path: str, query: Query, body: Obj | None, content_type: str, timeout: aiohttp.ClientTimeout
    ) -> Any:  # noqa: ANN401 - the client library has no types
        # The library drops a body that is falsy; an empty object is never sent here.
        prepared = await self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        code = 0
        try:
            response = await self._client.call_api(*prepared, _request_timeout=timeout)
            code = response.status
        finally:
            self._on_request(method, _plural(path), code)
        return response

    async def _raise_for_status(self, response: Any) -> None:  # noqa: ANN401 - as above
        if response.status < 400:
            return
        text = (await response.read()).decode(errors="replace")
        try:
            status = json.loads(text)
        except ValueError:
            status = {}
        status = status if isinstance(status, dict) else {}
        message = str(status.get("message") or text[:500] or response.reason)
        raise _error(response.status, str(status.get("reason", "")), message)


_INVALID_AS_500 = (
    "request is too large",  # etcd's limit
    "failed to create typed patch object",  # an apply that does not fit the schema
    "resourceVersion should not be set",
)


def _error(code: int, reason: str, message: str) -> ClusterError:
    if reason == "AlreadyExists":
        return AlreadyExists(message)
    if any(text in message for text in _INVALID_AS_500):
        return Invalid(message)
    return _ERRORS.get(code, Unavailable if code >= 500 or code == 429 else ClusterError)(message)


def _event(raw: Obj) -> WatchEvent:
    if raw["type"] == "ERROR":
        status = raw["object"]
        raise _error(status.get("code", 500), status.get("reason", ""), status.get("message", "watch error"))
    obj: Obj = raw["object"]
    if not obj["metadata"]["resourceVersion"]:
        raise ValueError("an event without a resourceVersion")
    return WatchEvent(raw["type"], obj)


def _plural(path: str) -> str:
    """The resource that a path is about, without names: what a metric may be labelled with."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    return rest[2] if rest[0] == "namespaces" and len(rest) > 2 else rest[0]


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(float(headers.get("Retry-After", "1")), MAX_RETRY_AFTER_SECONDS)
    except ValueError:
        return 1.0


def _collection(kind: Kind, namespace: str | None) -> str:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    return f"{base}/namespaces/{quote(namespace, safe='')}/{kind.plural}" if namespace else f"{base}/{kind.plural}"


def _path(ref: Ref) -> str:
    return f"{_collection(kind_of(ref.kind), ref.namespace)}/{quote(ref.name, safe='')}"
