"""A real control plane, the real operator behind a proxy, and pods that are played: where faults are provoked."""

import json
import random
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bessemer_api.job import RunSpec
from bessemer_operator.cluster.protocol import KINDS
from tests.api.documents import PIPELINE, edited
from tests.faults.oracles import by_operator, differences, forbidden, picture, twice_created, writes
from tests.support.controlplane import ControlPlane, Program, wait_for
from tests.support.faultproxy import Asked, Fault, FaultProxy, Rule, nothing
from tests.support.installation import ACCOUNT, NAMESPACE, Installation, installed
from tests.support.played import PlayedKubelet
from tests.support.world import Ending

Obj = dict[str, Any]
RESYNC_SECONDS = 2
PATIENCE = 240.0
SERVER = ("etcd", "kube-apiserver")
NODES = {"tokenizer": "words", "evaluate": "eval"}
HELD = {
    verb: rf"poems-{NODES.get(verb, verb)}-[0-9a-f]{{10}}-a"
    for verb in ("resolve", "tokenizer", "pretrain", "cpt", "evaluate", "promote")
}
"""Names of the pods of a verb."""


@dataclass
class Bench:
    """One operator whose API server stands behind the proxy, and the fault-free run that others are compared with."""

    bessemer: Installation
    proxy: FaultProxy
    kubelet: PlayedKubelet
    program: Program
    reference: dict[str, Any]
    reference_writes: int = 0

    @property
    def plane(self) -> ControlPlane:
        return self.bessemer.plane

    @property
    def is_running(self) -> bool:
        return self.plane.processes.is_running("operator")

    def revive(self) -> None:
        """What a kubelet does to a container that has ended."""
        if not self.is_running:
            self.plane.processes.launch(replace(self.program, is_ready=None))

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.is_running:
            self.plane.processes.send_signal("operator", how)

    def mend(self) -> None:
        """No fault from now on; all programs run."""
        self.proxy.rule, self.kubelet.script = nothing, lambda spec, name: None
        for name in SERVER:
            if not self.plane.processes.is_running(name):
                self.plane.start_component(name)
        self.revive()


