"""One reconcile of one object: observe, decide (core), apply. Every step may be the last before a crash.

The order of writes is fixed: attempts and their ConfigMaps, our own children, the status, deletions, events.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from bessemer_api.base import Model
from bessemer_api.v1alpha1 import KINDS
from bessemer_api.v1alpha1.evaluation import Evaluation, Progress
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.cluster.protocol import AlreadyExists, Cluster, Conflict, NotFound, Ref
from bessemer_operator.core import evaluation, merge, pipeline, stage
from bessemer_operator.core.naming import ANNOTATION_DIGEST
from bessemer_operator.core.plan import Observed, Plan
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.quarantine import quarantine
from bessemer_operator.reconcile.cache import ATTEMPT_KINDS, Cache, Key, Obj

FIELD_MANAGER = "bessemer-operator"
MODELS: Mapping[str, type[Model]] = {kind.__name__: kind for kind in KINDS}
RECONCILERS: Mapping[str, Callable[..., Plan]] = {
    "AdaptationPipeline": pipeline.reconcile,
    "TrainingStage": stage.reconcile,
    "MergeJob": merge.reconcile,
    "Evaluation": evaluation.reconcile,
}


class ForeignObject(Exception):  # noqa: N818 - named after what was met
    """A child's name is taken by an object that is not ours."""


@dataclass
class Controller:
    """Reconciles objects of our kinds on one cluster. `clock` gives the time in UTC."""

    cluster: Cluster
    cache: Cache
    profiles: Mapping[str, Profile]
    clock: Callable[[], datetime]
    progress: dict[str, Progress] = field(default_factory=dict)
    on_plan: Callable[[Obj, Plan], None] = lambda obj, plan: None

    async def reconcile(self, key: Key) -> timedelta | None:
        """Bring one object nearer to what it declares; how long until it must be looked at without an event.

        ClusterError goes to the caller, who tries again later; so does ForeignObject.
        """
        obj = self.cache.objects.get(key)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        now = self.clock()
        try:
            parsed: Any = MODELS[key.kind].model_validate(obj)
        except ValidationError as error:
            status = quarantine(obj["metadata"], obj.get("status") or {}, error, now)
            await self._write_status(obj, {**(obj.get("status") or {}), **status})
            return None
        await self._confirm_missing_attempts(obj, parsed)
        plan = RECONCILERS[key.kind](parsed, self._observe(obj), now)
        await self._apply(obj, plan)
        self.on_plan(obj, plan)
        return plan.requeue

    def _observe(self, obj: Obj) -> Observed:
        uid = obj["metadata"]["uid"]
        jobs = tuple(self.cache.children(uid, *ATTEMPT_KINDS))
        return Observed(
            profiles=self.profiles,
            stages=tuple(_parsed(TrainingStage, self.cache.children(uid, "TrainingStage"))),
            evaluations=tuple(_parsed(Evaluation, self.cache.children(uid, "Evaluation"))),
            jobs=jobs,
            pods=tuple(self.cache.children(uid, "Pod")),
            progress={
                job["metadata"]["name"]: self.progress[job["metadata"]["name"]]
                for job in jobs
                if job["metadata"]["name"] in self.progress
            },
        )

    async def _confirm_missing_attempts(self, obj: Obj, parsed: Any) -> None:  # noqa: ANN401 - any of our kinds
        """A running attempt that the cache lacks is looked up on the server: a stale list must not end it."""
        for attempt in getattr(parsed.status, "attempts", ()):
            kinds = [kind for kind in ATTEMPT_KINDS if self._lacks(kind, obj, attempt.name)]
            if attempt.outcome != "Running" or len(kinds) < len(ATTEMPT_KINDS):
                continue
            for kind in kinds:
                try:
                    self.cache.put(await self.cluster.get(Ref(kind, attempt.name, obj["metadata"]["namespace"])))
                except NotFound:
                    continue

    def _lacks(self, kind: str, obj: Obj, name: str) -> bool:
        return Key(kind, obj["metadata"]["namespace"], name) not in self.cache.objects

    async def _apply(self, obj: Obj, plan: Plan) -> None:
        for child in plan.create:
            await self._create(child)
        for child in plan.apply:
            self.cache.put(await self.cluster.apply(child, FIELD_MANAGER))
        await self._write_status(obj, plan.status)
        for ref in plan.delete:
            await self._delete(ref)
        for event in plan.events:
            await self.cluster.record_event(obj, event.type, event.reason, event.message)

    async def _create(self, child: Obj) -> None:
        """POST once; what is already there is adopted only if it is the very same attempt of the same owner."""
        try:
            self.cache.put(await self.cluster.create(child))
        except AlreadyExists:
            metadata = child["metadata"]
            found = await self.cluster.get(Ref(child["kind"], metadata["name"], metadata["namespace"]))
            if not _is_same_attempt(found, child):
                name = f"{child['kind']} {metadata['namespace']}/{metadata['name']}"
                raise ForeignObject(f"{name} exists and is not ours; delete it or rename the pipeline") from None
            self.cache.put(found)

    async def _write_status(self, obj: Obj, status: Obj) -> None:
        """Write the whole status when it differs, guarded by the version that the decision was made from."""
        if obj.get("status") == status:
            return
        metadata = obj["metadata"]
        document = {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata},
            "status": status,
        }
        self.cache.put(await self.cluster.apply_status(document, FIELD_MANAGER, metadata.get("resourceVersion")))

    async def _delete(self, ref: Any) -> None:  # noqa: ANN401 - core's Ref, which carries a uid
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


def _is_same_attempt(found: Obj, wanted: Obj) -> bool:
    owner = wanted["metadata"]["ownerReferences"][0]["uid"]
    owners = {item.get("uid") for item in found["metadata"].get("ownerReferences") or []}
    digests = [(item["metadata"].get("annotations") or {}).get(ANNOTATION_DIGEST) for item in (found, wanted)]
    return owner in owners and digests[0] == digests[1]
