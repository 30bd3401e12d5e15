"""reconcile(MergeJob): merging is not built yet; a MergeJob says so instead of waiting for ever."""

from datetime import datetime

from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.work import stalled


def reconcile(merge: MergeJob, seen: Observed, now: datetime) -> Plan:
    """A status that says that this version does not merge."""
    message = "this version of the operator does not run MergeJobs; delete it, or install a version that does"
    return stalled(merge.metadata, merge.status, "NotSupported", message, now)
