"""A whole world without a cluster and without training: the real operator on a `LocalCluster`, driven step by step.

What is real: the API (LocalCluster), cache, queue, runtime, controller and core. What is played: the nodes. A `Node`
completes Jobs and PyTorchJobs at once with the reports that a `Store` computes (digest in, digest out), or as a test's
script says. Time stands still until nothing is left to do but to wait; then it jumps.
"""

import copy
import json
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bessemer_api.digest import sha256_digest
from bessemer_api.job import (
    AxisEvidence,
    ChannelHead,
    CompareReport,
    CompareTask,
    DiagnoseReport,
    DiagnoseTask,
    DiagnosticFinding,
    PromoteReport,
    PromoteTask,
    ResolveReport,
    ResolveTask,
    RollbackReport,
    RollbackTask,
    RunError,
    RunReport,
    RunSpec,
)
from bessemer_operator.cluster.local import LocalCluster
from bessemer_operator.cluster.objects import is_true, owner_reference
from bessemer_operator.cluster.protocol import NotFound, Ref
from bessemer_operator.core.profile import Profile
from bessemer_operator.reconcile.cache import ATTEMPT_KINDS, WATCHED, Cache, Key
from bessemer_operator.reconcile.controller import Controller
from bessemer_operator.reconcile.guarded import GuardedCluster
from bessemer_operator.reconcile.queue import WorkQueue
from bessemer_operator.reconcile.resync import resync
from bessemer_operator.reconcile.runtime import Runtime

Obj = dict[str, Any]
START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = timedelta(hours=1)
"""Waits up to this long are waited for; deadlines of days are not."""
TRIES = 15
"""Waits in a row after which nothing was written."""
PROFILES = {"default": Profile(image="trainer", cpu="1", memory="1Gi")}
VERDICTS = {
    # p_win, p_hold, p_worse, p_no_win, delta
    "pass": (1e-9, 1e-9, 1.0, 1.0, 0.2),
    "worse": (1.0, 1.0, 1e-9, 1e-9, -0.2),
    "unclear": (0.4, 0.4, 0.4, 0.4, 0.0),
}


def utc_start() -> datetime:
    """The time at which every world begins."""
    return START


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A temporary folder, in memory where the host has such a place: a directory cluster syncs every write."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


class Killed(BaseException):
    """The operator process is killed here."""


@dataclass(frozen=True)
class Ending:
    """How the pod of an attempt ends: an exit code, and its termination message."""

    code: int = 0
    message: str = ""
    reason: str = ""
    """Reason of a DisruptionTarget condition of the pod; none when empty."""


Script = Callable[[RunSpec, str], Ending | str | None]
"""Told the run and the attempt's name: an Ending, "hang" to let it run on, or None for what the store says."""


def digest_of(*parts: object) -> str:
    """A made-up but reproducible digest."""
    return sha256_digest(json.dumps(parts, default=str).encode())


