"""What a cluster does, as one table: it runs against the local directory and against a real API server.

A case is a few requests and what comes of them. Objects of a case carry its name, so that cases can share a
namespace.
"""

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from bessemer_operator.cluster import Cluster, ClusterError, NotFound, Obj, Ref, ref_of
from tests.api.documents import DIGEST, STAGE

WAIT_SECONDS = 120.0
"""The garbage collector of a real server takes half a minute to learn of new CRDs."""


@dataclass(frozen=True)
class World:
    """A cluster, and the corner of it that a case may use."""

    cluster: Cluster
    namespace: str
    name: str

    def stage(self, seed: int = 1, suffix: str = "", **meta: Any) -> Obj:
        obj = copy.deepcopy(STAGE)
        obj["metadata"] = {"name": self.name + suffix, "namespace": self.namespace, **meta}
        obj["spec"]["profile"] = f"profile-{seed}"
        return obj

    def config_map(self, suffix: str = "", data: dict[str, str] | None = None, **meta: Any) -> Obj:
        found = {"name": self.name + suffix, "namespace": self.namespace, **meta}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": found, "data": data or {"a": "1"}}

    def pod(self, node: str = "", **meta: Any) -> Obj:
        spec: Obj = {"containers": [{"name": "main", "image": "none"}], "restartPolicy": "Never"}
        spec |= {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 25}
        spec |= {"nodeName": node} if node else {"nodeSelector": {"bessemer.test/no": "node"}}
        found = {"name": self.name, "namespace": self.namespace, **meta}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": found, "spec": spec}

    async def is_there(self, ref: Ref) -> bool:
        try:
            await self.cluster.get(ref)
        except NotFound:
            return False
        return True

    async def goes(self, ref: Ref) -> bool:
        """Whether an object is gone, soon: garbage is collected in the background."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            if not await self.is_there(ref):
                return True
            await asyncio.sleep(0.05)
        return False


@dataclass(frozen=True)
class Case:
    id: str
    steps: Callable[[World], Awaitable[Any]]
    expected: Any


async def refusal(request: Awaitable[Any]) -> str:
    """The name of the error that a request meets."""
    try:
        await request
    except ClusterError as error:
        assert str(error)
        return type(error).__name__
    return "no error"


def owner(obj: Obj) -> dict[str, Any]:
    meta = obj["metadata"]
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": meta["name"], "uid": meta["uid"]}


def condition(kind: str, status: str = "True") -> dict[str, Any]:
    times = {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}
    return {"type": kind, "status": status, "reason": "Because", "message": "why", **times}


def with_conditions(obj: Obj, *kinds: str) -> Obj:
    return {**obj, "status": {"conditions": [condition(kind) for kind in kinds]}}


def types(obj: Obj) -> list[str]:
    return sorted(item["type"] for item in obj["status"]["conditions"])


async def get_absent(w: World) -> Any:
    return await refusal(w.cluster.get(Ref("ConfigMap", w.name, w.namespace)))


async def create(w: World) -> Any:
    made = await w.cluster.create(w.stage())
    meta = made["metadata"]
    found = await w.cluster.get(ref_of(made))
    return made == found, meta["generation"], all(meta[k] for k in ("uid", "creationTimestamp", "resourceVersion"))


async def create_twice(w: World) -> Any:
    await w.cluster.create(w.stage())
    return await refusal(w.cluster.create(w.stage()))


async def create_generated(w: World) -> Any:
    obj = w.config_map()
    obj["metadata"] = {"generateName": w.name + "-", "namespace": w.namespace}
    names = [(await w.cluster.create(obj))["metadata"]["name"] for _ in range(2)]
    return names[0] != names[1], [len(name) - len(w.name) for name in names]


async def create_with_version(w: World) -> Any:
    return await refusal(w.cluster.create(w.config_map(resourceVersion="1")))


async def create_drops_status(w: World) -> Any:
    made = await w.cluster.create(with_conditions(w.stage(), "Ready"))
    return "status" in made


async def create_pod(w: World) -> Any:
    made = await w.cluster.create({**w.pod(), "status": {"phase": "Running"}})
    return made["status"]["phase"]


async def apply_twice(w: World) -> Any:
    first = await w.cluster.apply(w.stage(), "a")
    second = await w.cluster.apply(w.stage(), "a")
    return first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def generations(w: World) -> Any:
    found = [await w.cluster.apply(obj, "a") for obj in (w.stage(1), w.stage(2), w.stage(2, labels={"x": "y"}))]
    return [obj["metadata"]["generation"] for obj in found]


async def left_out(w: World) -> Any:
    await w.cluster.apply(w.config_map(data={"a": "1", "b": "2"}, labels={"x": "1", "y": "2"}), "a")
    found = await w.cluster.apply(w.config_map(data={"a": "1"}), "a")
    return found["data"], found["metadata"].get("labels")


async def users_annotation(w: World) -> Any:
    made = await w.cluster.apply(w.config_map(annotations={"a": "operator"}), "a")
    await w.cluster.patch_annotations(ref_of(made), {"user": "set"})
    found = await w.cluster.apply(w.config_map(), "a")
    return found["metadata"].get("annotations")


async def forced(w: World) -> Any:
    await w.cluster.apply(w.config_map(data={"a": "1", "b": "1"}), "a")
    await w.cluster.apply(w.config_map(data={"a": "2"}), "b")
    found = await w.cluster.apply(w.config_map(data={"c": "3"}), "a")
    return found["data"]


async def shared(w: World) -> Any:
    await w.cluster.apply(w.config_map(data={"a": "1"}), "a")
    await w.cluster.apply(w.config_map(data={"a": "1"}), "b")
    first = await w.cluster.apply(w.config_map(data={"z": "1"}), "a")
    second = await w.cluster.apply(w.config_map(data={"z": "1"}), "b")
    return first["data"], second["data"]


async def apply_over_create(w: World) -> Any:
    await w.cluster.create(w.config_map(data={"made": "1"}))
    await w.cluster.apply(w.config_map(data={"a": "1"}), "a")
    found = await w.cluster.apply(w.config_map(data={"b": "1"}), "a")
    return found["data"]


async def managers(w: World) -> Any:
    made = await w.cluster.apply(w.stage(labels={"x": "1"}), "a")
    await w.cluster.patch_annotations(ref_of(made), {"user": "set"})
    found = await w.cluster.apply_status(with_conditions(made, "Ready"), "a")
    entries = found["metadata"]["managedFields"]
    return {f"{e['manager']} {e['operation']} {e.get('subresource', '')}": no_dots(e["fieldsV1"]) for e in entries}


def no_dots(fields: dict[str, Any]) -> dict[str, Any]:
    """Without the marks for maps themselves, which the directory does not keep."""
    return {key: no_dots(below) for key, below in fields.items() if key != "."}


async def status_alone(w: World) -> Any:
    made = await w.cluster.apply(w.stage(), "a")
    changed = {**with_conditions(made, "Ready"), "spec": {**made["spec"], "profile": "other"}}
    found = await w.cluster.apply_status(changed, "a")
    again = await w.cluster.apply({**w.stage(), "status": {"conditions": []}}, "a")
    return found["metadata"]["generation"], found["spec"]["profile"], types(again)


async def status_versions(w: World) -> Any:
    made = await w.cluster.apply(w.stage(), "a")
    version = made["metadata"]["resourceVersion"]
    await w.cluster.apply_status(with_conditions(made, "Ready"), "a", version)
    return await refusal(w.cluster.apply_status(with_conditions(made, "Stalled"), "a", version))


OTHER_UID = "6a1b5a9e-0000-4000-8000-000000000000"


async def status_uid(w: World) -> Any:
    pod = await w.cluster.create(w.pod())
    stage = await w.cluster.apply(w.stage(), "a")
    results = []
    for obj, status in ((pod, {"phase": "Running"}), (stage, with_conditions(stage, "Ready")["status"])):
        other = {**obj, "metadata": {**obj["metadata"], "uid": OTHER_UID}, "status": status}
        results.append(await refusal(w.cluster.apply_status(other, "a")))
    return results


async def status_of_nothing(w: World) -> Any:
    return await refusal(w.cluster.apply_status(with_conditions(w.stage(), "Ready"), "a"))


async def status_of_config_map(w: World) -> Any:
    made = await w.cluster.apply(w.config_map(), "a")
    return await refusal(w.cluster.apply_status({**made, "status": {"x": 1}}, "a"))


async def conditions_merge(w: World) -> Any:
    made = await w.cluster.apply(w.stage(), "a")
    await w.cluster.apply_status(with_conditions(made, "Ready", "Trained"), "a")
    both = await w.cluster.apply_status(with_conditions(made, "Stalled"), "b")
    fewer = await w.cluster.apply_status(with_conditions(made, "Ready"), "a")
    return types(both), types(fewer)


async def status_same(w: World) -> Any:
    made = await w.cluster.apply(w.stage(), "a")
    first = await w.cluster.apply_status(with_conditions(made, "Ready"), "a")
    second = await w.cluster.apply_status(with_conditions(made, "Ready"), "a")
    return first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def update_versions(w: World) -> Any:
    made = await w.cluster.create(w.config_map())
    await w.cluster.update({**made, "data": {"a": "2"}})
    return await refusal(w.cluster.update({**made, "data": {"a": "3"}}))


async def update_replaces(w: World) -> Any:
    made = await w.cluster.create(w.config_map(data={"a": "1"}, labels={"x": "1"}))
    meta = {key: value for key, value in made["metadata"].items() if key != "labels"}
    found = await w.cluster.update({**made, "metadata": meta, "data": {"b": "2"}})
    return found["data"], found["metadata"].get("labels"), found["metadata"]["uid"] == made["metadata"]["uid"]


async def update_keeps_status(w: World) -> Any:
    made = await w.cluster.apply(w.stage(), "a")
    found = await w.cluster.apply_status(with_conditions(made, "Ready"), "a")
    changed = await w.cluster.update({**found, "status": {}, "spec": {**found["spec"], "profile": "other"}})
    return types(changed), changed["metadata"]["generation"]


async def apply_versions(w: World) -> Any:
    made = await w.cluster.apply(w.config_map(), "a")
    await w.cluster.patch_annotations(ref_of(made), {"x": "1"})
    stale = w.config_map(data={"a": "2"}, resourceVersion=made["metadata"]["resourceVersion"])
    return await refusal(w.cluster.apply(stale, "a"))


async def annotations(w: World) -> Any:
    made = await w.cluster.create(w.config_map(annotations={"a": "1", "b": "2"}))
    found = await w.cluster.patch_annotations(ref_of(made), {"a": None, "c": "3"})
    absent = Ref("ConfigMap", "absent", w.namespace)
    return found["metadata"]["annotations"], await refusal(w.cluster.patch_annotations(absent, {"a": "1"}))


async def delete_absent(w: World) -> Any:
    return await refusal(w.cluster.delete(Ref("ConfigMap", w.name, w.namespace)))


async def delete_other(w: World) -> Any:
    made = await w.cluster.create(w.config_map())
    wrong = await refusal(w.cluster.delete(ref_of(made), uid=OTHER_UID))
    await w.cluster.delete(ref_of(made), uid=made["metadata"]["uid"])
    return wrong, await w.is_there(ref_of(made))


async def same_name_again(w: World) -> Any:
    first = await w.cluster.create(w.config_map())
    await w.cluster.delete(ref_of(first))
    second = await w.cluster.create(w.config_map())
    return first["metadata"]["uid"] == second["metadata"]["uid"]


async def dependents(w: World) -> Any:
    made = await w.cluster.create(w.stage())
    child = await w.cluster.create(w.config_map(ownerReferences=[owner(made)]))
    grandchild = await w.cluster.create(w.config_map("-2", ownerReferences=[owner(child)]))
    await w.cluster.delete(ref_of(made))
    return await w.goes(ref_of(child)), await w.goes(ref_of(grandchild))


async def orphaned(w: World) -> Any:
    made = await w.cluster.create(w.stage())
    child = await w.cluster.create(w.config_map(ownerReferences=[owner(made)]))
    await w.cluster.delete(ref_of(made), propagation="Orphan")
    gone = await w.goes(ref_of(made))
    return gone, (await w.cluster.get(ref_of(child)))["metadata"].get("ownerReferences")


async def two_owners(w: World) -> Any:
    first, second = await w.cluster.create(w.stage(suffix="-1")), await w.cluster.create(w.stage(suffix="-2"))
    child = await w.cluster.create(w.config_map(ownerReferences=[owner(first), owner(second)]))
    await w.cluster.delete(ref_of(first))
    marker = await w.cluster.create(w.config_map("-m", ownerReferences=[owner(second)]))
    stays = await w.is_there(ref_of(child))
    await w.cluster.delete(ref_of(second))
    return stays, await w.goes(ref_of(child)), await w.goes(ref_of(marker))


async def stranger_owner(w: World) -> Any:
    made = await w.cluster.create(w.stage())
    await w.cluster.delete(ref_of(made))
    child = await w.cluster.create(w.config_map(ownerReferences=[owner(made)]))
    return await w.goes(ref_of(child))


async def unbound_pod(w: World) -> Any:
    made = await w.cluster.create(w.pod())
    await w.cluster.delete(ref_of(made))
    return await w.is_there(ref_of(made))


async def bound_pod(w: World) -> Any:
    made = await w.cluster.create(w.pod(node="absent-node"))
    await w.cluster.delete(ref_of(made))
    going = (await w.cluster.get(ref_of(made)))["metadata"]
    await w.cluster.delete(ref_of(made), grace_seconds=5)
    sooner = (await w.cluster.get(ref_of(made)))["metadata"]
    await w.cluster.delete(ref_of(made), grace_seconds=0, uid=made["metadata"]["uid"])
    graces = [meta["deletionGracePeriodSeconds"] for meta in (going, sooner)]
    return "deletionTimestamp" in going, graces, await w.is_there(ref_of(made))


async def finished_pod(w: World) -> Any:
    made = await w.cluster.create(w.pod(node="absent-node"))
    await w.cluster.apply_status({**made, "status": {"phase": "Succeeded"}}, "kubelet")
    await w.cluster.delete(ref_of(made))
    return await w.is_there(ref_of(made))


async def finalizers(w: World) -> Any:
    made = await w.cluster.create(w.config_map(finalizers=["bessemer.test/hold"]))
    await w.cluster.delete(ref_of(made))
    held = await w.cluster.get(ref_of(made))
    await w.cluster.update({**held, "metadata": {**held["metadata"], "finalizers": []}})
    return "deletionTimestamp" in held["metadata"], await w.is_there(ref_of(made))


async def listing(w: World) -> Any:
    for suffix, value in (("-1", "x"), ("-2", "y"), ("-3", "x")):
        await w.cluster.create(w.config_map(suffix, labels={"case": w.name, "part": value}))
    found = await w.cluster.list("ConfigMap", w.namespace, {"case": w.name, "part": "x"})
    everywhere = await w.cluster.list("ConfigMap", None, {"case": w.name})
    elsewhere = await w.cluster.list("ConfigMap", "default", {"case": w.name})
    names = [obj["metadata"]["name"].removeprefix(w.name) for obj in found.items]
    return names, found.items[0]["kind"], found.items[0]["apiVersion"], len(everywhere.items), len(elsewhere.items)


async def watching(w: World) -> Any:
    since = {
        kind: (await w.cluster.list(kind, w.namespace)).resource_version for kind in ("ConfigMap", "TrainingStage")
    }
    made = await w.cluster.create(w.config_map())
    await w.cluster.update({**made, "data": {"a": "2"}})
    await w.cluster.delete(ref_of(made))
    await w.cluster.create(w.stage())
    seen: dict[str, list[str]] = {"ConfigMap": [], "TrainingStage": []}
    async with asyncio.timeout(WAIT_SECONDS), aclosing(w.cluster.watch(list(since), since, w.namespace)) as events:
        async for event in events:
            if event.type != "BOOKMARK" and event.obj["metadata"]["name"] == w.name:
                seen[event.obj["kind"]].append(event.type)
            if sum(map(len, seen.values())) == 4:
                break
    return seen


async def watch_live(w: World) -> Any:
    since = {"ConfigMap": (await w.cluster.list("ConfigMap", w.namespace)).resource_version}
    versions = []

    async def read() -> None:
        async with aclosing(w.cluster.watch(["ConfigMap"], since, w.namespace)) as events:
            async for event in events:
                if event.type != "BOOKMARK" and event.obj["metadata"]["name"] == w.name:
                    versions.append(event.obj["metadata"]["resourceVersion"])
                    return

    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(read())
        made = await w.cluster.create(w.config_map())
    return versions == [made["metadata"]["resourceVersion"]]


async def events(w: World) -> Any:
    made = await w.cluster.create(w.stage())
    for _ in range(3):
        await w.cluster.record_event(made, "Warning", "Odd", "a message")
    await w.cluster.record_event(made, "Normal", "Fine", "another")
    found = (await w.cluster.list("Event", w.namespace)).items
    mine = [item for item in found if item["involvedObject"]["uid"] == made["metadata"]["uid"]]
    return sorted((e["type"], e["reason"], e["message"], e["count"], e["involvedObject"]["kind"]) for e in mine)


async def defaults(w: World) -> Any:
    made = await w.cluster.apply(w.stage(), "a")
    return made["spec"]


async def immutable_inputs(w: World) -> Any:
    await w.cluster.apply(w.stage(), "a")
    changed = w.stage()
    changed["spec"]["inputs"]["train"]["maxSteps"] = 11
    return await refusal(w.cluster.apply(changed, "a"))


async def immutable_config_map(w: World) -> Any:
    made = await w.cluster.create({**w.config_map(), "immutable": True})
    annotated = await w.cluster.patch_annotations(ref_of(made), {"x": "1"})
    return await refusal(w.cluster.update({**annotated, "data": {"a": "2"}}))


async def apply_unknown(w: World) -> Any:
    obj = w.stage()
    return await refusal(w.cluster.apply({**obj, "spec": {**obj["spec"], "unknown": 1}}, "a"))


def refused(edit: Callable[[Obj], Any], what: str = "stage") -> Callable[[World], Awaitable[Any]]:
    """Steps that create an object after an edit."""

    async def steps(w: World) -> Any:
        obj: Obj = getattr(w, what)()
        edit(obj)
        return await refusal(w.cluster.create(obj))

    return steps


def set_spec(key: str, value: Any) -> Callable[[Obj], Any]:
    return lambda obj: obj["spec"].update({key: value})


def set_meta(key: str, value: Any) -> Callable[[Obj], Any]:
    return lambda obj: obj["metadata"].update({key: value})


DEFAULTED_STAGE = {
    "store": "s3://models/poems",
    "inputDigest": DIGEST,
    "profile": "profile-1",
    "nodes": 1,
    "retry": "",
    "suspend": False,
    "inputs": {
        "method": "cpt",
        "startFrom": DIGEST,
        "data": DIGEST,
        "recipe": 1,
        "rerun": "",
        "seed": 0,
        "train": {
            "maxSteps": 10,
            "adamBeta1": 0.9,
            "adamBeta2": 0.95,
            "beta": 0.1,
            "globalBatchTokens": 65536,
            "gradientCheckpointing": False,
            "gradientClip": 1.0,
            "learningRate": 2e-05,
            "lossOn": "completion",
            "lossType": "sigmoid",
            "minLearningRateRatio": 0.1,
            "neftuneAlpha": 0.0,
            "precision": "bf16",
            "schedule": "cosine",
            "warmupRatio": 0.1,
            "weightDecay": 0.1,
        },
    },
}
CONDITION_FIELDS = ("type", "status", "reason", "message", "lastTransitionTime", "observedGeneration")
MANAGED = {
    "a Apply ": {
        "f:metadata": {"f:labels": {"f:x": {}}},
        "f:spec": {
            "f:store": {},
            "f:inputDigest": {},
            "f:profile": {},
            "f:inputs": {"f:method": {}, "f:startFrom": {}, "f:data": {}, "f:train": {"f:maxSteps": {}}},
        },
    },
    "a Apply status": {
        "f:status": {"f:conditions": {'k:{"type":"Ready"}': {f"f:{key}": {} for key in CONDITION_FIELDS}}}
    },
    "bessemer-annotate Update ": {"f:metadata": {"f:annotations": {"f:user": {}}}},
}
CONDITIONS_BOTH = ["Ready", "Stalled", "Trained"]

CASES = [
    Case("what is not there is NotFound", get_absent, "NotFound"),
    Case("a created object has a uid, a version, a time and generation 1", create, (True, 1, True)),
    Case("a name can be created once", create_twice, "AlreadyExists"),
    Case("generateName adds five letters and never meets itself", create_generated, (True, [6, 6])),
    Case("a creation must not carry a resourceVersion", create_with_version, "Invalid"),
    Case("a creation leaves a status out", create_drops_status, False),
    Case("a pod is born Pending", create_pod, "Pending"),
    Case("an apply that changes nothing makes no version", apply_twice, True),
    Case("generation counts changes of spec, not of labels", generations, [1, 2, 2]),
    Case("what an apply leaves out goes", left_out, ({"a": "1"}, None)),
    Case("an apply leaves a user's annotation alone", users_annotation, {"user": "set"}),
    Case("a forced apply takes a field from its owner", forced, {"a": "2", "c": "3"}),
    Case("a field of two managers goes with the last", shared, ({"a": "1", "z": "1"}, {"z": "1"})),
    Case("an apply never removes what a create made", apply_over_create, {"made": "1", "b": "1"}),
    Case(
        "managedFields names each writer",
        managers,
        MANAGED,
    ),
    Case("status and spec are written apart", status_alone, (1, "profile-1", ["Ready"])),
    Case("a status write on an old version conflicts", status_versions, "Conflict"),
    Case("a status write for another uid is refused by a built-in kind only", status_uid, ["Invalid", "no error"]),
    Case("a status without its object is NotFound", status_of_nothing, "NotFound"),
    Case("a ConfigMap has no status", status_of_config_map, "NotFound"),
    Case("conditions merge by type", conditions_merge, (CONDITIONS_BOTH, ["Ready", "Stalled"])),
    Case("a status that changes nothing makes no version", status_same, True),
    Case("an update of an old version conflicts", update_versions, "Conflict"),
    Case("an update replaces the whole object", update_replaces, ({"b": "2"}, None, True)),
    Case("an update leaves the status alone", update_keeps_status, (["Ready"], 2)),
    Case("an apply of an old version conflicts", apply_versions, "Conflict"),
    Case("annotations are set and removed one by one", annotations, ({"b": "2", "c": "3"}, "NotFound")),
    Case("a deletion of nothing is NotFound", delete_absent, "NotFound"),
    Case("a deletion of another uid conflicts", delete_other, ("Conflict", False)),
    Case("the same name again has another uid", same_name_again, False),
    Case("dependents go with their owner, to the last generation", dependents, (True, True)),
    Case("dependents stay when asked to be orphaned", orphaned, (True, None)),
    Case("a dependent of two owners goes with the last", two_owners, (True, True, True)),
    Case("a dependent of an owner that is gone goes", stranger_owner, True),
    Case("a pod without a node is deleted at once", unbound_pod, False),
    Case("a pod on a node gets its grace, which can be shortened", bound_pod, (True, [25, 5], False)),
    Case("a finished pod is deleted at once", finished_pod, False),
    Case("a finalizer holds an object until it is removed", finalizers, (True, False)),
    Case("a list selects by namespace and labels", listing, (["-1", "-3"], "ConfigMap", "v1", 3, 0)),
    Case(
        "a watch continues from a list",
        watching,
        {"ConfigMap": ["ADDED", "MODIFIED", "DELETED"], "TrainingStage": ["ADDED"]},
    ),
    Case("a watch sees a write while it waits", watch_live, True),
    Case(
        "the same event again raises its count",
        events,
        [
            ("Normal", "Fine", "another", 1, "TrainingStage"),
            ("Warning", "Odd", "a message", 3, "TrainingStage"),
        ],
    ),
    Case("the CRD's defaults are stored", defaults, DEFAULTED_STAGE),
    Case("inputs can not be changed", immutable_inputs, "Invalid"),
    Case("an immutable ConfigMap keeps its data", immutable_config_map, "Invalid"),
    Case("an upper case name is Invalid", refused(set_meta("name", "Upper")), "Invalid"),
    Case("a name of 254 characters is Invalid", refused(set_meta("name", "a" * 254), "config_map"), "Invalid"),
    Case("a path as a name is Invalid", refused(set_meta("name", "../../x"), "config_map"), "Invalid"),
    Case("a label value of 64 characters is Invalid", refused(set_meta("labels", {"x": "a" * 64})), "Invalid"),
    Case("a label key with a space is Invalid", refused(set_meta("labels", {"a b": "x"})), "Invalid"),
    Case("annotations over 256 KiB are Invalid", refused(set_meta("annotations", {"x": "a" * 262144})), "Invalid"),
    Case(
        "a ConfigMap over 1 MiB is Invalid",
        refused(lambda obj: obj.update(data={"x": "a" * (1024 * 1024 + 1)}), "config_map"),
        "Invalid",
    ),
    Case("a wrong type is Invalid", refused(set_spec("limits", "none")), "Invalid"),
    Case("an unknown field is Invalid", refused(set_spec("unknown", 1)), "Invalid"),
    Case("an unknown field is Invalid in an apply", apply_unknown, "Invalid"),
    Case("a bad digest is Invalid", refused(set_spec("inputDigest", DIGEST[:-1])), "Invalid"),
    Case("a missing field is Invalid", refused(lambda obj: obj["spec"].pop("inputs")), "Invalid"),
]
