"""metadata.managedFields: what an apply, an update or a creation makes of an object. Pure.

The rules are Kubernetes' for a forced server-side apply: values applied win and are taken from other managers;
what this manager applied before, leaves out now, and shares with nobody, goes.
"""

from __future__ import annotations

from typing import Any

from .fields import Fields, diff, field_set, merge, minus, union, without
from .protocol import Kind, Obj

_SERVER_META = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
)
_IDENTITY = ("apiVersion", "kind")
_UNOWNED_META = (*_SERVER_META, "name", "namespace", "generateName")


def without_server_fields(obj: Obj, kind: Kind) -> Obj:
    """What a client may say: no server-set metadata, and no status where that is a subresource."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in _SERVER_META and value}
    rest = {key: value for key, value in obj.items() if not (key == "status" and kind.has_status)}
    return {**rest, "metadata": meta}


def desired(obj: Obj) -> Obj:
    """What `generation` counts the changes of: all but metadata and status."""
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def updated(old: Obj, new: Obj, kind: Kind) -> Obj:
    """The object after a PUT: the client's content with the server's metadata and status."""
    kept = {key: old["metadata"][key] for key in _SERVER_META if key in old["metadata"]}
    status = {"status": old["status"]} if kind.has_status and "status" in old else {}
    return {**new, **status, "metadata": {**new["metadata"], **kept}}


def applied(old: Obj, config: Obj, who: tuple[str, str], now: str) -> Obj:
    """The object after a forced apply of `config`; `who` is (manager, subresource)."""
    manager, subresource = who
    entries: list[dict[str, Any]] = old["metadata"].get("managedFields") or []
    mine = next((entry for entry in entries if _is_applier(entry, manager, subresource)), None)
    others = [entry for entry in entries if entry is not mine]
    owned = field_set(_ownable(config))
    dropped = minus(mine["fieldsV1"], owned) if mine else {}
    for entry in others:
        dropped = minus(dropped, entry["fieldsV1"])
    new = without(merge(old, config), dropped)
    taken = diff(_ownable(old), _ownable(new))
    entry = _entry((manager, "Apply", subresource), old["apiVersion"], owned, now)
    kept = _less(others, taken)
    if mine and mine["fieldsV1"] == owned:
        entry = mine
    return _with_entries(new, [*kept, entry])


def record_update(old: Obj, new: Obj, manager: str, now: str) -> Obj:
    """`new` with what changed from `old` owned by `manager`."""
    changed = diff(_ownable(old), _ownable(new))
    if not changed:
        return new
    entries: list[dict[str, Any]] = old["metadata"].get("managedFields") or []
    mine = next((entry for entry in entries if (entry["manager"], entry["operation"]) == (manager, "Update")), None)
    gone = minus(changed, field_set(_ownable(new)))
    held = minus(union(mine["fieldsV1"] if mine else {}, changed), gone)
    others = _less([entry for entry in entries if entry is not mine], changed)
    return _with_entries(new, [*others, _entry((manager, "Update", ""), new["apiVersion"], held, now)])


def record_creation(obj: Obj, config: Obj, who: tuple[str, str], now: str) -> Obj:
    """A new object, whose applied fields belong to its creator; `who` is (manager, operation)."""
    manager, operation = who
    entry = _entry((manager, operation, ""), obj["apiVersion"], field_set(_ownable(config)), now)
    return _with_entries(obj, [entry])


def _is_applier(entry: dict[str, Any], manager: str, subresource: str) -> bool:
    return (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, "Apply", subresource)


def _less(entries: list[dict[str, Any]], taken: Fields) -> list[dict[str, Any]]:
    left = [{**entry, "fieldsV1": minus(entry["fieldsV1"], taken, leaf_takes_below=True)} for entry in entries]
    return [entry for entry in left if entry["fieldsV1"]]


def _ownable(obj: Obj) -> Obj:
    rest = {key: value for key, value in obj.items() if key not in _IDENTITY}
    if "metadata" not in rest:
        return rest
    meta = {key: value for key, value in rest.pop("metadata").items() if key not in _UNOWNED_META}
    return {**rest, "metadata": meta} if meta else rest


def _entry(who: tuple[str, str, str], api_version: str, fields: Fields, now: str) -> dict[str, Any]:
    manager, operation, subresource = who
    entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": api_version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    return {**entry, "subresource": subresource} if subresource else entry


def _with_entries(obj: Obj, entries: list[dict[str, Any]]) -> Obj:
    kept = [entry for entry in entries if entry["fieldsV1"]]
    return {**obj, "metadata": {**obj["metadata"], "managedFields": kept}}
