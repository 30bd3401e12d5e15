"""What the expander decides for one job: pods to make and to delete, and its status. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bessemer_operator.cluster import Obj
from bessemer_operator.cluster.objects import owner_reference


@dataclass(frozen=True, slots=True)
class Expansion:
    """In this order: the status is written, then pods are released, deleted and created."""

    status: Obj
    create: tuple[Obj, ...] = ()
    delete: tuple[Obj, ...] = ()
    release: tuple[Obj, ...] = ()
    """Pods that are accounted for: their tracking finalizer goes."""


def build_pod(job: Obj, template: Obj, spec: Obj, meta: Mapping[str, Any]) -> Obj:
    """A pod from a template, as the controllers make it. `meta` has name or generateName, labels, and more."""
    from_template = template.get("metadata") or {}
    merged = {
        **{key: from_template[key] for key in ("annotations", "finalizers") if from_template.get(key)},
        **meta,
        "labels": {**(from_template.get("labels") or {}), **meta["labels"]},
        "namespace": job["metadata"]["namespace"],
        "ownerReferences": [owner_reference(job)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": merged, "spec": spec}


def has_status(status: Mapping[str, Any], condition_type: str) -> bool:
    """Whether the condition of that type is True."""
    found = status.get("conditions") or ()
    return any(item["type"] == condition_type and item["status"] == "True" for item in found)
