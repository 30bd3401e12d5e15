"""Children of a pipeline: which TrainingStages, MergeJobs and Evaluations there shall be.

Pure. Also what becomes of superseded work: what is unfinished does not run on (children are suspended, Jobs deleted),
what is finished is kept up to the history limit. Artifacts in the store always stay.
"""

from collections.abc import Iterable

from bessemer_api import API_VERSION
from bessemer_api.base import Model
from bessemer_api.digest import input_digest
from bessemer_api.v1alpha1.evaluation import Evaluation, EvaluationInputs, EvaluationSpec
from bessemer_api.v1alpha1.merge import MergeJob, MergeSpec
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from bessemer_api.v1alpha1.stage import StageSpec, TrainingStage
from bessemer_operator.core.attempts import WorkState, job_outcome
from bessemer_operator.core.lineage import Node
from bessemer_operator.core.manifests.attempt import Owner
from bessemer_operator.core.naming import LABEL_PIPELINE, LABEL_STAGE, label_value, work_name
from bessemer_operator.core.plan import Manifest, Observed, Ref
from bessemer_operator.core.summary import ANNOTATION_GENERATION
from bessemer_operator.core.view import Scene, View

Child = TrainingStage | MergeJob | Evaluation
_FINISHED = {"Succeeded", "Failed"}


def wanted_children(scene: Scene, view: View) -> list[Manifest]:
    """Every child that the declaration asks for, as far as inputs are known; equal work is asked for once."""
    nodes: dict[str, Node] = {}
    for node in view.nodes.values():
        if node.digest is not None:
            nodes.setdefault(node.digest, node)
    wanted = {input_digest(item): item for item in view.measurements}
    work = [_work_manifest(scene, node) for node in nodes.values()]
    return [*work, *(_evaluation_manifest(scene, item) for item in wanted.values())]


def work_by_digest(wanted: Iterable[Manifest], seen: Observed) -> dict[str, TrainingStage | MergeJob]:
    """The stage or merge that stands for each input digest: a finished one, else the wanted one (after renaming)."""
    names = {manifest["metadata"]["name"] for manifest in wanted}
    ordered = sorted(seen.work, key=lambda item: (item.status.phase == "Succeeded", item.metadata.name in names))
    return {item.spec.input_digest: item for item in ordered}


def changed_children(wanted: Iterable[Manifest], seen: Observed) -> list[Manifest]:
    """What is missing or differs; the generation under which a child was made stays as it was."""
    known: dict[tuple[str, str], Child] = {(item.kind, item.metadata.name): item for item in _children(seen)}
    found = []
    for manifest in wanted:
        old = known.get((manifest["kind"], manifest["metadata"]["name"]))
        if old is None:
            found.append(manifest)
        elif type(old).model_validate(manifest).spec != old.spec:
            found.append(_with_generation_of(manifest, old))
    return found


def suspended_children(scene: Scene, wanted: Iterable[Manifest], seen: Observed) -> list[Manifest]:
    """Unfinished children that the declaration does not ask for: they save and end, and go on if it asks again.

    While the world is being read again nobody knows yet what is asked for, so nothing is; a pipeline that is suspended
    itself suspends them all the same.
    """
    return [
        _restate(scene, item)
        for item in _superseded(wanted, seen)
        if not item.spec.suspend and item.status.phase not in _FINISHED
    ]


def outdated_children(scene: Scene, wanted: Iterable[Manifest], seen: Observed) -> list[Ref]:
    """Superseded children that run no more, beyond the history limit, oldest first to go."""
    wanted = list(wanted)
    found: list[Ref] = []
    for kind in ("TrainingStage", "MergeJob", "Evaluation"):
        old = [item.metadata for item in _superseded(wanted, seen) if item.kind == kind and _is_at_rest(item)]
        old.sort(key=lambda item: (item.creation_timestamp, item.name), reverse=True)
        keep = scene.spec.revision_history_limit * len(wanted)
        found += [Ref(kind, item.namespace, item.name, item.uid) for item in old[keep:]]
    return found


def unfinished_jobs(pipeline: AdaptationPipeline, seen: Observed, states: Iterable[WorkState]) -> list[Ref]:
    """Jobs of the pipeline that still run although nothing needs them any more: a promotion of what was edited away."""
    return [
        ref
        for job in _unused_jobs(pipeline, seen, states)
        if job_outcome(job) == "Running" and not job["metadata"].get("deletionTimestamp")
        for ref in with_its_config(_ref(job))
    ]


