"""Full lists: at start, and again every few minutes to find what the watches missed, deletions above all.

kopf never notices a deletion that happened while its watch was broken; a list does.
"""

import asyncio
import logging
from collections.abc import Sequence

from bessemer_operator.cluster.protocol import Cluster, ClusterError, NotFound
from bessemer_operator.core.naming import MANAGED_BY
from bessemer_operator.reconcile.cache import FOREIGN_KINDS, WATCHED, version_of
from bessemer_operator.reconcile.runtime import Runtime

log = logging.getLogger("bessemer")


async def resync(runtime: Runtime, cluster: Cluster, namespaces: Sequence[str]) -> int:
    """List everything once (all namespaces where none is named); how many changes no event had told.

    Raises ClusterError; NotFound means that a CRD is missing.
    """
    return sum(
        [await _resync_kind(runtime, cluster, kind, space) for kind in WATCHED for space in namespaces or (None,)]
    )


async def _resync_kind(runtime: Runtime, cluster: Cluster, kind: str, namespace: str | None) -> int:
    try:
        listing = await cluster.list(kind, namespace, MANAGED_BY if kind in FOREIGN_KINDS else None)
    except NotFound as error:
        raise NotFound(f"the server does not know the kind {kind}: {error}; {_remedy(kind)}") from None
    uids = {obj["metadata"]["uid"] for obj in listing.items}
    before = version_of({"metadata": {"resourceVersion": listing.resource_version}})
    gone = runtime.cache.missing(kind, namespace, uids, before)
    for obj in gone:
        runtime.seen("DELETED", obj)
    return len(gone) + sum([runtime.seen("MODIFIED", obj) for obj in listing.items])


def _remedy(kind: str) -> str:
    if kind == "PyTorchJob":
        return "install Kubeflow training-operator 1.9.4 or later, which brings the CRD pytorchjobs.kubeflow.org"
    return "install the CRDs of Bessemer (Helm: crds.enabled=true)"


async def keep_resyncing(runtime: Runtime, cluster: Cluster, namespaces: Sequence[str], every: float) -> None:
    """Resync every `every` seconds, for ever; a list that fails is tried again next time."""
    while True:
        await asyncio.sleep(every)
        try:
            missed = await resync(runtime, cluster, namespaces)
        except ClusterError as error:
            log.warning("resync: %s: %s", type(error).__name__, error)
        else:
            if missed:  # on a busy cluster a list is often a moment ahead of the watches
                log.info("resync: %d changes had not been told by a watch yet", missed)