@dataclass
class Run:
    """One pipeline in a namespace of its own, while something goes wrong."""

    bench: Bench
    space: str
    rng: random.Random

    def __post_init__(self) -> None:
        self.log_from = len(self.bench.bessemer.operator_log)
        self.bench.plane.create_namespace(self.space)

    def kubectl(self, *arguments: str, document: Obj | None = None) -> str:
        stdin = json.dumps(document) if document else None
        return self.bench.plane.kubectl([*arguments, "-n", self.space], stdin=stdin)

    def document(self, edits: Obj | None = None) -> Obj:
        return edited(PIPELINE, {"metadata.namespace": self.space, **(edits or {})})

    def apply(self, edits: Obj | None = None) -> None:
        self.kubectl("apply", "-f", "-", document=self.document(edits))

    def get(self, kind: str, name: str = "") -> Obj:
        """An object, or a list of a kind; raises OSError where there is no answer, or none of that name."""
        found = KINDS[kind]
        base = "/api/v1" if not found.group else f"/apis/{found.group}/{found.version}"
        return self.bench.plane.get(f"{base}/namespaces/{self.space}/{found.plural}{'/' if name else ''}{name}")

    def items(self, kind: str, begin: str = "") -> list[Obj]:
        return [item for item in self.get(kind)["items"] if item["metadata"]["name"].startswith(begin)]

    def condition(self, kind: str, name: str = "poems") -> str:
        conditions = self.get("AdaptationPipeline", name).get("status", {}).get("conditions", [])
        return next((item["status"] for item in conditions if item["type"] == kind), "")

    def hold(self, verb: str) -> None:
        """Pods of this verb run on until `release`. Other namespaces are not touched."""

        def script(spec: RunSpec, name: str) -> Ending | str | None:
            return "hang" if _what(spec) == verb and spec.store.endswith("poems") else None

        self.bench.kubelet.script = script

    def release(self) -> None:
        self.bench.kubelet.script = lambda spec, name: None

    def await_held(self, verb: str) -> Obj:
        """The pod that is held back, once it runs."""

        def running() -> Obj | None:
            self.bench.revive()
            pods = [pod for pod in self.items("Pod") if (pod.get("status") or {}).get("phase") == "Running"]
            return next((pod for pod in pods if re.match(HELD[verb], pod["metadata"]["name"])), None)

        return wait_for(f"a pod of {verb} to run", running, PATIENCE) or {}

    def begin_watches(self, rule: Rule) -> None:
        """A new process under this rule: one that runs has its watches already, and keeps them for minutes."""
        self.bench.kill()
        wait_for("the operator to be gone", lambda: not self.bench.is_running)
        self.bench.proxy.rule = rule
        self.bench.revive()

    def await_done(self, name: str = "poems") -> None:
        """Until the pipeline is Ready and reported, with a process that is started again whenever it has ended."""

        def is_done() -> bool:
            self.bench.revive()
            try:
                held = (self.condition("Ready", name), self.condition("Reconciling", name))
            except OSError:  # the server is away
                return False
            return held == ("True", "False")

        wait_for(f"pipeline {self.space}/{name} to be done", is_done, PATIENCE)

    def await_gone(self, kind: str) -> None:
        wait_for(f"no {kind} in {self.space}", lambda: not self.items(kind), PATIENCE)

    def stage(self, method: str) -> Obj:
        """The only TrainingStage of a method."""
        (found,) = [item for item in self.items("TrainingStage") if item["spec"]["inputs"]["method"] == method]
        return found

    def await_resyncs(self, count: int = 2) -> None:
        """Until the operator has listed everything again."""
        begun = self._lists()

        def has_listed() -> bool:
            self.bench.revive()
            return self._lists() >= begun + count

        wait_for(f"{count} resyncs", has_listed, PATIENCE)

    def _lists(self) -> int:
        asked = self.bench.proxy.asked
        return sum(a.plural == "adaptationpipelines" and not a.is_watch and a.method == "GET" for a in asked)

    def is_mine(self, asked: Asked) -> bool:
        return f"/namespaces/{self.space}/" in asked.path

    def at_write(self, numbers: list[int], hook: Callable[[], None], when: str) -> None:
        """Call `hook` before or after writes of these numbers, counted over all processes of the operator."""
        seen = 0

        def rule(asked: Asked) -> Fault | None:
            nonlocal seen
            if not asked.is_write or not self.is_mine(asked) or asked.plural == "events":
                return None
            seen += 1
            if seen not in numbers:
                return None
            return Fault(before=hook) if when == "before" else Fault(after=hook)

        self.bench.proxy.rule = rule

    @property
    def said(self) -> str:
        """What the operator logged since this run began."""
        return self.bench.bessemer.operator_log[self.log_from :]

    def assert_oracles(self, *, is_equal: bool) -> None:
        """The six of oracles.py. `is_equal`: the fault left nothing that the user sees, not even another attempt."""
        plane = self.bench.plane
        self.await_resyncs()
        done = writes(plane, self.space)
        self.await_resyncs(1)
        later = by_operator(writes(plane, self.space))
        assert len(later) == len(by_operator(done)), "it still writes although nothing happens"
        if is_equal:
            assert differences(picture(plane, self.space), self.bench.reference) == []
            assert len(later) <= 2 * self.bench.reference_writes
        assert twice_created(done) == []
        assert forbidden(by_operator(done)) == []
        assert "Traceback" not in self.said
        assert "reconcile failed" not in self.said


def _what(spec: RunSpec) -> str:
    return spec.stage.method if spec.stage is not None else spec.verb


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Everything up, and one run without a fault done."""
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane.start(folder / "plane"))
        bessemer = stack.enter_context(installed(plane))
        plane.processes.stop("kubelet", signal.SIGTERM)
        plane.processes.stop("operator", signal.SIGTERM)
        kubelet = stack.enter_context(PlayedKubelet(plane.kubeconfig))
        proxy = stack.enter_context(FaultProxy(plane.server, plane.folder / "ca.crt"))
        account = plane.kubeconfig_for_service_account(NAMESPACE, ACCOUNT)
        kubeconfig = proxy.kubeconfig(account, folder / "proxied.kubeconfig")
        environment = {
            "KUBECONFIG": str(kubeconfig),
            "BESSEMER_RESYNC_SECONDS": str(RESYNC_SECONDS),
            "POD_NAME": "operator-1",  # a container that restarts in its pod has its own Lease back at once
        }
        program = plane.processes._programs["operator"]
        program = replace(program, env={**program.env, **environment})
        plane.processes.start(program)
        made = Bench(bessemer, proxy, kubelet, program, {})
        run = Run(made, "reference", random.Random(0))
        run.apply()
        run.await_done()
        run.await_resyncs()
        made.reference, made.reference_writes = picture(plane, run.space), len(by_operator(writes(plane, run.space)))
        assert "AdaptationPipeline/poems" in made.reference
        yield made
