"""An API server that answers badly, late, twice or not at all: a real one behind a proxy that breaks things.

What holds in each case: the pipeline is done in the end, no attempt was made twice, and nothing was a traceback.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.e2e.test_operator import (
    assert_attempts_are_never_changed,
    assert_nothing_created_twice,
    condition,
    get,
    operator_writes,
    program_of,
    read,
    words_only,
)
from tests.support.controlplane import ControlPlane, Program, wait_for
from tests.support.faultproxy import Asked, Event, Fault, FaultProxy, Rule, nothing
from tests.support.installation import ACCOUNT, NAMESPACE, Installation, installed

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECONDS = 12.0
"""How long what lasts a while lasts."""


@dataclass
class Cut:
    """An operator whose API server stands behind the proxy."""

    bessemer: Installation
    proxy: FaultProxy
    program: Program

    def is_running(self) -> bool:
        return self.bessemer.plane.processes.is_running("operator")

    def revive(self) -> None:
        """What a kubelet does to a container that has ended."""
        if not self.is_running():
            self.bessemer.plane.processes.start(replace(self.program, is_ready=None))

    def await_done(self, name: str) -> None:
        """Until the pipeline is Ready and reported, with a process that is started again whenever it has ended."""

        def is_done() -> bool:
            self.revive()
            held = (condition(self.bessemer, name, "Ready"), condition(self.bessemer, name, "Reconciling"))
            return held == ("True", "False")

        wait_for(f"pipeline {name} to be done", is_done, 180)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    folder = tmp_path_factory.mktemp("network")
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane.start(folder / "plane"))
        bessemer = stack.enter_context(installed(plane))
        proxy = stack.enter_context(FaultProxy(plane.server, plane.folder / "ca.crt"))
        account = plane.kubeconfig_for_service_account(NAMESPACE, ACCOUNT)
        kubeconfig = proxy.kubeconfig(account, folder / "proxied.kubeconfig")
        plane.processes.stop("operator", signal.SIGTERM)
        environment = {"KUBECONFIG": str(kubeconfig), "BESSEMER_RESYNC_SECONDS": "5"}
        program = replace(program_of(bessemer), env={**program_of(bessemer).env, **environment})
        plane.processes.start(program)
        yield Cut(bessemer, proxy, program)


def for_a_while(fault: Fault, methods: set[str], *, watches: bool = True) -> Rule:
    """This fault for all requests by these methods, then nothing more."""
    until = time.monotonic() + SECONDS

    def rule(asked: Asked) -> Fault | None:
        is_meant = asked.method in methods and (watches or not asked.is_watch)
        return fault if is_meant and time.monotonic() < until else None

    return rule


def events_that(kinds: set[str], is_meant: Callable[[Event], bool]) -> Rule:
    """Events of watches of these kinds are lost where `is_meant` says so."""
    return lambda asked: Fault(drop=is_meant) if asked.is_watch and asked.plural in kinds else None


def has_ended(event: Event) -> bool:
    conditions = (event["object"].get("status") or {}).get("conditions") or []
    return any(item["type"] in {"Complete", "Succeeded", "Failed"} and item["status"] == "True" for item in conditions)


def is_added(event: Event) -> bool:
    return bool(event["type"] == "ADDED")


def everything(_: Event) -> bool:
    return True


GONE: Event = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


def first_of_each(fault: Fault, times: int) -> Rule:
    """The first watches of each kind get this fault."""
    seen: Counter[str] = Counter()

    def rule(asked: Asked) -> Fault | None:
        if not asked.is_watch or seen[asked.plural] >= times:
            return None
        seen[asked.plural] += 1
        return fault

    return rule


READS, WRITES = {"GET"}, {"POST", "PATCH", "DELETE"}
OVERLOAD = Fault(status=429, headers={"Retry-After": "1"})
FAULTS: dict[str, Callable[[], Rule]] = {
    "the_end_of_every_job_is_never_told": lambda: events_that({"jobs"}, has_ended),
    "no_new_job_or_pod_is_told": lambda: events_that({"jobs", "pods"}, is_added),
    "nothing_about_stages_is_told": lambda: events_that({"trainingstages"}, everything),
    "watches_end_with_410": lambda: first_of_each(Fault(first=GONE), 3),
    "watches_are_refused_with_410": lambda: first_of_each(Fault(status=410), 2),
    "every_patch_fails_with_500_for_a_while": lambda: for_a_while(Fault(status=500), {"PATCH"}),
    "too_many_requests_for_a_while": lambda: for_a_while(OVERLOAD, READS | WRITES, watches=False),
    "writes_are_forbidden_for_a_while": lambda: for_a_while(Fault(status=403), WRITES),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_pipeline_is_done_in_the_end(cut: Cut, tmp_path: Path, fault: str) -> None:
    cut.revive()
    name = f"fault-{list(FAULTS).index(fault)}"
    cut.proxy.rule = FAULTS[fault]()
    try:
        cut.bessemer.plane.kubectl(["apply", "-f", str(words_only(tmp_path, name))])
        cut.await_done(name)
    finally:
        cut.proxy.rule = nothing
    assert_nothing_created_twice(cut.bessemer)
    assert_attempts_are_never_changed(cut.bessemer)
    assert "Traceback" not in cut.bessemer.operator_log


def test_a_watch_that_the_server_ends_at_once_is_no_storm_of_requests(cut: Cut, tmp_path: Path) -> None:
    cut.revive()
    cut.proxy.rule = lambda asked: Fault(ends_at_once=True) if asked.is_watch else None
    cut.proxy.asked.clear()
    begun = time.monotonic()
    cut.bessemer.plane.kubectl(["apply", "-f", str(words_only(tmp_path, "storm"))])
    try:
        cut.await_done("storm")
    finally:
        cut.proxy.rule = nothing
    watches = sum(asked.is_watch for asked in cut.proxy.asked)
    assert watches / (time.monotonic() - begun) <= 10


def test_a_server_that_falls_silent_costs_the_lease_and_the_process_and_nothing_else(cut: Cut, tmp_path: Path) -> None:
    cut.revive()
    cut.bessemer.plane.kubectl(["apply", "-f", str(words_only(tmp_path, "silence"))])
    cut.proxy.rule = lambda asked: Fault(is_silent=True)
    wait_for("the operator to give up", lambda: not cut.is_running(), 60)
    cut.proxy.rule = nothing
    cut.await_done("silence")
    assert_nothing_created_twice(cut.bessemer)


def test_a_quiet_cluster_is_left_alone(cut: Cut) -> None:
    """No write without a reason: two resyncs pass, and nothing is asked for that changes anything."""
    cut.revive()
    before = len(operator_writes(cut.bessemer))
    lists = len([asked for asked in cut.proxy.asked if asked.plural == "adaptationpipelines"])

    def has_resynced() -> bool:
        now = len([a for a in cut.proxy.asked if a.plural == "adaptationpipelines" and not a.is_watch])
        return now >= lists + 2

    wait_for("two resyncs", has_resynced)
    assert operator_writes(cut.bessemer)[before:] == []
    assert read(cut.program, "healthz") == (200, "ok")
    assert all(item["status"]["phase"] == "Succeeded" for item in get(cut.bessemer, "tstage")["items"])
