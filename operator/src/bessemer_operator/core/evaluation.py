"""reconcile(Evaluation): one Job per attempt that measures one checkpoint on one range of one bank."""

from datetime import datetime

from bessemer_api import API_VERSION
from bessemer_api.digest import input_digest
from bessemer_api.job import RunSpec
from bessemer_api.v1alpha1.evaluation import Evaluation
from bessemer_operator.core.attempts import Work
from bessemer_operator.core.manifests.attempt import Owner
from bessemer_operator.core.naming import LABEL_PIPELINE, LABEL_STAGE, LABEL_VERB
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.work import reconcile_work, stalled


def reconcile(evaluation: Evaluation, seen: Observed, now: datetime) -> Plan:
    """What to do about one evaluation."""
    spec, metadata = evaluation.spec, evaluation.metadata
    actual = input_digest(spec.inputs)
    if actual != spec.input_digest:
        message = f"spec.inputDigest is {spec.input_digest}, but spec.inputs have the digest {actual}"
        return stalled(metadata, evaluation.status, "DigestMismatch", message, now)
    profile = seen.profiles.get(spec.profile)
    if profile is None:
        known = ", ".join(sorted(seen.profiles)) or "none"
        message = f"spec.profile: there is no profile {spec.profile!r}; known profiles: {known}"
        return stalled(metadata, evaluation.status, "UnknownProfile", message, now)
    return reconcile_work(_work(evaluation, profile), metadata, evaluation.status, seen, now)


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
