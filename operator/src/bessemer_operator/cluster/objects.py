"""Pure helpers on raw objects: names, labels, owners, events. Reads no clock and talks to no server."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from .protocol import Invalid, Kind, Obj, Ref

MAX_OBJECT_BYTES = 1_500_000
"""What etcd takes in one request, by default."""
MAX_CONFIG_BYTES = 1024 * 1024
MAX_ANNOTATION_BYTES = 256 * 1024

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_DNS_LABEL = re.compile(_LABEL)
_JOB_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


def check(obj: Obj, kind: Kind) -> None:
    """What an API server checks of any object: its name, namespace, labels, annotations and size.

    Raises Invalid with the field and what was expected.
    """
    meta = obj["metadata"]
    what = f"{kind.name} {str(meta.get('name', ''))[:80]!r} is invalid"
    _require(_fits(_SUBDOMAIN, meta.get("name"), 253), f"{what}: metadata.name: not a lower case DNS subdomain")
    if kind.namespaced:
        _require(_fits(_DNS_LABEL, meta.get("namespace"), 63), f"{what}: metadata.namespace: not a DNS label")
    if kind.name == "Job":
        _require(len(meta["name"]) <= 63, f"{what}: metadata.name: must be no more than 63 characters")
    if kind.name == "PyTorchJob":
        _require(_fits(_JOB_LABEL, meta["name"], 63), f"{what}: metadata.name: not a DNS-1035 label")
    for key, value in (meta.get("labels") or {}).items():
        _require(_is_key(key), f"{what}: metadata.labels: {str(key)[:80]!r} is not a qualified name")
        _require(_fits(_VALUE, value, 63), f"{what}: metadata.labels: {key}: not a label value (at most 63 characters)")
    _check_annotations(meta.get("annotations") or {}, what)
    size = len(json.dumps(obj))
    _require(size <= MAX_OBJECT_BYTES, f"{what}: {size} bytes; at most {MAX_OBJECT_BYTES}")
    if kind.name in ("ConfigMap", "Secret"):
        size = sum(len(str(text).encode()) for text in (obj.get("data") or {}).values())
        _require(size <= MAX_CONFIG_BYTES, f"{what}: data: Too long: at most {MAX_CONFIG_BYTES} bytes")


def has_labels(obj: Obj, labels: Mapping[str, str] | None) -> bool:
    """Whether an object carries all of `labels`."""
    found = obj["metadata"].get("labels") or {}
    return all(found.get(key) == value for key, value in (labels or {}).items())


def owner_uids(obj: Obj) -> frozenset[str]:
    """Uids of all owners."""
    return frozenset(owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ())


def controller_of(obj: Obj) -> Mapping[str, Any] | None:
    """The owner reference marked as controller, or None."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            found: Mapping[str, Any] = owner
            return found
    return None


def owner_reference(owner: Obj) -> dict[str, Any]:
    """A controller reference to `owner`, as the real controllers write it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_finished(pod: Obj) -> bool:
    """Whether a pod has reached a final phase."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def condition_of(obj: Obj, condition_type: str) -> Mapping[str, Any] | None:
    """The condition of that type, or None."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == condition_type:
            found: Mapping[str, Any] = condition
            return found
    return None


def is_true(obj: Obj, condition_type: str) -> bool:
    """Whether the condition of that type has status True."""
    condition = condition_of(obj, condition_type)
    return condition is not None and condition.get("status") == "True"


def build_event(about: Obj, ref: Ref, event: tuple[str, str, str], now: str) -> Obj:
    """A core/v1 Event; `event` is (type, reason, message). Its name says what it is about, so repeats meet."""
    event_type, reason, message = event
    meta = about["metadata"]
    token = hashlib.sha256("\0".join((meta.get("uid", ""), *event)).encode()).hexdigest()[:16]
    involved = {"apiVersion": about["apiVersion"], "kind": ref.kind, "name": ref.name, "uid": meta.get("uid", "")}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{ref.name[:230]}.{token}", "namespace": ref.namespace or "default"},
        "involvedObject": {**involved, **({"namespace": ref.namespace} if ref.namespace else {})},
        "type": event_type,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": "bessemer-operator"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _check_annotations(annotations: Mapping[str, str], what: str) -> None:
    for key, value in annotations.items():
        _require(_is_key(key.lower()), f"{what}: metadata.annotations: {str(key)[:80]!r} is not a qualified name")
        _require(isinstance(value, str), f"{what}: metadata.annotations: {key}: must be a string")
    size = sum(len(key) + len(value) for key, value in annotations.items())
    _require(size <= MAX_ANNOTATION_BYTES, f"{what}: metadata.annotations: at most {MAX_ANNOTATION_BYTES} bytes")


def _is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(name) and _fits(_VALUE, name, 63) and (not slash or _fits(_SUBDOMAIN, prefix, 253))


def _fits(pattern: re.Pattern[str], text: object, limit: int) -> bool:
    return isinstance(text, str) and len(text) <= limit and pattern.fullmatch(text) is not None


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise Invalid(message)
