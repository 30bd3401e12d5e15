"""List, then watch, for ever: what is, and every change, with no gap and no duplicate state.

After a watch that can not continue it lists again and makes up the difference, deletions included.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

from .protocol import Cluster, Expired, Obj, Ref, Unavailable, WatchEvent, ref_of

MAX_BACKOFF_SECONDS = 15.0


async def follow(
    cluster: Cluster, kinds: Collection[str], namespace: str | None = None
) -> AsyncGenerator[WatchEvent, None]:
    """ADDED for everything there is, then changes as they come. Raises Forbidden or NotFound; rides out the rest."""
    known: dict[Ref, Obj] = {}
    failures = 0
    while True:
        try:
            found, since = await _list(cluster, kinds, namespace)
            failures = 0
            for event in _differences(known, found):
                yield event
            known.clear()
            known.update(found)
            async with aclosing(cluster.watch(kinds, since, namespace)) as events:
                async for event in events:
                    _remember(known, event)
                    yield event
        except Expired:
            continue
        except Unavailable:
            failures += 1
            await asyncio.sleep(min(0.25 * 2**failures, MAX_BACKOFF_SECONDS))


async def _list(
    cluster: Cluster, kinds: Collection[str], namespace: str | None
) -> tuple[dict[Ref, Obj], dict[str, str]]:
    found: dict[Ref, Obj] = {}
    since: dict[str, str] = {}
    for kind in kinds:
        listing = await cluster.list(kind, namespace)
        found.update({ref_of(obj): obj for obj in listing.items})
        since[kind] = listing.resource_version
    return found, since


def _differences(known: dict[Ref, Obj], found: dict[Ref, Obj]) -> list[WatchEvent]:
    """What happened between two lists; an object of the same name with another uid was deleted and re-created."""
    events = []
    for ref, obj in known.items():
        if ref not in found or _uid(found[ref]) != _uid(obj):
            events.append(WatchEvent("DELETED", obj))
    for ref, obj in found.items():
        old = known.get(ref)
        if old is None or _uid(old) != _uid(obj):
            events.append(WatchEvent("ADDED", obj))
        elif old["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            events.append(WatchEvent("MODIFIED", obj))
    return events


def _remember(known: dict[Ref, Obj], event: WatchEvent) -> None:
    if event.type == "DELETED":
        known.pop(ref_of(event.obj), None)
    elif event.type != "BOOKMARK":
        known[ref_of(event.obj)] = event.obj


def _uid(obj: Obj) -> str:
    return str(obj["metadata"]["uid"])
