"""The table of faults: what goes wrong, and when. A number is for good; a new fault gets a new one.

Each function plays one case on a `Run` and ends with the pipeline done, or checks itself what else must be true.
Cases 22 and 23 need another clock and another size: test_clock_and_size.py. Each write of a whole pipeline as the
operator's last one: test_kill.py, on the directory cluster.
"""

import asyncio
import base64
import json
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from bessemer_operator.cluster.kube import KubeCluster
from tests.faults.bench import Obj, Run
from tests.faults.oracles import by_operator, writes
from tests.support.controlplane import wait_for
from tests.support.controlplane.process import free_port
from tests.support.faultproxy import Asked, Event, Fault, nothing
from tests.support.installation import CRDS, NAMESPACE, answers

SECONDS = 12.0
"""How long what lasts a while lasts: longer than the operator trusts its lease."""
EXIT_SECONDS = 60.0
"""Generous, because other tests run beside; on an idle machine it takes 2."""
MANY = 1000
JOBS = {"jobs", "pytorchjobs"}
READS, WRITES = {"GET"}, {"POST", "PATCH", "DELETE"}


@dataclass(frozen=True)
class Case:
    """One row. `is_equal`: afterwards everything is as it is without the fault.

    `is_frequent`: what an operator meets on any cluster; played by `make test`, all the others by `make faults`.
    """

    number: int
    title: str
    play: Callable[[Run], None]
    is_equal: bool = True
    is_frequent: bool = False

    @property
    def id(self) -> str:
        return f"{self.number:02}-{self.title.replace(' ', '_')}"


# --- killed


def killed_at_writes(when: str) -> Callable[[Run], None]:
    """SIGKILL at five writes of one run, chosen by the seed."""

    def play(run: Run) -> None:
        numbers = sorted(run.rng.sample(range(2, run.bench.reference_writes - 5), 5))
        run.at_write(numbers, run.bench.kill, when)
        run.apply()
        run.await_done()
        assert run.said.count("holds the lease") >= 3  # writes that are under way together die together

    return play


def killed_before_the_status(run: Run) -> None:
    """The child is there, and nobody wrote it down."""
    killed: set[str] = set()
    has_created = False

    def rule(asked: Asked) -> Fault | None:
        nonlocal has_created
        if not run.is_mine(asked):
            return None
        has_created = has_created or (asked.method == "POST" and asked.plural in JOBS)
        if not has_created or asked.plural != "status" or len(killed) == 3 or asked.path in killed:
            return None
        killed.add(asked.path)
        has_created = False
        return Fault(before=run.bench.kill)

    run.bench.proxy.rule = rule
    run.apply()
    run.await_done()
    assert len(killed) == 3


def told_to_end(run: Run) -> None:
    """SIGTERM while a write is under way: it ends in time, and lets go of its lease."""
    begun: list[float] = []

    def ask() -> None:
        begun.append(time.monotonic())
        run.bench.kill(signal.SIGTERM)

    run.at_write([run.rng.randrange(10, 40)], ask, "before")
    run.apply()
    wait_for("SIGTERM", lambda: begun, 120)
    wait_for("the operator to end", lambda: not run.bench.is_running)
    assert time.monotonic() - begun[0] < EXIT_SECONDS
    lease = json.loads(run.bench.plane.kubectl(["get", "lease", "bessemer-operator", "-n", NAMESPACE, "-o", "json"]))
    assert lease["spec"].get("holderIdentity", "") == ""
    run.await_done()


# --- events that never arrive, or arrive from the past


def unseen(kinds: set[str], is_meant: Callable[[Event], bool]) -> Callable[[Run], None]:
    def play(run: Run) -> None:
        lost: list[Event] = []

        def is_lost(event: Event) -> bool:
            if is_meant(event):
                lost.append(event)
            return is_meant(event)

        run.begin_watches(lambda asked: Fault(drop=is_lost) if asked.is_watch and asked.plural in kinds else None)
        run.apply()
        run.await_done()
        assert lost, "no event was lost"

    return play


def has_ended(event: Event) -> bool:
    conditions = (event["object"].get("status") or {}).get("conditions") or []
    return any(item["type"] in {"Complete", "Succeeded", "Failed"} and item["status"] == "True" for item in conditions)


