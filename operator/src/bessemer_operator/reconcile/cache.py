"""What was last seen of every object, fed by events and by our own writes. Never the truth, only the newest we know.

A stale cache must be harmless: attempts are created once by name, status writes carry a resourceVersion precondition,
and an attempt that seems to be missing is looked up on the server before anyone concludes that it is gone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bessemer_operator.core.naming import LABEL_ATTEMPT, LABEL_OWNER

Obj = dict[str, Any]
OWN_KINDS = ("AdaptationPipeline", "TrainingStage", "MergeJob", "Evaluation")
ATTEMPT_KINDS = ("Job", "PyTorchJob")
WATCHED = (*OWN_KINDS, *ATTEMPT_KINDS, "Pod")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names one object of our kinds."""

    kind: str
    namespace: str
    name: str


def key_of(obj: Obj) -> Key:
    """The key of an object."""
    return Key(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def _version(obj: Obj) -> int:
    text = str(obj["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0


@dataclass
class Cache:
    """Objects by key, and the children of each owner by its uid."""

    objects: dict[Key, Obj] = field(default_factory=dict)
    _children: dict[str, set[Key]] = field(default_factory=dict)
    _by_uid: dict[str, Key] = field(default_factory=dict)
    _gone: dict[str, int] = field(default_factory=dict)

    def put(self, obj: Obj) -> bool:
        """Remember `obj` unless something newer is known, or it was seen deleted; whether anything changed."""
        key, version = key_of(obj), _version(obj)
        uid = obj["metadata"].get("uid", "")
        old = self.objects.get(key)
        if uid in self._gone or (old is not None and _version(old) >= version > 0):
            return False
        if old is not None:
            self._forget(key, old)
        self.objects[key] = obj
        self._by_uid[uid] = key
        for owner in _owner_uids(obj):
            self._children.setdefault(owner, set()).add(key)
        return True

    def remove(self, obj: Obj) -> None:
        """Forget an object that was deleted; a later event about the same uid is not believed."""
        key, uid = key_of(obj), obj["metadata"].get("uid", "")
        old = self.objects.get(key)
        if old is not None and old["metadata"].get("uid", "") == uid:
            self._forget(key, old)
        self._gone[uid] = _version(obj)
        if len(self._gone) > 10_000:
            self._gone.pop(next(iter(self._gone)))

    def _forget(self, key: Key, old: Obj) -> None:
        self.objects.pop(key, None)
        self._by_uid.pop(old["metadata"].get("uid", ""), None)
        for owner in _owner_uids(old):
            self._children.get(owner, set()).discard(key)

    def replace_all(self, kind: str, listed: Iterable[Obj], before: int) -> list[Obj]:
        """Take a full list of one kind; what it lacks and is not newer than `before` was deleted. Returns those."""
        present = {obj["metadata"].get("uid") for obj in listed if (self.put(obj) or True)}
        missing = [
            obj
            for key, obj in list(self.objects.items())
            if key.kind == kind and obj["metadata"].get("uid") not in present and _version(obj) <= before
        ]
        for obj in missing:
            self.remove(obj)
        return missing

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


def _owner_uids(obj: Obj) -> list[str]:
    """Uids of the controllers of `obj`; a pod also names the owner of its attempt in a label."""
    metadata = obj["metadata"]
    uids = [str(item.get("uid", "")) for item in metadata.get("ownerReferences") or [] if item.get("controller")]
    labels = metadata.get("labels") or {}
    if obj["kind"] == "Pod" and LABEL_ATTEMPT in labels and labels.get(LABEL_OWNER):
        uids.append(str(labels[LABEL_OWNER]))
    return uids
