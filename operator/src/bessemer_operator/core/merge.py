"""reconcile(MergeJob): one Job per attempt that merges the parents into one checkpoint."""

from datetime import datetime

from bessemer_api import API_VERSION
from bessemer_api.job import MergeTask, RunSpec
from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_operator.core.attempts import Work
from bessemer_operator.core.manifests.attempt import Owner
from bessemer_operator.core.naming import LABEL_PIPELINE, LABEL_STAGE, LABEL_VERB
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.work import find_refusal, reconcile_work, stalled


def reconcile(merge: MergeJob, seen: Observed, now: datetime) -> Plan:
    """What to do about one merge."""
    spec, metadata = merge.spec, merge.metadata
    refusal = find_refusal(spec, seen)
    if refusal is not None:
        return stalled(metadata, merge.status, *refusal, now)
    return reconcile_work(_work(merge, seen.profiles[spec.profile]), metadata, merge.status, seen, now)


def _work(merge: MergeJob, profile: Profile) -> Work:
    spec, metadata = merge.spec, merge.metadata
    labels = {key: metadata.labels[key] for key in (LABEL_PIPELINE, LABEL_STAGE) if key in metadata.labels}
    return Work(
        owner=Owner(API_VERSION, "MergeJob", metadata.namespace, metadata.name, metadata.uid),
        base_name=metadata.name,
        run=RunSpec(
            run_uid=metadata.uid,
            verb="merge",
            store=spec.store,
            input_digest=spec.input_digest,
            merge=MergeTask(inputs=spec.inputs, names=spec.parent_names),
        ),
        profile=profile,
        limits=spec.limits,
        labels={**labels, LABEL_VERB: "merge"},
        retry=spec.retry,
        suspend=spec.suspend,
    )