def unseen_deletion(run: Run) -> None:
    """A running attempt is deleted, no watch tells it, and the watch can not go on from where it was."""
    run.hold("pretrain")
    run.apply()
    run.await_held("pretrain")
    refused: Counter[str] = Counter()

    def rule(asked: Asked) -> Fault | None:
        if not asked.is_watch or asked.plural not in JOBS:
            return None
        refused[asked.plural] += 1
        return Fault(first=GONE) if refused[asked.plural] == 1 else Fault(drop=lambda event: event["type"] == "DELETED")

    run.begin_watches(rule)
    wait_for("the watches to be refused", lambda: all(refused[kind] > 1 for kind in JOBS), 60)
    run.kubectl("delete", "pytorchjob", "-l", "bessemer.dev/stage=pretrain", "--wait=true")
    run.release()
    run.await_done()
    outcomes = [item["outcome"] for item in run.stage("pretrain")["status"]["attempts"]]
    assert outcomes[-1] == "Succeeded"
    assert len(outcomes) == 2


def stale_list(run: Run) -> None:
    """A list from the past lacks a job that runs: no second one is made."""
    run.hold("cpt")
    run.apply()
    run.await_held("cpt")
    jobs = {item["metadata"]["name"] for item in [*run.items("Job"), *run.items("PyTorchJob")]}

    def rule(asked: Asked) -> Fault | None:
        if asked.plural not in JOBS or asked.method != "GET":
            return None
        past = {"resourceVersion": "1"}
        return (
            Fault(ends_at_once=True)
            if asked.is_watch
            else Fault(edit=lambda body: {**body, "metadata": past, "items": []})
        )

    run.bench.proxy.rule = rule
    run.await_resyncs(3)
    assert {item["metadata"]["name"] for item in [*run.items("Job"), *run.items("PyTorchJob")]} == jobs
    run.bench.proxy.rule = nothing
    run.release()
    run.await_done()


def stale_generation(run: Run) -> None:
    """After an edit the watch tells of the state before it again and again: nothing goes back."""
    old: list[Event] = []

    def past(event: Event) -> list[Event]:
        metadata = event["object"]["metadata"]
        if event["type"] == "BOOKMARK" or metadata.get("namespace") != run.space:
            return []
        if metadata["generation"] == 1:
            old[:] = [event]
            return []
        return [{**item, "type": "MODIFIED"} for item in old]

    is_pipeline = "adaptationpipelines"
    run.begin_watches(lambda asked: Fault(follow=past) if asked.is_watch and asked.plural == is_pipeline else None)
    run.hold("tokenizer")
    run.apply()
    run.await_held("tokenizer")
    run.apply({"spec.stages.2.train.maxSteps": 12})
    run.release()
    run.await_done()
    assert old, "no event was replayed"
    cpt = run.stage("cpt")
    assert cpt["spec"]["inputs"]["train"]["maxSteps"] == 12
    assert run.get("AdaptationPipeline", "poems")["status"]["observedGeneration"] == 2


def born_again(run: Run) -> None:
    """Deleted and created anew under the same name, while the children of the old one are still there."""
    run.hold("tokenizer")
    run.apply()
    run.await_held("tokenizer")
    before = {item["metadata"]["uid"] for item in run.items("TrainingStage")}
    run.kubectl("delete", "apipe", "poems", "--wait=true")
    run.apply()
    run.release()
    run.await_done()
    uid = run.get("AdaptationPipeline", "poems")["metadata"]["uid"]
    stages = run.items("TrainingStage")
    assert not before & {item["metadata"]["uid"] for item in stages}
    assert {owner["uid"] for item in stages for owner in item["metadata"]["ownerReferences"]} == {uid}


# --- watches and lists that can not go on

GONE: Event = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


def first_watches(fault: Fault, times: int) -> Callable[[Run], None]:
    """The first watches of each kind get this fault."""

    def play(run: Run) -> None:
        seen: Counter[str] = Counter()

        def rule(asked: Asked) -> Fault | None:
            if not asked.is_watch or seen[asked.plural] >= times:
                return None
            seen[asked.plural] += 1
            return fault

        run.begin_watches(rule)
        run.apply()
        run.await_done()
        assert seen["adaptationpipelines"] == times

    return play


