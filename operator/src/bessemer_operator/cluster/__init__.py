"""The Kubernetes API, or its local stand-in: one protocol, two implementations.

`kube.KubeCluster` talks to an API server; `local.LocalCluster` is a directory that behaves as one. Nothing
here decides anything: callers pass whole objects (plain dicts, as JSON) and get whole objects back.
"""

from .protocol import (
    KINDS,
    AlreadyExists,
    Cluster,
    ClusterError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    Kind,
    Listing,
    NotFound,
    Obj,
    Propagation,
    Ref,
    Unavailable,
    WatchEvent,
    kind_of,
    ref_of,
)

__all__ = [
    "KINDS",
    "AlreadyExists",
    "Cluster",
    "ClusterError",
    "Conflict",
    "Expired",
    "Forbidden",
    "Invalid",
    "Kind",
    "Listing",
    "NotFound",
    "Obj",
    "Propagation",
    "Ref",
    "Unavailable",
    "WatchEvent",
    "kind_of",
    "ref_of",
]
