"""One reconcile of one object: observe, decide (core), apply. Every step may be the last before a crash.

The order of writes is fixed: attempts and their ConfigMaps, our own children, annotations of attempts, the status,
deletions, events.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from bessemer_api.base import Model
from bessemer_api.v1alpha1 import KINDS
from bessemer_api.v1alpha1.evaluation import Evaluation, Progress
from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.cluster.protocol import (
    AlreadyExists,
    Cluster,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Ref,
    Unavailable,
)
from bessemer_operator.core import evaluation, merge, pipeline, stage
from bessemer_operator.core import plan as core_plan
from bessemer_operator.core.attempts import job_outcome
from bessemer_operator.core.naming import ANNOTATION_DIGEST, LABEL_ATTEMPT
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.quarantine import explain, quarantine
from bessemer_operator.reconcile.cache import ATTEMPT_KINDS, WATCHED, Cache, Key, Obj, key_of
from bessemer_operator.reconcile.rivals import find_rivals
from bessemer_operator.reconcile.workloads import find_workloads

log = logging.getLogger("bessemer")
FIELD_MANAGER = "bessemer-operator"
_WEBHOOK_DOWN = "failed calling webhook"
"""What the API server says, with a 500, when somebody's admission webhook (Kueue's, say) does not answer."""
MODELS: Mapping[str, type[Model]] = {kind.__name__: kind for kind in KINDS}
RECONCILERS: Mapping[str, Callable[..., Plan]] = {
    "AdaptationPipeline": pipeline.reconcile,
    "TrainingStage": stage.reconcile,
    "MergeJob": merge.reconcile,
    "Evaluation": evaluation.reconcile,
}


class Refused(Exception):  # noqa: N818 - named after what was met
    """The server will not have a child as it is; `reason` and the message are for a condition.

    `is_final`: it is the child's content that is refused, so that waiting alone will not help.
    """

    def __init__(self, reason: str, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_final = is_final


@dataclass
class Controller:
    """Reconciles objects of our kinds on one cluster. `clock` gives the time in UTC.

    `on_plan` is told of each object and what was done about it; `on_write` of each object that was written while
    the object with the given key was reconciled.
    """

    cluster: Cluster
    cache: Cache
    profiles: Mapping[str, Profile]
    clock: Callable[[], datetime]
    progress: dict[Key, Progress] = field(default_factory=dict)
    on_plan: Callable[[Obj, Plan], None] = lambda obj, plan: None
    on_write: Callable[[Obj, Key], None] = lambda obj, by: None
    _looked_up: dict[str, None] = field(default_factory=dict)

    async def reconcile(self, key: Key) -> timedelta | None:
        """Bring one object nearer to what it declares; how long until it must be looked at without an event.

        ClusterError goes to the caller, who tries again later; so does Refused, after the status says it.
        """
        obj = self.cache.objects.get(key)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        now = self.clock()
        try:
            parsed: Any = MODELS[key.kind].model_validate(obj)
        except ValidationError as error:
            await self._say_why_not(obj, ("InvalidSpec", explain(error)), now)
            return None
        await self._look_up_attempts(obj, parsed)
        await self._look_up_pods(obj)
        plan = RECONCILERS[key.kind](parsed, await self._observe(obj), now)
        try:
            await self._apply(obj, plan)
        except Refused as error:
            await self._say_why_not(obj, (error.reason, str(error)), now, is_final=error.is_final)
            raise
        self.on_plan(obj, plan)
        return plan.requeue

    async def _observe(self, obj: Obj) -> Observed:
        uid = obj["metadata"]["uid"]
        jobs = tuple(self.cache.children(uid, *ATTEMPT_KINDS))
        progress = {job["metadata"]["name"]: self.progress.get(key_of(job)) for job in jobs}
        return Observed(
            profiles=self.profiles,
            stages=tuple(_parsed(TrainingStage, self.cache.children(uid, "TrainingStage"))),
            merges=tuple(_parsed(MergeJob, self.cache.children(uid, "MergeJob"))),
            evaluations=tuple(_parsed(Evaluation, self.cache.children(uid, "Evaluation"))),
            jobs=jobs,
            pods=tuple(self.cache.children(uid, "Pod")),
            progress={name: found for name, found in progress.items() if found is not None},
            rivals=find_rivals(obj, self.cache),
            workloads=await find_workloads(self.cluster, jobs),
        )

    async def _look_up_attempts(self, obj: Obj, parsed: Any) -> None:  # noqa: ANN401 - any of our kinds
        """A running attempt that the cache lacks is looked up on the server: a stale list must not end it."""
        namespace = obj["metadata"]["namespace"]
        for attempt in getattr(parsed.status, "attempts", ()):
            keys = [Key(kind, namespace, attempt.name) for kind in ATTEMPT_KINDS]
            if attempt.outcome != "Running" or any(key in self.cache.objects for key in keys):
                continue
            for key in keys:
                try:
                    self.cache.put(await self.cluster.get(Ref(key.kind, key.name, namespace)))
                except NotFound:
                    continue

    async def _look_up_pods(self, obj: Obj) -> None:
        """Pods of a finished attempt are read once more if they do not seem to be over.

        The watches of pods and jobs are not ordered among each other: the end of a job can arrive before the report
        of its pod.
        """
        uid = obj["metadata"]["uid"]
        for job in self.cache.children(uid, *ATTEMPT_KINDS):
            job_uid = job["metadata"]["uid"]
            if job_uid in self._looked_up or job_outcome(job) == "Running":
                continue
            mine = [pod for pod in self.cache.children(uid, "Pod") if _is_owned(pod, job_uid)]
            if not mine or not all(_is_over(pod) for pod in mine):
                metadata = job["metadata"]
                labels = {LABEL_ATTEMPT: metadata["name"]}
                for pod in (await self.cluster.list("Pod", metadata["namespace"], labels)).items:
                    self.cache.put(pod)
            self._looked_up[job_uid] = None
            if len(self._looked_up) > 100_000:
                self._looked_up.pop(next(iter(self._looked_up)))

    async def _apply(self, obj: Obj, plan: Plan) -> None:
        by = key_of(obj)
        for child in plan.create:
            await self._create(child, by)
        for child in plan.apply:
            await self._apply_child(child, by)
        for ref, annotations in plan.annotate:
            await self._annotate(ref, annotations, by)
        await self._write_status(obj, plan.status)
        for ref in plan.delete:
            await self._delete(ref)
        for event in plan.events:
            await self.cluster.record_event(obj, event.type, event.reason, event.message)

    async def _create(self, child: Obj, by: Key) -> None:
        """POST once; what is already there is adopted only if it is the very same attempt of the same owner."""
        try:
            self._wrote(await self.cluster.create(child), by)
        except AlreadyExists:
            metadata = child["metadata"]
            found = await self.cluster.get(Ref(child["kind"], metadata["name"], metadata["namespace"]))
            if not _is_same_attempt(found, child):
                raise _name_taken(child, found) from None
            if found.get("data") != child.get("data") and not await self._has_attempt(metadata):
                found = await self._create_anew(child, found)
            self._wrote(found, by)
        except (Invalid, Forbidden) as error:
            raise _refused(child, error) from None
        except Unavailable as error:
            if _WEBHOOK_DOWN not in str(error):
                raise
            raise Refused("WebhookDown", f"{_name(child)}: {error}; it is tried again") from None

    async def _has_attempt(self, metadata: Obj) -> bool:
        for kind in ATTEMPT_KINDS:
            try:
                await self.cluster.get(Ref(kind, metadata["name"], metadata["namespace"]))
            except NotFound:
                continue
            return True
        return False

    async def _create_anew(self, config: Obj, found: Obj) -> Obj:
        """The ConfigMap of an attempt that was never made, and that is now to be made with other data."""
        metadata = found["metadata"]
        await self.cluster.delete(Ref(found["kind"], metadata["name"], metadata["namespace"]), uid=metadata["uid"])
        return await self.cluster.create(config)

    async def _apply_child(self, child: Obj, by: Key) -> None:
        """Server-side apply of a child of our kinds; one of the same name that is another's is left alone."""
        known = self.cache.objects.get(key_of(child))
        if known is not None and not _is_same_owner(known, child):
            raise _name_taken(child, known)
        try:
            self._wrote(await self.cluster.apply(child, FIELD_MANAGER), by)
        except (Invalid, Forbidden) as error:
            raise _refused(child, error) from None

    async def _annotate(self, ref: core_plan.Ref, annotations: Mapping[str, str], by: Key) -> None:
        try:
            self._wrote(await self.cluster.patch_annotations(Ref(ref.kind, ref.name, ref.namespace), annotations), by)
        except NotFound:
            return
        except Forbidden as error:
            raise Refused("ChildRefused", f"{ref.kind} {ref.namespace}/{ref.name}: {error}") from None

    async def _say_why_not(self, obj: Obj, why: tuple[str, str], now: datetime, *, is_final: bool = False) -> None:
        """`is_final`: with the phase Failed, where the kind has phases, so that whoever waits for it hears of it."""
        status = quarantine(obj["metadata"], obj.get("status") or {}, why, now)
        has_failed = is_final and obj["kind"] != "AdaptationPipeline"
        try:
            await self._write_status(obj, {**status, "phase": "Failed"} if has_failed else status)
        except Invalid as error:  # so is the object as a whole; nothing more can be said about it there
            log.warning("%s: %s: %s; its status can not say so: %s", _name(obj), *why, error)

    async def _write_status(self, obj: Obj, status: Obj) -> None:
        """Write the whole status when it differs, guarded by the version that the decision was made from."""
        if (obj.get("status") or {}) == status:
            return
        metadata = obj["metadata"]
        document = {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata},
            "status": status,
        }
        written = await self.cluster.apply_status(document, FIELD_MANAGER, metadata.get("resourceVersion"))
        self._wrote(written, key_of(obj))

    def _wrote(self, obj: Obj, by: Key) -> None:
        if obj["kind"] in WATCHED and self.cache.put(obj):
            self.on_write(obj, by)

    async def _delete(self, ref: core_plan.Ref) -> None:
        try:
            await self.cluster.delete(Ref(ref.kind, ref.name, ref.namespace), uid=ref.uid or None)
        except (NotFound, Conflict):
            return