PULL_REQUEST = "https://git.example.com/org/deploy/pulls/7"
COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Store:
    """What pods would find and leave in the artifact store."""

    channels: dict[str, list[PromoteTask]] = field(default_factory=dict)
    """Records of each channel; one that came by a rollback has the gate `rollback`."""
    held: list[str] = field(default_factory=list)
    dev_means: dict[str, dict[str, float]] = field(default_factory=dict)
    """Means of a checkpoint on the dev items, by axis; 1.0 where nothing is said."""
    times: dict[tuple[str, int], str] = field(default_factory=dict)
    """When a record was written, by channel and number."""
    clock: Callable[[], datetime] = field(default_factory=lambda: utc_start)
    verdicts: dict[tuple[str, int], str] = field(default_factory=dict)
    """By gate and look; "pass" where nothing is said."""
    unmerged: set[str] = field(default_factory=set)
    """Channels whose pull request nobody has merged yet."""
    alarms: list[str] = field(default_factory=list)
    """Diagnostics that raise an alarm."""
    computed: list[str] = field(default_factory=list)
    """Input digests of stages and merges in the order in which they were really computed."""

    def run(self, spec: RunSpec) -> RunReport:
        """The report of a pod that did what it was asked."""
        fields: dict[str, Any] = {"output_digest": digest_of("out", spec.input_digest)}
        if spec.resolve is not None:
            fields = {"resolve": self._resolve(spec.resolve)}
        elif spec.compare is not None:
            fields |= {"compare": self._compare(spec.compare)}
        elif spec.diagnose is not None:
            fields |= {"diagnose": self._diagnose(spec.diagnose)}
        elif spec.evaluate is not None and spec.evaluate.part == "dev":
            means = self.dev_means.get(spec.evaluate.checkpoint, {})
            fields |= {"metrics": {axis.name: means.get(axis.name, 1.0) for axis in spec.evaluate.axes}}
        elif spec.rollback is not None:
            fields = {"rollback": self._rollback(spec.rollback)}
        elif spec.promote is not None:
            fields = {"promote": self._promote(spec.promote)}
        elif spec.report is not None:
            fields |= {"url": f"{spec.store}/reports/{spec.input_digest[7:19]}.html"}
        elif spec.stage is not None or spec.merge is not None:
            fields |= {"reused": spec.input_digest in self.computed}
            if spec.input_digest not in self.computed:
                self.computed.append(spec.input_digest)
        return RunReport(run_uid=spec.run_uid, verb=spec.verb, input_digest=spec.input_digest, **fields)

    def _resolve(self, task: ResolveTask) -> ResolveReport:
        contents = {"base": digest_of(task.base.wire())} if task.base else {}
        contents |= {f"data/{name}": digest_of([item.wire() for item in found]) for name, found in task.data.items()}
        contents |= {f"bank/{name}": digest_of(list(found)) for name, found in task.banks.items()}
        return ResolveReport(contents=contents, channels={name: self.head(name) for name in task.channels})

    def head(self, channel: str) -> ChannelHead:
        """The newest record of a channel."""
        records = self.channels.get(channel, [])
        if not records:
            return ChannelHead(held=self.held)
        newest = records[-1]
        is_rollback = newest.gate == "rollback"
        brought = [r for r in records if r.candidate == newest.candidate and r.gate != "rollback"]
        origin = "override" if brought and brought[-1].override else "promotion"
        return ChannelHead(
            record=len(records),
            digest=newest.candidate,
            at=self.times.get((channel, len(records)), "2026-01-01T00:00:00Z"),
            held=self.held,
            kind="rollback" if is_rollback else "override" if newest.override else "promotion",
            origin=origin,  # type: ignore[arg-type]
            gate=brought[-1].gate if brought else None,
            evidence=brought[-1].evidence if brought else None,
            wins=brought[-1].wins if brought else None,
            by=newest.by,
            previous=records[-2].candidate if len(records) > 1 else None,
        )

    def _compare(self, task: CompareTask) -> CompareReport:
        verdict = self.verdicts.get((task.gate, task.look), "pass")
        names = [axis.name for axis in task.axes]
        known = "pass" if verdict == "invalid" else verdict
        return CompareReport(
            look=task.look,
            tries=1,
            axes=[evidence(name, task.looks[task.look - 1], known) for name in names],
            anchors=[evidence(name, task.looks[task.look - 1], known) for name in task.anchors],
            also={
                name: [evidence(axis, task.looks[task.look - 1], known) for axis in other.axes]
                for name, other in (task.also or {}).items()
            }
            or None,
            settings_agree=verdict != "invalid",
        )

    def _diagnose(self, task: DiagnoseTask) -> DiagnoseReport:
        names = [item.name for item in task.diagnostics]
        states: dict[str, Any] = {name: "Alarm" if name in self.alarms else "Quiet" for name in names}
        return DiagnoseReport(findings=[DiagnosticFinding(name=name, state=states[name]) for name in names])

    def _promote(self, task: PromoteTask) -> PromoteReport:
        records = self.channels.setdefault(task.channel, [])
        at = self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        if records and records[-1].candidate == task.candidate:
            return PromoteReport(outcome="AlreadyPromoted", record=len(records), digest=task.candidate, at=at)
        if task.candidate in self.held:
            return PromoteReport(outcome="Held", record=len(records))
        if len(records) != task.record:
            return PromoteReport(outcome="BaselineMoved", record=len(records), digest=records[-1].candidate, at=at)
        if task.after is not None and self.channels[task.after][-1].candidate != task.candidate:
            return PromoteReport(outcome="LeftBefore", record=len(records))
        if task.git is not None and task.channel in self.unmerged:
            return PromoteReport(outcome="WaitingForMerge", record=len(records), url=PULL_REQUEST)
        records.append(task)
        self.times[(task.channel, len(records))] = at
        commit = COMMIT if task.git is not None else None
        return PromoteReport(outcome="Promoted", record=len(records), digest=task.candidate, at=at, commit=commit)

    def _rollback(self, task: RollbackTask) -> RollbackReport:
        records, at = self.channels[task.channel], self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        if task.git is not None and task.channel in self.unmerged:
            return RollbackReport(outcome="WaitingForMerge", record=0, digest=task.digest, url=PULL_REQUEST)
        left = records[-1].candidate
        self.held = [*(digest for digest in self.held if digest != task.digest), left]
        records.append(records[-1].model_copy(update={"candidate": task.digest, "gate": "rollback", "by": task.by}))
        return RollbackReport(outcome="RolledBack", record=len(records), digest=task.digest, left=left, at=at)


