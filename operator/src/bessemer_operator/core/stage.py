"""reconcile(TrainingStage): one PyTorchJob per attempt for training, one Job per attempt for everything else."""

from datetime import datetime

from bessemer_api import API_VERSION
from bessemer_api.job import RunSpec
from bessemer_api.v1alpha1.stage import TRAINING_METHODS, TrainingStage
from bessemer_operator.core.attempts import Work
from bessemer_operator.core.manifests.attempt import Owner
from bessemer_operator.core.naming import LABEL_PIPELINE, LABEL_STAGE, LABEL_VERB
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.work import find_refusal, reconcile_work, stalled


def reconcile(stage: TrainingStage, seen: Observed, now: datetime) -> Plan:
    """What to do about one stage."""
    spec, metadata = stage.spec, stage.metadata
    refusal = find_refusal(spec, seen)
    if refusal is not None:
        return stalled(metadata, stage.status, *refusal, now)
    return reconcile_work(_work(stage, seen.profiles[spec.profile]), metadata, stage.status, seen, now)


def _work(stage: TrainingStage, profile: Profile) -> Work:
    spec, metadata = stage.spec, stage.metadata
    nodes = spec.nodes if spec.inputs.method in TRAINING_METHODS else 0
    run = RunSpec(
        run_uid=metadata.uid,
        verb="stage",
        store=spec.store,
        input_digest=spec.input_digest,
        world_size=nodes * profile.ranks if nodes else 1,
        deepspeed=spec.deepspeed,
        checkpoint=spec.checkpoint,
        stage=spec.inputs,
    )
    labels = {key: metadata.labels[key] for key in (LABEL_PIPELINE, LABEL_STAGE) if key in metadata.labels}
    return Work(
        owner=Owner(API_VERSION, "TrainingStage", metadata.namespace, metadata.name, metadata.uid),
        base_name=metadata.name,
        run=run,
        profile=profile,
        limits=spec.limits,
        nodes=nodes,
        labels={**labels, LABEL_VERB: spec.inputs.method},
        retry=spec.retry,
        suspend=spec.suspend,
    )