def _parsed(model: type[Any], objects: list[Obj]) -> list[Any]:
    """Children that can be read; one that can not is quarantined by its own reconcile."""
    found = []
    for obj in objects:
        try:
            found.append(model.model_validate(obj))
        except ValidationError:
            continue
    return found


def _name(obj: Obj) -> str:
    return f"{obj['kind']} {obj['metadata']['namespace']}/{obj['metadata']['name']}"


def _refused(child: Obj, error: ClusterError) -> Refused:
    is_final = isinstance(error, Invalid) or "denied the request" in str(error)  # the words of an admission webhook
    return Refused("ChildRefused", f"{_name(child)}: {error}", is_final=is_final)


def _name_taken(child: Obj, found: Obj) -> Refused | Conflict:
    """What a deleted namesake of the owner left goes by itself (garbage collection); anything else has to be said."""
    owner = child["metadata"]["ownerReferences"][0]
    others = found["metadata"].get("ownerReferences") or []
    is_leftover = any((item["kind"], item["name"]) == (owner["kind"], owner["name"]) for item in others)
    if is_leftover and not _is_owned(found, owner["uid"]):
        return Conflict(f"{_name(child)} belongs to a deleted {owner['kind']} {owner['name']}, and is still there")
    return Refused("NameTaken", f"{_name(child)} exists and belongs to something else; delete it")


def _is_owned(obj: Obj, uid: str) -> bool:
    return any(item.get("uid") == uid for item in obj["metadata"].get("ownerReferences") or [])


def _is_over(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def _is_same_owner(found: Obj, wanted: Obj) -> bool:
    return _is_owned(found, wanted["metadata"]["ownerReferences"][0]["uid"])


def _is_same_attempt(found: Obj, wanted: Obj) -> bool:
    digests = [(item["metadata"].get("annotations") or {}).get(ANNOTATION_DIGEST) for item in (found, wanted)]
    return _is_same_owner(found, wanted) and digests[0] == digests[1]