def evidence(name: str, items: int, verdict: str) -> AxisEvidence:
    """Statistics of one axis that lead to a verdict."""
    p_win, p_hold, p_worse, p_no_win, delta = VERDICTS[verdict]
    return AxisEvidence(
        name=name, n=items, clusters=items, largest_cluster_share=0.01, delta=delta, standard_error=0.001,
        low=delta - 0.002, high=delta + 0.002, p_win=p_win, p_hold=p_hold, p_worse=p_worse, p_no_win=p_no_win,
        baseline_mean=1.0, candidate_mean=1.0 + delta, baseline_low=0.9, binary=False,
    )  # fmt: skip


def failure(spec: RunSpec, code: int, reason: str, message: str) -> Ending:
    """A pod that says why it gives up."""
    report = RunReport(
        run_uid=spec.run_uid,
        verb=spec.verb,
        input_digest=spec.input_digest,
        error=RunError(reason=reason, message=message),
    )
    return Ending(code, report.model_dump_json(by_alias=True, exclude_none=True))


class Tap(GuardedCluster):
    """Every write of the operator in order. `around` is called before and after each; it may raise Killed."""

    def __init__(self, cluster: LocalCluster, around: Callable[[int, str], None]) -> None:
        super().__init__(cluster, lambda verb, ref: None)
        self.writes: list[tuple[str, Ref]] = []
        self._around = around

    async def _write(self, verb: str, ref: Ref, call: Callable[[], Awaitable[Any]]) -> Any:
        number = len(self.writes)
        self.writes.append((verb, ref))
        self._around(number, "before")
        result = await call()
        self._around(number, "after")
        return result


