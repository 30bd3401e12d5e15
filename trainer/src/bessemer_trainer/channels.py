"""Channels in the store: numbered records (what is promoted) and registered tries (what was judged on which bank).

Both are append-only: a file is created only if it is absent, and none is ever changed. The newest record is the truth
about what a channel holds. This file decides nothing: `promote` and `compare` do.
"""

import json
from collections.abc import Mapping
from typing import Any

from bessemer_api.digest import canonical_json
from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.store import Store

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


def register_try(store: Store, channel: str, bank: str, identity: Mapping[str, Any]) -> tuple[int, int]:
    """Register that a nominee is judged, before its results are read; (tries, uses of the bank), this one included.

    `identity` has `candidate`, `baseline` and `record` (the head of the channel). The same identity found again keeps
    its place. Tries count since the last promotion; a rollback does not start them afresh. Both numbers count only
    what was registered up to this try, so that asking again gives the same answer.
    """
    folder = _tries_folder(channel, bank)
    since = last_promotion(store, channel, identity["record"])
    earlier: list[dict[str, Any]] = []
    for _ in range(_RACES):
        for number in range(len(earlier) + 1, max(_numbered(store, folder), default=0) + 1):
            earlier.append(_read(store, f"{folder}/{number:08d}.json"))
            if _identity(earlier[-1]) == _identity(identity):
                return _count(earlier, since), len(earlier)
        key = f"{folder}/{len(earlier) + 1:08d}.json"
        if store.create(key, canonical_json({"schema": 1, "bank": bank, **identity})):
            earlier.append(dict(identity))
            return _count(earlier, since), len(earlier)
    raise TransientError("TriesContended", f"{store.url(folder)}: {_RACES} other tries were registered meanwhile")


def read_tries(store: Store, channel: str, bank: str) -> list[dict[str, Any]]:
    """All registered tries of a bank for a channel, oldest first."""
    folder = _tries_folder(channel, bank)
    return [_read(store, f"{folder}/{number:08d}.json") for number in sorted(_numbered(store, folder))]


def _tries_folder(channel: str, bank: str) -> str:
    return f"channels/{channel}/tries/{bank.removeprefix('sha256:')[:12]}"


def _identity(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(document.get(name) for name in ("candidate", "baseline", "record"))


def _count(tries: list[dict[str, Any]], since: int) -> int:
    return sum(int(document["record"]) >= since for document in tries)


def _numbered(store: Store, folder: str) -> list[int]:
    """Numbers of the files `<8 digits>.json` directly in `folder`."""
    names = [key.removeprefix(f"{folder}/").removesuffix(".json") for key in store.list(folder)]
    return [int(name) for name in names if len(name) == 8 and name.isascii() and name.isdecimal()]


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
