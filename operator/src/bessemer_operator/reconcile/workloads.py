"""What Kueue says of attempts that it holds back. Reads only; what it means is decided in core/queueing.py."""

from bessemer_operator.cluster.protocol import Cluster, ClusterError
from bessemer_operator.core.attempts import job_outcome
from bessemer_operator.core.queueing import is_held
from bessemer_operator.reconcile.cache import Obj

LABEL_JOB = "kueue.x-k8s.io/job-uid"


async def find_workloads(cluster: Cluster, jobs: tuple[Obj, ...]) -> dict[str, Obj | None]:
    """The Workload of each job that a queue holds back, by the job's name; None where there is none.

    A job whose Workload can not be read is left out: it is only asked for to explain a wait.
    """
    found: dict[str, Obj | None] = {}
    for job in jobs:
        if not is_held(job) or job_outcome(job) != "Running":
            continue
        metadata = job["metadata"]
        try:
            listing = await cluster.list("Workload", metadata["namespace"], {LABEL_JOB: metadata["uid"]})
        except ClusterError:
            continue
        found[metadata["name"]] = next(iter(listing.items), None)
    return found