def expired_continue(run: Run) -> None:
    """Every list that comes in parts is lost after the first one."""
    refused: list[str] = []

    def rule(asked: Asked) -> Fault | None:
        if asked.is_continued:
            refused.append(asked.plural)
            return Fault(status=410)
        return Fault(limit=1) if asked.method == "GET" and not asked.is_watch else None

    run.begin_watches(rule)
    run.apply()
    run.await_done()
    assert refused


def compaction(run: Run) -> None:
    """etcd forgets its past, and the API server begins anew from there."""
    run.hold("pretrain")
    run.apply()
    run.await_held("pretrain")
    run.bench.plane.stop_component("kube-apiserver")
    url = f"http://127.0.0.1:{run.bench.plane._layout.ports.etcd}/v3/kv"
    revision = ask(f"{url}/range", {"key": base64.b64encode(b"x").decode()})["header"]["revision"]
    ask(f"{url}/compaction", {"revision": revision, "physical": True})
    run.bench.plane.start_component("kube-apiserver")
    run.release()
    run.await_done()


def ask(url: str, body: Obj) -> Obj:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: Obj = json.load(answer)
        return found


def away(component: str) -> Callable[[Run], None]:
    """A component of the server is gone for a while, in the middle."""

    def play(run: Run) -> None:
        run.hold("pretrain")
        run.apply()
        run.await_held("pretrain")
        run.bench.plane.stop_component(component)
        time.sleep(SECONDS)
        run.bench.plane.start_component(component)
        run.release()
        run.await_done()

    return play


def for_a_while(fault: Fault, methods: set[str], *, watches: bool = True) -> Callable[[Run], None]:
    """This fault for all requests by these methods, then nothing more."""

    def play(run: Run) -> None:
        until = time.monotonic() + SECONDS
        met: list[Asked] = []

        def rule(asked: Asked) -> Fault | None:
            if asked.method not in methods or (asked.is_watch and not watches) or time.monotonic() > until:
                return None
            met.append(asked)
            return fault

        run.bench.proxy.rule = rule
        run.apply()
        wait_for("the fault to be met", lambda: met, 60)
        run.await_done()

    return play


def no_storm(run: Run) -> None:
    """A watch that ends at once is begun again ever more slowly."""
    run.begin_watches(lambda asked: Fault(ends_at_once=True) if asked.is_watch else None)
    run.bench.proxy.asked.clear()
    begun = time.monotonic()
    run.apply()
    run.await_done()
    watches = sum(asked.is_watch for asked in run.bench.proxy.asked)
    assert watches / (time.monotonic() - begun) <= 10