def outdated_jobs(pipeline: AdaptationPipeline, seen: Observed, states: Iterable[WorkState]) -> list[Ref]:
    """Finished Jobs of the pipeline that nothing needs any more, beyond the history limit."""
    old = [job for job in _unused_jobs(pipeline, seen, states) if job_outcome(job) != "Running"]
    old.sort(key=lambda job: (job["metadata"].get("creationTimestamp", ""), job["metadata"]["name"]), reverse=True)
    keep = pipeline.spec.revision_history_limit * 4  # resolve, compare, promote and report of each revision
    return [ref for job in old[keep:] for ref in with_its_config(_ref(job))]


def with_its_config(ref: Ref) -> tuple[Ref, Ref]:
    """A Job and its ConfigMap, which bears the Job's name and would outlive it: the pipeline owns both."""
    return ref, Ref("ConfigMap", ref.namespace, ref.name)


def _ref(job: Manifest) -> Ref:
    metadata = job["metadata"]
    return Ref(job["kind"], metadata["namespace"], metadata["name"], metadata.get("uid", ""))


def _unused_jobs(pipeline: AdaptationPipeline, seen: Observed, states: Iterable[WorkState]) -> list[Manifest]:
    used = {item.name for state in states for item in state.attempts}
    return [job for job in seen.jobs if job["metadata"]["name"] not in used and _is_owned(job, pipeline.metadata.uid)]


def _is_owned(job: Manifest, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in job["metadata"].get("ownerReferences") or [])


def _children(seen: Observed) -> list[Child]:
    return [*seen.work, *seen.evaluations]


def _superseded(wanted: Iterable[Manifest], seen: Observed) -> list[Child]:
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted}
    return [item for item in _children(seen) if (item.kind, item.metadata.name) not in names]


def _is_at_rest(item: Child) -> bool:
    is_running = any(attempt.outcome == "Running" for attempt in item.status.attempts)
    return item.status.phase in _FINISHED or (item.status.phase == "Suspended" and not is_running)


def _owner(pipeline: AdaptationPipeline) -> Owner:
    metadata = pipeline.metadata
    return Owner(API_VERSION, "AdaptationPipeline", metadata.namespace, metadata.name, metadata.uid)


def _child(scene: Scene, kind: str, part: str, digest: str, spec: Model) -> Manifest:
    metadata = scene.pipeline.metadata
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": work_name(metadata.name, part, digest),
            "namespace": metadata.namespace,
            "labels": {LABEL_PIPELINE: label_value(metadata.name), LABEL_STAGE: part},
            "annotations": {ANNOTATION_GENERATION: str(metadata.generation)},
            "ownerReferences": [_owner(scene.pipeline).reference()],
        },
        "spec": spec.wire(),
    }


def _work_manifest(scene: Scene, node: Node) -> Manifest:
    kind, model = ("MergeJob", MergeSpec) if node.merge else ("TrainingStage", StageSpec)
    spec = model.model_validate(
        {
            "store": scene.spec.store,
            "inputs": node.inputs,
            "input_digest": node.digest,
            "profile": node.profile,
            "suspend": scene.jobs.suspend,
            "retry": scene.jobs.retry,
            **node.settings,
        }
    )
    return _child(scene, kind, node.name, node.digest or "", spec)


def _evaluation_manifest(scene: Scene, inputs: EvaluationInputs) -> Manifest:
    digest = input_digest(inputs)
    spec = EvaluationSpec(
        store=scene.spec.store,
        inputs=inputs,
        input_digest=digest,
        profile=scene.spec.profiles.evaluate,
        suspend=scene.jobs.suspend,
        retry=scene.jobs.retry,
    )
    return _child(scene, "Evaluation", "eval", digest, spec)


def _with_generation_of(manifest: Manifest, old: Child) -> Manifest:
    generation = old.metadata.annotations.get(ANNOTATION_GENERATION, "0")
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": {ANNOTATION_GENERATION: generation}}}


def _restate(scene: Scene, child: Child) -> Manifest:
    """The child as it is, suspended. Server-side apply needs all of it: what is left out would be removed."""
    part = child.metadata.labels.get(LABEL_STAGE, "")
    spec = child.spec.model_copy(update={"suspend": True})
    manifest = _child(scene, child.kind, part, child.spec.input_digest, spec)
    return _with_generation_of({**manifest, "metadata": {**manifest["metadata"], "name": child.metadata.name}}, child)
