"""What the operator asks of a cluster: the protocol, its errors, and the kinds it handles.

Thin on purpose: raw dicts in and out, no caching, no retries beyond what the protocol says, no decisions.
Must not import a Kubernetes client: that is kube.py's.
"""
# ruff: noqa: N818 - the errors carry the names that Kubernetes gives them

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Json = Any
"""A value of a JSON document."""

Obj = dict[str, Json]
"""A Kubernetes object as its JSON: apiVersion, kind, metadata, and the rest."""

Propagation = Literal["Background", "Orphan"]


@dataclass(frozen=True, slots=True)
class Kind:
    """Where a kind lives in the API."""

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool = True
    has_status: bool = True
    """Status is a subresource: writes to the object leave it alone, and the reverse."""
    has_generation: bool = True

    @property
    def is_custom(self) -> bool:
        """Defined by a CRD."""
        return self.group in ("bessemer.dev", "kubeflow.org")

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


_ALL = (
    Kind("AdaptationPipeline", "bessemer.dev", "v1alpha1", "adaptationpipelines"),
    Kind("TrainingStage", "bessemer.dev", "v1alpha1", "trainingstages"),
    Kind("MergeJob", "bessemer.dev", "v1alpha1", "mergejobs"),
    Kind("Evaluation", "bessemer.dev", "v1alpha1", "evaluations"),
    Kind("PyTorchJob", "kubeflow.org", "v1", "pytorchjobs"),
    Kind("Job", "batch", "v1", "jobs"),
    Kind("Pod", "", "v1", "pods"),
    Kind("Service", "", "v1", "services", has_generation=False),
    Kind("Node", "", "v1", "nodes", namespaced=False, has_generation=False),
    Kind("Namespace", "", "v1", "namespaces", namespaced=False, has_generation=False),
    Kind("ConfigMap", "", "v1", "configmaps", has_status=False, has_generation=False),
    Kind("Secret", "", "v1", "secrets", has_status=False, has_generation=False),
    Kind("Event", "", "v1", "events", has_status=False, has_generation=False),
    Kind("CustomResourceDefinition", "apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False),
    Kind("LocalQueue", "kueue.x-k8s.io", "v1beta1", "localqueues"),
    Kind("Workload", "kueue.x-k8s.io", "v1beta1", "workloads"),
    Kind("Lease", "coordination.k8s.io", "v1", "leases", has_status=False, has_generation=False),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """The address of one object. `namespace` is empty for a cluster-scoped kind."""

    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Listing:
    """Items of one kind, and the version from which a watch continues."""

    items: tuple[Obj, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. A BOOKMARK carries only a newer resourceVersion: proof that the watch is alive."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    obj: Obj


class ClusterError(Exception):
    """A request was refused or did not arrive; `str()` is what the server said, fit for a condition's message."""


class NotFound(ClusterError):
    """No such object, or no such kind on this server."""


class AlreadyExists(ClusterError):
    """A create met an object of that name."""


class Conflict(ClusterError):
    """A precondition (resourceVersion or uid) does not hold: read again, then decide again."""


class Invalid(ClusterError):
    """The server refused the object's content. Permanent until the object changes."""


class Forbidden(ClusterError):
    """The account may not do that, or its credentials have expired."""


class Expired(ClusterError):
    """A watch can not continue from that version: list again."""


class Unavailable(ClusterError):
    """Transient: time-out, connection refused, overload, a 5xx. Whether a write happened is unknown."""


class Cluster(Protocol):
    """An API server. Every method raises a `ClusterError`; none returns None for "absent"."""

    async def get(self, ref: Ref) -> Obj: ...

    async def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Listing:
        """All objects of a kind, in one namespace or in all (None), whose labels include `labels`."""

    async def create(self, obj: Obj) -> Obj:
        """POST. `metadata.generateName` is honoured. Raises AlreadyExists."""

    async def update(self, obj: Obj) -> Obj:
        """PUT of a whole object (not its status), with its resourceVersion as precondition. Raises Conflict."""

    async def apply(self, obj: Obj, field_manager: str) -> Obj:
        """Server-side apply, forced: creates or merges; fields this manager applied before and now leaves out go.

        A resourceVersion in `obj` is a precondition (Conflict); a status in it is ignored.
        """

    async def apply_status(self, obj: Obj, field_manager: str, resource_version: str | None = None) -> Obj:
        """Server-side apply of `obj.status`, and nothing else.

        Raises Conflict if the version has moved on. Of a built-in kind, Invalid if `obj` carries another uid (a
        custom resource's status ignores metadata: there the version is what tells).
        """

    async def patch_annotations(self, ref: Ref, annotations: Mapping[str, str | None]) -> Obj:
        """Merge patch of metadata.annotations; None removes a key."""

    async def delete(
        self,
        ref: Ref,
        propagation: Propagation = "Background",
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """Ask for deletion. `uid` is a precondition (Conflict). A running Pod goes when its node has let go of it."""

    def watch(
        self, kinds: Collection[str], since: Mapping[str, str], namespace: str | None = None
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes of `kinds` after the versions in `since` (kind -> resourceVersion of its list).

        Reconnects by itself after transient errors; raises Expired when it can not go on without a gap.
        """

    async def pod_log(self, ref: Ref, container: str | None = None, tail_lines: int | None = None) -> str: ...

    async def record_event(self, obj: Obj, event_type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """A Kubernetes Event about `obj`; the same one again raises its count."""

    async def close(self) -> None: ...


def kind_of(name: str) -> Kind:
    """The registered kind; Invalid for one this program does not handle."""
    if name not in KINDS:
        raise Invalid(f"kind {name!r} is not one of {', '.join(sorted(KINDS))}")
    return KINDS[name]


def ref_of(obj: Obj) -> Ref:
    """The address of an object; Invalid when kind, name or namespace is missing."""
    kind = kind_of(str(obj.get("kind", "")))
    meta = obj.get("metadata") or {}
    name, namespace = str(meta.get("name", "")), str(meta.get("namespace", ""))
    if not name:
        raise Invalid(f"{kind.name}: metadata.name is required")
    if kind.namespaced and not namespace:
        raise Invalid(f"{kind.name} {name}: metadata.namespace is required")
    return Ref(kind.name, name, namespace if kind.namespaced else "")