@dataclass
class Node:
    """Plays kubelets, Job controller and training-operator: an attempt runs for one step, then ends."""

    cluster: LocalCluster
    store: Store
    script: Script = lambda spec, name: None

    async def step(self) -> bool:
        """Start what is new, end what ran; whether anything changed."""
        changed = False
        for kind in ATTEMPT_KINDS:
            for job in (await self.cluster.list(kind)).items:
                if not any(is_true(job, name) for name in ("Complete", "Succeeded", "Failed")):
                    changed |= await self._advance(job)
        return await self._collect() or changed

    async def _advance(self, job: Obj) -> bool:
        ref = Ref("Pod", f"{job['metadata']['name']}-pod", job["metadata"]["namespace"])
        try:
            pod = await self.cluster.get(ref)
        except NotFound:
            await self._start(job)
            return True
        spec = await self._run_spec(job)
        ending = self.script(spec, job["metadata"]["name"])
        if ending == "hang":
            return False
        if ending is None:
            report = self.store.run(spec)
            ending = Ending(0, report.model_dump_json(by_alias=True, exclude_none=True))
        assert isinstance(ending, Ending)
        await self.end(job, pod, ending)
        return True

    async def _run_spec(self, job: Obj) -> RunSpec:
        metadata = job["metadata"]
        config = await self.cluster.get(Ref("ConfigMap", metadata["name"], metadata["namespace"]))
        return RunSpec.model_validate_json(config["data"]["run.json"])

    async def _start(self, job: Obj) -> None:
        metadata = job["metadata"]
        template = job["spec"].get("template") or job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{metadata['name']}-pod",
                "namespace": metadata["namespace"],
                "labels": template["metadata"]["labels"],
                "ownerReferences": [owner_reference(job)],
            },
            "spec": template["spec"],
        }
        await self._status(await self.cluster.create(pod), {"phase": "Running", "podIP": "127.0.0.1"})
        await self._status(job, {"startTime": self.cluster._now()})

    async def end(self, job: Obj, pod: Obj, ending: Ending) -> None:
        """Write how the pod ended, then what its controller makes of it."""
        end = {"exitCode": ending.code, "message": ending.message}
        status: Obj = {
            "phase": "Failed" if ending.code else "Succeeded",
            "containerStatuses": [{"name": "pytorch", "state": {"terminated": end}}],
        }
        if ending.reason:
            status["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": ending.reason}]
        await self._status(pod, status)
        await self.finish(job, failed=ending.code != 0)

    async def finish(self, job: Obj, *, failed: bool) -> None:
        """The condition by which a controller says that a job is over."""
        good = "Complete" if job["kind"] == "Job" else "Succeeded"
        found = {"type": "Failed" if failed else good, "status": "True", "lastTransitionTime": self.cluster._now()}
        await self._status(job, {**(job.get("status") or {}), "conditions": [found]})

    async def _status(self, obj: Obj, status: Obj) -> None:
        fresh = await self.cluster.get(Ref(obj["kind"], obj["metadata"]["name"], obj["metadata"]["namespace"]))
        await self.cluster.replace_status({**fresh, "status": status}, "node")

    async def _collect(self) -> bool:
        """Pods whose job is gone end with it, as the garbage collector and a kubelet see to."""
        gone = [pod for pod in (await self.cluster.list("Pod")).items if pod["metadata"].get("deletionTimestamp")]
        for pod in gone:
            metadata = pod["metadata"]
            await self.cluster.delete(Ref("Pod", metadata["name"], metadata["namespace"]), grace_seconds=0)
        return bool(gone)


