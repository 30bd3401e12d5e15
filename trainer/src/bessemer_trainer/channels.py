"""Channels in the store: numbered records (what is promoted) and registered tries (what was judged by which items).

Both are append-only: a file is created only if it is absent, and none is ever changed. The newest record is the truth
about what a channel holds. This file decides nothing: `promote` and `compare` do.
"""

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from bessemer_api.digest import canonical_json
from bessemer_api.job import CompareTask
from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.store import Store

SHARED = 0.1
"""Two tries count together when they share more than this part of the items of the one that has fewer.

Fresh items are a fresh start; a bank of which some items were exchanged is not.
"""

HASH_DIGITS = 16

_RACES = 1000
"""Lost races after which registering a try gives up; each means that another try was registered meanwhile."""


def record_key(channel: str, number: int) -> str:
    return f"channels/{channel}/{number:08d}.json"


def newest_record(store: Store, channel: str) -> int:
    """Number of the newest record; 0 while the channel is empty."""
    numbers = _numbered(store, f"channels/{channel}")
    return max(numbers, default=0)


def read_record(store: Store, channel: str, number: int) -> dict[str, Any]:
    """A record. Raises PermanentError(ChannelCorrupt) when it is missing or not a record of this channel."""
    document = _read(store, record_key(channel, number))
    if (document.get("channel"), document.get("record")) != (channel, number) or "digest" not in document:
        raise _corrupt(store, record_key(channel, number), "it does not say which record of which channel it is")
    return document


def last_promotion(store: Store, channel: str, until: int) -> int:
    """Number of the newest record up to `until` that is a promotion (not a rollback); 0 when there is none."""
    for number in range(until, 0, -1):
        if read_record(store, channel, number).get("kind") == "promotion":
            return number
    return 0


def try_identity(task: CompareTask) -> dict[str, Any]:
    """What makes a try: who is judged against whom, by which gate, on which bank, since which record of the channel.

    So an edited gate or bank is another try, and a comparison that is run again is not.
    """
    return {
        "candidate": task.candidate.checkpoint,
        "baseline": task.baseline.checkpoint,
        "record": task.record,
        "gate": task.gate,
        "gateDigest": task.gate_digest,
        "bank": task.bank,
    }


def register_try(store: Store, channel: str, identity: Mapping[str, Any], items: frozenset[str]) -> tuple[int, int]:
    """Register that a nominee is judged, before its results are read; (tries, uses of its items), this one included.

    `items`: hashes of 16 hexadecimal digits of the items that judge it (`item_hash`). Both numbers count the tries of
    the channel, on whatever bank, that were judged by some of the same items (see `SHARED`): the first since the last
    promotion (a rollback does not start afresh), the second in all. Only what was registered up to this try counts,
    so that asking again gives the same answer.
    """
    own = {"schema": 1, **identity, "items": "".join(sorted(items))}
    since = last_promotion(store, channel, identity["record"])
    earlier: list[dict[str, Any]] = []
    for _ in range(_RACES):
        for number in range(len(earlier) + 1, _newest_try(store, channel) + 1):
            earlier.append(_read_try(store, channel, number))
            if _is_of(earlier[-1], identity):
                return _count(earlier, since)
        if store.create(_try_key(channel, len(earlier) + 1), canonical_json(own)):
            return _count([*earlier, own], since)
    folder = store.url(f"channels/{channel}/tries")
    raise TransientError("TriesContended", f"{folder}: {_RACES} other tries were registered meanwhile")


def read_tries(store: Store, channel: str, identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tries that were judged by some of the same items as the try of this identity, oldest first; it included."""
    tries = [_read_try(store, channel, number) for number in range(1, _newest_try(store, channel) + 1)]
    own = next((document for document in tries if _is_of(document, identity)), None)
    return [document for document in tries if own is not None and _overlap(document, own)]


def item_hash(text: str) -> str:
    """64 bits of the sha256 of a text, in 16 hexadecimal digits; letter case and white space make no difference.

    Neither the item's id nor its axis counts: the same questions under new names are no fresh items.
    """
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(normal.encode()).hexdigest()[:HASH_DIGITS]


def _try_key(channel: str, number: int) -> str:
    return f"channels/{channel}/tries/{number:08d}.json"


def _newest_try(store: Store, channel: str) -> int:
    return max(_numbered(store, f"channels/{channel}/tries"), default=0)


def _is_of(document: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    return all(document.get(name) == value for name, value in identity.items())


def _count(tries: list[dict[str, Any]], since: int) -> tuple[int, int]:
    """(since that record, in all) of the tries that share items with the last one."""
    alike = [document for document in tries if _overlap(document, tries[-1])]
    return sum(int(document["record"]) >= since for document in alike), len(alike)


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two tries share more than `SHARED` of the items of the one that has fewer."""
    ours, theirs = _items(one), _items(other)
    return ours == theirs or len(ours & theirs) > SHARED * min(len(ours), len(theirs))


def _items(document: Mapping[str, Any]) -> frozenset[str]:
    text = document["items"]
    return frozenset(text[i : i + HASH_DIGITS] for i in range(0, len(text), HASH_DIGITS))


def _numbered(store: Store, folder: str) -> list[int]:
    """Numbers of the files `<8 digits>.json` directly in `folder`."""
    names = [key.removeprefix(f"{folder}/").removesuffix(".json") for key in store.list(folder)]
    return [int(name) for name in names if len(name) == 8 and name.isascii() and name.isdecimal()]


def _read_try(store: Store, channel: str, number: int) -> dict[str, Any]:
    key = _try_key(channel, number)
    document = _read(store, key)
    items = document.get("items")
    if not isinstance(items, str) or not items or len(items) % HASH_DIGITS:
        raise _corrupt(store, key, f"expected `items`, hashes of {HASH_DIGITS} digits one after the other")
    return document


def _read(store: Store, key: str) -> dict[str, Any]:
    data = store.read(key)
    if data is None:
        raise _corrupt(store, key, "it is missing, but later ones exist")
    try:
        document = json.loads(data)
    except ValueError as error:
        raise _corrupt(store, key, f"it is not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("schema") != 1 or not isinstance(document.get("record"), int):
        raise _corrupt(store, key, "expected a JSON object with schema 1 and a record number")
    return document


def _corrupt(store: Store, key: str, problem: str) -> PermanentError:
    return PermanentError(
        "ChannelCorrupt", f"{store.url(key)}: {problem}; these files are never changed: restore it from a backup"
    )