def crd_deleted(run: Run) -> None:
    """A CRD goes, with all its objects, and comes back."""
    run.hold("cpt")
    run.apply()
    run.await_held("cpt")
    run.bench.plane.kubectl(["delete", "crd", "evaluations.bessemer.dev", "--wait=true"])
    time.sleep(2)
    run.bench.plane.kubectl(["apply", "--server-side", "-f", str(CRDS)])
    run.bench.plane.kubectl(["wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRDS)])
    run.release()
    run.await_done()


# --- others who write


def two_operators(run: Run) -> None:
    """A second one waits; the first is killed; it takes over (how soon: test_operator.py), and makes nothing twice."""
    processes, port = run.bench.plane.processes, str(free_port())
    second = replace(
        run.bench.program,
        name="operator-2",
        env={**run.bench.program.env, "BESSEMER_METRICS_PORT": port, "POD_NAME": "operator-2"},
        is_ready=None,
    )
    processes.launch(second)
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.monotonic())
        run.bench.kill()

    try:
        wait_for("the second operator", lambda: processes.log("operator-2").exists(), 60)
        run.at_write([run.rng.randrange(10, 40)], kill, "after")
        run.apply()
        wait_for("the first one to be killed", lambda: killed, 120)
        wait_for("the second one to take over", lambda: answers(f"http://127.0.0.1:{port}/readyz"), 60)
        run.await_done()
    finally:
        processes.stop("operator-2", signal.SIGTERM)
        run.bench.revive()


def edited_while_running(run: Run) -> None:
    """What is under way for the old spec ends or goes; what depends on the edit runs once."""
    run.hold("cpt")
    run.apply()
    run.await_held("cpt")
    run.apply({"spec.stages.2.train.learningRate": 3e-5})
    run.release()
    run.await_done()
    cpts = [item["spec"]["inputs"] for item in run.items("TrainingStage") if item["spec"]["inputs"]["method"] == "cpt"]
    rates = {inputs["train"]["learningRate"] for inputs in cpts}
    assert 3e-5 in rates
    names = {stage["name"]: stage for stage in run.get("AdaptationPipeline", "poems")["status"]["stages"]}
    assert names["cpt"]["phase"] == "Succeeded"


def child_changed(run: Run) -> None:
    """A user deletes a stage that is done, a stage that runs, and tries to change the inputs of another."""
    run.hold("cpt")
    run.apply()
    run.await_held("cpt")
    pretrain, cpt = run.stage("pretrain"), run.stage("cpt")
    for stage in (pretrain, cpt):
        run.kubectl("delete", "tstage", stage["metadata"]["name"], "--wait=true")
    run.release()
    run.await_done()
    made = {item["metadata"]["name"]: item["metadata"]["uid"] for item in run.items("TrainingStage")}
    for stage in (pretrain, cpt):
        assert made[stage["metadata"]["name"]] != stage["metadata"]["uid"]


def flipped_label(run: Run) -> None:
    """A label that changes as fast as the server takes it costs at most a burst, then a reconcile a second."""
    run.apply()
    run.await_done()
    before, begun = reconciles(run), time.monotonic()
    flips = asyncio.run(flip(run, MANY))
    took = time.monotonic() - begun
    run.await_resyncs(1)
    assert flips == MANY
    assert reconciles(run) - before <= 20 + took + 3 * 2 + 2
    run.kubectl("label", "apipe", "poems", "example.com/flip-")


async def flip(run: Run, times: int) -> int:
    cluster = await KubeCluster.connect(run.bench.plane.kubeconfig)
    metadata = {"name": "poems", "namespace": run.space}
    found: Obj = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "AdaptationPipeline"}
    for number in range(times):
        await cluster.apply(
            {**found, "metadata": {**metadata, "labels": {"example.com/flip": str(number % 2)}}}, "flipper"
        )
    await cluster.close()
    await asyncio.sleep(0.2)  # transports are closed in the next rounds of the loop
    return times


def reconciles(run: Run) -> float:
    """Reconciles of pipelines so far, by the operator's own count."""
    port = run.bench.program.env["BESSEMER_METRICS_PORT"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("bessemer_reconcile_seconds")]
    return sum(float(line.split()[-1]) for line in lines if "_count{" in line and 'kind="AdaptationPipeline"' in line)


def foreign_conditions(run: Run) -> None:
    """Somebody else says that it was promoted: it is put right, and nothing follows from it."""
    run.hold("cpt")
    run.apply()
    run.await_held("cpt")
    lie = {"type": "Promoted", "status": "True", "reason": "Forged", "message": "", "lastTransitionTime": NOW}
    patch = json.dumps({"status": {"conditions": [lie]}})
    run.kubectl("patch", "apipe", "poems", "--subresource=status", "--type=merge", "-p", patch)
    wait_for("the lie to go", lambda: run.condition("Promoted") != "True", 60)
    assert run.bench.kubelet.stores[run.space].channels == {}
    run.release()
    run.await_done()


NOW = "2026-01-01T00:00:00Z"


def deleted_in_every_phase(run: Run) -> None:
    """Whatever runs, all goes with the pipeline; a checkpoint that was promoted stays."""
    for verb in ("resolve", "tokenizer", "cpt", "evaluate", "promote"):
        run.hold(verb)
        run.apply()
        run.await_held(verb)
        run.kubectl("delete", "apipe", "poems", "--wait=true")
        for kind in ("TrainingStage", "Evaluation", "Job", "PyTorchJob", "Pod"):
            run.await_gone(kind)
        run.release()
    run.apply()
    run.await_done()
    run.kubectl("delete", "apipe", "poems", "--wait=true")
    run.await_gone("Job")
    (record,) = run.bench.kubelet.stores[run.space].channels["prod"]
    assert record.candidate


def uninstalled_first(run: Run) -> None:
    """Nothing of ours holds up the deletion of a namespace when the operator is gone."""
    run.hold("cpt")
    run.apply()
    run.await_held("cpt")
    run.bench.plane.processes.stop("operator", signal.SIGTERM)
    run.bench.plane.kubectl(["delete", "namespace", run.space, "--wait=true", "--timeout=120s"])
    run.bench.plane.create_namespace(run.space)
    run.bench.revive()