class World:
    """A cluster, its nodes, and one operator that can be killed and started again."""

    def __init__(self, root: Path, profiles: Mapping[str, Profile] = PROFILES) -> None:
        self.now = START
        self.cluster = LocalCluster(root, lambda: self.now)
        self.store = Store(clock=lambda: self.now)
        self.node = Node(self.cluster, self.store)
        self.profiles = profiles
        self.outcomes: list[tuple[Key, str]] = []
        self.start_operator()

    def copy(self, root: Path) -> "World":
        """This world as it is now, with another operator process that remembers nothing."""
        shutil.copytree(self.cluster.root, root)
        world = World(root, self.profiles)
        world.now = self.now
        world.store = replace(copy.deepcopy(replace(self.store, clock=utc_start)), clock=lambda: world.now)
        world.node = Node(world.cluster, world.store, self.node.script)
        return world

    def start_operator(self, around: Callable[[int, str], None] = lambda number, when: None) -> None:
        """A new operator process: nothing is remembered from an earlier one."""
        self.tap = Tap(self.cluster, around)
        controller = Controller(self.tap, Cache(), self.profiles, lambda: self.now)
        self.runtime = Runtime(controller, WorkQueue(self._seconds))

    def _seconds(self) -> float:
        return (self.now - START).total_seconds()

    @property
    def cache(self) -> Cache:
        return self.runtime.cache

    @property
    def version(self) -> int:
        """Grows with every write to the cluster."""
        return self.cluster._journal.version

    async def apply(self, obj: Obj) -> Obj:
        """`kubectl apply`."""
        return await self.cluster.apply(obj, "user")

    async def annotate(self, name: str, **annotations: str | None) -> None:
        """Annotations of a pipeline; `rerun_from` is written `bessemer.dev/rerun-from`."""
        found = {f"bessemer.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        await self.cluster.patch_annotations(Ref("AdaptationPipeline", name, "default"), found)

    async def settle(self, rounds: int = 400) -> None:
        """Go on until nothing happens any more by itself within PATIENCE, or only the same is tried in vain."""
        in_vain, version = 0, -1
        for _ in range(rounds):
            told = await resync(self.runtime, self.cluster, ())
            worked = await self.work()
            if await self.node.step() or told or worked:
                continue
            in_vain, version = (in_vain + 1 if version == self.version else 0), self.version
            if in_vain > TRIES or not self._wait():
                return
        due = self.runtime.queue.next_due()
        raise AssertionError(f"not settled after {rounds} rounds; next due {due}; last {self.outcomes[-5:]}")

    async def work(self) -> bool:
        """Reconcile all that is due now; whether anything was."""
        worked = False
        while len(self.runtime.queue):
            key = await self.runtime.queue.take()
            self.outcomes.append((key, await self.runtime.handle(key)))
            worked = True
        return worked

    def _wait(self) -> bool:
        due = self.runtime.queue.next_due()
        if due is None or START + timedelta(seconds=due) > self.now + PATIENCE:
            return False
        self.now = max(self.now, START + timedelta(seconds=due, milliseconds=1))
        return True

    async def get(self, kind: str, name: str) -> Obj:
        return await self.cluster.get(Ref(kind, name, "default"))

    async def all(self, kind: str) -> list[Obj]:
        return list((await self.cluster.list(kind)).items)

    async def pipeline(self, name: str = "poems") -> Obj:
        return await self.get("AdaptationPipeline", name)

    async def condition(self, kind: str, name: str = "poems") -> tuple[str, str, str]:
        """Status, reason and message of a condition of a pipeline."""
        found = next(item for item in (await self.pipeline(name))["status"]["conditions"] if item["type"] == kind)
        return found["status"], found["reason"], found["message"]

    async def stage(self, name: str) -> Obj:
        """The newest TrainingStage (or MergeJob) of a stage (or merge) of the pipeline."""
        label = {"bessemer.dev/stage": name}
        found = [
            item
            for kind in ("TrainingStage", "MergeJob")
            for item in (await self.cluster.list(kind, "default", label)).items
        ]
        return max(found, key=lambda item: int(item["metadata"]["resourceVersion"]))

    async def attempts(self, stage: str) -> list[tuple[str, str]]:
        """Outcome and reason of each attempt of a stage."""
        status = (await self.stage(stage)).get("status") or {}
        return [(item["outcome"], item["reason"]) for item in status.get("attempts", [])]

    def births(self) -> Iterator[Ref]:
        """Every object that was ever created, in order."""
        for change in self.cluster._journal.changes:
            if change.type == "ADDED":
                obj = change.obj
                yield Ref(obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace", ""))

    async def picture(self) -> dict[str, Any]:
        """All objects without what differs between two runs that did the same: uids, versions, times, events.

        The tasks of a report and of a promotion hold times, so their digests are left out too.
        """
        found: dict[str, Any] = {}
        for kind in (*WATCHED, "ConfigMap"):
            for obj in await self.all(kind):
                name = f"{kind}/{lasting_name(obj)}"
                assert name not in found, f"two of {name}"
                found[name] = plain(obj)
        return found


_TIMED = re.compile(r"-(report|promote)-[0-9a-f]{10}")
_IS_TIMED = re.compile(r"-(report|promote)-DIGEST")
_REPORT_DIGEST = re.compile(r"(?<=/reports/)[0-9a-f]{12}")
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def lasting_name(obj: Obj) -> str:
    """The name without a digest of times."""
    return _TIMED.sub(r"-\1-DIGEST", obj["metadata"]["name"])


def plain(obj: Obj) -> Any:
    """An object without what differs between two runs that did the same."""
    metadata = {k: v for k, v in obj["metadata"].items() if k not in {"resourceVersion", "managedFields"}}
    text = json.dumps({**obj, "metadata": metadata}, sort_keys=True)
    for pattern, word in ((_UID, "UID"), (_TIME, "TIME"), (_TIMED, r"-\1-DIGEST"), (_REPORT_DIGEST, "DIGEST")):
        text = pattern.sub(word, text)
    plain = json.loads(text)
    if _IS_TIMED.search(plain["metadata"]["name"]):  # its task, and so its digest, tells times
        return {"kind": plain["kind"], "status": {**plain.get("status", {}), "containerStatuses": []}}
    return plain
