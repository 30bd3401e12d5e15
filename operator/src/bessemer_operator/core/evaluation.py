"""reconcile(Evaluation): one Job per attempt that measures one checkpoint on one range of one bank."""

from datetime import datetime

from bessemer_api import API_VERSION
from bessemer_api.job import RunSpec
from bessemer_api.v1alpha1.evaluation import Evaluation
from bessemer_operator.core.attempts import Work
from bessemer_operator.core.manifests.attempt import Owner
from bessemer_operator.core.naming import LABEL_PIPELINE, LABEL_STAGE, LABEL_VERB
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.work import find_refusal, reconcile_work, stalled


def reconcile(evaluation: Evaluation, seen: Observed, now: datetime) -> Plan:
    """What to do about one evaluation."""
    spec, metadata = evaluation.spec, evaluation.metadata
    refusal = find_refusal(spec, seen)
    if refusal is not None:
        return stalled(metadata, evaluation.status, *refusal, now)
    return reconcile_work(_work(evaluation, seen.profiles[spec.profile]), metadata, evaluation.status, seen, now)


def _work(evaluation: Evaluation, profile: Profile) -> Work:
    spec, metadata = evaluation.spec, evaluation.metadata
    labels = {key: metadata.labels[key] for key in (LABEL_PIPELINE, LABEL_STAGE) if key in metadata.labels}
    return Work(
        owner=Owner(API_VERSION, "Evaluation", metadata.namespace, metadata.name, metadata.uid),
        base_name=metadata.name,
        run=RunSpec(
            run_uid=metadata.uid,
            verb="evaluate",
            store=spec.store,
            input_digest=spec.input_digest,
            evaluate=spec.inputs,
        ),
        profile=profile,
        limits=spec.limits,
        labels={**labels, LABEL_VERB: "evaluate"},
        retry=spec.retry,
        suspend=spec.suspend,
    )