def many_at_once(run: Run) -> None:
    """Created and deleted as fast as the server takes them: it keeps up, and ends with nothing to do."""
    asyncio.run(create_many(run))
    wait_for("each to have a status", lambda: count_suspended(run) == MANY, 300)
    path = f"/apis/bessemer.dev/v1alpha1/namespaces/{run.space}/adaptationpipelines"
    run.bench.plane.kubectl(["delete", "--raw", path])
    run.await_gone("AdaptationPipeline")
    run.await_resyncs(2)
    port = run.bench.program.env["BESSEMER_METRICS_PORT"]
    assert answers(f"http://127.0.0.1:{port}/healthz")
    assert len(by_operator(writes(run.bench.plane, run.space))) <= 2 * MANY


async def create_many(run: Run) -> None:
    cluster = await KubeCluster.connect(run.bench.plane.kubeconfig)
    document = run.document({"spec.suspend": True})
    limit = asyncio.Semaphore(32)

    async def create(number: int) -> None:
        async with limit:
            await cluster.create({**document, "metadata": {**document["metadata"], "name": f"many-{number}"}})

    await asyncio.gather(*(create(number) for number in range(MANY)))
    await cluster.close()
    await asyncio.sleep(0.2)  # transports are closed in the next rounds of the loop


def count_suspended(run: Run) -> int:
    run.bench.revive()
    path = '{range .items[*]}{.status.conditions[?(@.type=="Suspended")].status}{"\\n"}{end}'
    return run.kubectl("get", "apipe", "-o", f"jsonpath={path}").split().count("True")


OVERLOAD = Fault(status=429, headers={"Retry-After": "1"})
CASES = (
    Case(1, "killed before writes", killed_at_writes("before")),
    Case(1, "killed after writes", killed_at_writes("after")),
    Case(2, "killed between child and status", killed_before_the_status),
    Case(3, "SIGTERM inside a reconcile", told_to_end),
    Case(4, "the end of jobs is never told", unseen(JOBS, has_ended), is_frequent=True),
    Case(5, "a deletion in a 410 window", unseen_deletion, is_equal=False),
    Case(
        6,
        "no new job or pod is told",
        unseen({*JOBS, "pods"}, lambda event: bool(event["type"] == "ADDED")),
        is_frequent=True,
    ),
    Case(6, "nothing about stages is told", unseen({"trainingstages"}, lambda event: True), is_frequent=True),
    Case(7, "a stale list lacks a running job", stale_list),
    Case(8, "a stale generation", stale_generation, is_equal=False),
    Case(9, "deleted and created anew", born_again),
    Case(10, "410 in the stream", first_watches(Fault(first=GONE), 3), is_frequent=True),
    Case(11, "HTTP 410", first_watches(Fault(status=410), 1), is_frequent=True),
    Case(12, "an expired continue token", expired_continue),
    Case(13, "etcd is compacted", compaction),
    Case(14, "the API server is gone for a while", away("kube-apiserver")),
    Case(15, "etcd is gone for a while", away("etcd")),
    Case(16, "a black hole", for_a_while(Fault(is_silent=True), READS | WRITES), is_frequent=True),
    Case(17, "429 with Retry-After", for_a_while(OVERLOAD, READS | WRITES, watches=False), is_frequent=True),
    Case(18, "500 on every patch", for_a_while(Fault(status=500), {"PATCH"}), is_frequent=True),
    Case(19, "watches end at once", no_storm, is_frequent=True),
    Case(20, "403 on every write", for_a_while(Fault(status=403), WRITES), is_equal=False, is_frequent=True),
    Case(21, "401 on everything", for_a_while(Fault(status=401), READS | WRITES)),
    Case(24, "a CRD deleted and created again", crd_deleted),
    Case(25, "two operators", two_operators),
    Case(26, "edited while running", edited_while_running, is_equal=False),
    Case(27, "children deleted by a user", child_changed, is_equal=False),
    Case(28, "a label flipped all the time", flipped_label),
    Case(29, "conditions written by somebody else", foreign_conditions),
    Case(30, "deleted in every phase", deleted_in_every_phase, is_equal=False),
    Case(31, "uninstalled before the namespace goes", uninstalled_first, is_equal=False),
    Case(32, "a thousand objects at once", many_at_once, is_equal=False),
)
