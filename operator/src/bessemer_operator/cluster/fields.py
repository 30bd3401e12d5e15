"""Who owns which field: server-side apply on plain values, with Kubernetes' own notation (fieldsV1).

Pure. A field set is a nested dict: `{"f:spec": {"f:seed": {}}}`; an empty dict is an owned leaf. Lists are
atomic but for those in `LIST_KEYS` and `SETS`, as in the API types that this program applies.
"""

from __future__ import annotations

import json

from .protocol import Json

Fields = dict[str, Json]

LIST_KEYS = {"conditions": "type", "ownerReferences": "uid"}
"""Lists whose items merge by a key."""
SETS = frozenset({"finalizers"})
"""Lists of strings that merge as sets."""


def field_set(value: Json, name: str = "") -> Fields:
    """Every leaf of a value. `name` is the field that holds it (it decides how a list merges)."""
    if isinstance(value, dict):
        return {f"f:{key}": field_set(item, key) for key, item in value.items()}
    if _merges(value, name):
        return {token: field_set(item) for token, item in _items(value, name).items()}
    return {}


def merge(live: Json, config: Json, name: str = "") -> Json:
    """`config` laid over `live`: maps and keyed lists merge, all else is replaced."""
    if isinstance(live, dict) and isinstance(config, dict):
        return {**live, **{key: merge(live.get(key), item, key) for key, item in config.items()}}
    if _merges(live, name) and _merges(config, name):
        old, new = _items(live, name), _items(config, name)
        return [merge(old[t], new[t]) if t in new else old[t] for t in old] + [new[t] for t in new if t not in old]
    return config


def diff(old: Json, new: Json, name: str = "") -> Fields:
    """Fields that were added, changed or removed between two values that are not equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = {f"f:{key}": (old.get(key, _ABSENT), new.get(key, _ABSENT), key) for key in {**old, **new}}
    elif _merges(old, name) and _merges(new, name):
        before, after = _items(old, name), _items(new, name)
        pairs = {token: (before.get(token, _ABSENT), after.get(token, _ABSENT), "") for token in {**before, **after}}
    else:
        return {}
    return {token: _changed(a, b, key) for token, (a, b, key) in pairs.items() if a != b}


def minus(fields: Fields, taken: Fields, leaf_takes_below: bool = False) -> Fields:
    """Fields without those in `taken`.

    A taken leaf with owned fields below it is an empty map (it takes nothing), or a value of another type that
    took the place of a map (`leaf_takes_below`).
    """
    left: Fields = {}
    for token, below in fields.items():
        if token not in taken:
            left[token] = below
        elif below and (taken[token] or not leaf_takes_below):
            rest = minus(below, taken[token], leaf_takes_below)
            if rest:
                left[token] = rest
    return left


def union(a: Fields, b: Fields) -> Fields:
    """Fields in either set."""
    return {token: union(a.get(token, {}), b.get(token, {})) for token in {**a, **b}}


def without(value: Json, fields: Fields, name: str = "") -> Json:
    """A value with the leaves in `fields` removed, and the maps and lists that this emptied."""
    if isinstance(value, dict):
        kept = {key: _prune(item, fields.get(f"f:{key}"), key) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not _ABSENT}
    if _merges(value, name):
        items = [_prune(item, fields.get(token), "") for token, item in _items(value, name).items()]
        return [item for item in items if item is not _ABSENT]
    return value


_ABSENT: Json = object()


def _changed(old: Json, new: Json, name: str) -> Fields:
    if new is _ABSENT:
        return field_set(old, name)
    return field_set(new, name) if old is _ABSENT else diff(old, new, name)


def _prune(item: Json, fields: Fields | None, name: str) -> Json:
    if fields is None:
        return item
    if not fields:
        return _ABSENT
    return without(item, fields, name) or _ABSENT


def _merges(value: Json, name: str) -> bool:
    """Whether a value is a list whose items merge; one item without its key makes the list atomic."""
    if not isinstance(value, list):
        return False
    key = LIST_KEYS.get(name)
    return name in SETS or (key is not None and all(isinstance(item, dict) and key in item for item in value))


def _items(values: list[Json], name: str) -> dict[str, Json]:
    """The items of a list that merges, by their token in fieldsV1."""
    if name in SETS:
        return {f"v:{json.dumps(item)}": item for item in values}
    key = LIST_KEYS[name]
    return {f"k:{json.dumps({key: item[key]}, separators=(',', ':'))}": item for item in values}
