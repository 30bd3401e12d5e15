"""What was last seen of every object, fed by events and by our own writes. Never the truth, only the newest we know.

A stale cache must be harmless: attempts are created once by name, status writes carry a resourceVersion precondition,
and an attempt that seems to be missing is looked up on the server before anyone concludes that it is gone.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from bessemer_operator.core.naming import LABEL_ATTEMPT, LABEL_OWNER

Obj = dict[str, Any]
OWN_KINDS = ("AdaptationPipeline", "TrainingStage", "MergeJob", "Evaluation")
ATTEMPT_KINDS = ("Job", "PyTorchJob")
FOREIGN_KINDS = (*ATTEMPT_KINDS, "Pod")
WATCHED = (*OWN_KINDS, *FOREIGN_KINDS)
KEPT_DELETIONS = 10_000
SHARED_LENGTH = 100


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names one object."""

    kind: str
    namespace: str
    name: str


def key_of(obj: Obj) -> Key:
    """The key of an object."""
    return Key(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def version_of(obj: Obj) -> int:
    """The resourceVersion as a number, by which states of one object are ordered; 0 when there is none."""
    text = str(obj["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0


def _uid(obj: Obj) -> str:
    return str(obj["metadata"].get("uid", ""))


@dataclass
class Cache:
    """Objects by key, and the children of each owner by its uid."""

    objects: dict[Key, Obj] = field(default_factory=dict)
    _children: dict[str, set[Key]] = field(default_factory=dict)
    _by_uid: dict[str, Key] = field(default_factory=dict)
    _gone: dict[str, int] = field(default_factory=dict)
    """Versions at which objects were seen deleted, by uid."""

    def put(self, obj: Obj) -> bool:
        """Remember `obj` unless something newer is known, or it was seen deleted; whether anything changed."""
        key, version = key_of(obj), version_of(obj)
        old = self.objects.get(key)
        is_past = version <= self._gone.get(_uid(obj), -1)
        if is_past or (old is not None and version_of(old) >= version > 0):
            return False
        if old is not None:
            self._forget(key, old)
        self.objects[key] = _slim(obj)
        self._by_uid[_uid(obj)] = key
        for owner in _owner_uids(obj):
            self._children.setdefault(owner, set()).add(key)
        return True

    def remove(self, obj: Obj) -> None:
        """Forget an object that was deleted; what is told of it later is believed only of a newer version."""
        key = key_of(obj)
        old = self.objects.get(key)
        if old is not None and _uid(old) == _uid(obj):
            self._forget(key, old)
        self._gone[_uid(obj)] = max(version_of(obj), self._gone.get(_uid(obj), 0))
        if len(self._gone) > KEPT_DELETIONS:
            self._gone.pop(next(iter(self._gone)))

    def _forget(self, key: Key, old: Obj) -> None:
        self.objects.pop(key, None)
        self._by_uid.pop(_uid(old), None)
        for owner in _owner_uids(old):
            siblings = self._children.get(owner, set())
            siblings.discard(key)
            if not siblings:
                self._children.pop(owner, None)

    def missing(self, kind: str, namespace: str | None, uids: Collection[str], before: int) -> list[Obj]:
        """Objects that a full list (their `uids`, of version `before`) lacks although it is not older than they are.

        Their deletion was missed. `namespace` is None for a list of all namespaces.
        """
        return [
            obj
            for key, obj in self.objects.items()
            if key.kind == kind
            and namespace in (None, key.namespace)
            and _uid(obj) not in uids
            and version_of(obj) <= before
        ]

    def of_kind(self, kind: str) -> list[Obj]:
        """All objects of a kind."""
        return [obj for key, obj in self.objects.items() if key.kind == kind]

    def children(self, uid: str, *kinds: str) -> list[Obj]:
        """Objects of these kinds that the object with this uid owns, directly or (pods) through an attempt."""
        keys = sorted(self._children.get(uid, ()))
        return [self.objects[key] for key in keys if key.kind in kinds]

    def owner(self, obj: Obj) -> Key | None:
        """The key of the object of our kinds that `obj` belongs to."""
        for uid in _owner_uids(obj):
            key = self._by_uid.get(uid)
            if key is not None and key.kind in OWN_KINDS:
                return key
        return None


def _slim(obj: Obj) -> Obj:
    """Without what nobody reads: who manages which field, and the specs of attempts and pods but for what pods hold."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    kept = {**obj, "metadata": metadata}
    if obj["kind"] in FOREIGN_KINDS:
        spec = kept.pop("spec", None) or {}
        if obj["kind"] == "Pod" and (containers := spec.get("containers")):
            kept["spec"] = {"containers": [{"resources": item.get("resources") or {}} for item in containers]}
    slim: Obj = _shared(kept)
    return slim


def _shared(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """The same value, with equal keys and short texts kept once: objects repeat them, and so take half the memory."""
    if isinstance(value, dict):
        return {sys.intern(key): _shared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shared(item) for item in value]
    return sys.intern(value) if type(value) is str and len(value) <= SHARED_LENGTH else value


def _owner_uids(obj: Obj) -> list[str]:
    """Uids of the controllers of `obj`; a pod also names the owner of its attempt in a label."""
    metadata = obj["metadata"]
    uids = [str(item.get("uid", "")) for item in metadata.get("ownerReferences") or [] if item.get("controller")]
    labels = metadata.get("labels") or {}
    if obj["kind"] == "Pod" and LABEL_ATTEMPT in labels and labels.get(LABEL_OWNER):
        uids.append(str(labels[LABEL_OWNER]))
    return uids
