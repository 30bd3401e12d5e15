"""A release owner's day, in order, nothing mocked: a data revision in git, what changed runs again, gate, approval,
commit in the deploy repository, a regression case, rollback; metrics, events, alerts and report on the way.

kubectl applies what is in git, as Argo CD would, and people act by `bessemer`; the health is that of Argo CD's script.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.controlplane import ControlPlane, wait_for
from tests.support.gitops import FIRST, NAMESPACE, SECOND, ByHand, Platform, Team, admission, pipeline
from tests.support.installation import Installation, installed
from tests.support.localrun import TRACEBACK, conditions_of, outputs_of
from tests.support.prometheus import PROMETHEUS, REASON, Prometheus, started

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(PROMETHEUS is None, reason=REASON),
]

PATIENCE = 1800.0
SUITE = """    regression:
    - {{uri: file://{folder}/datasets/regressions.jsonl, maxNewTokens: 4}}
    axes:
    - {{name: generalLoss, task"""
VETO = "    looks: [100]\n    vetoes: [regression]\n"


@dataclass(frozen=True)
class Day:
    """What the release owner works with, and what the platform engineer sees."""

    plane: ControlPlane
    installation: Installation
    team: Team
    platform: Platform
    prometheus: Prometheus

    @property
    def pipeline(self) -> dict[str, Any]:
        return pipeline(self.plane)

    @property
    def channel(self) -> dict[str, Any]:
        (found,) = self.pipeline["status"]["channels"]
        return dict(found)

    def until_healthy_as(self, health: str) -> None:
        self.until(f"health {health}", lambda: self.platform.health() == health)

    def until(self, what: str, probe: Callable[[], bool]) -> None:
        """An operator that lost its Lease to a slow machine has ended; what its Deployment does then is done here."""

        def probed() -> bool:
            if not self.plane.processes.is_running("operator"):
                self.plane.processes.restart("operator")
            return probe()

        wait_for(what, probed, PATIENCE)

    def objects(self, kinds: str) -> set[str]:
        found = self.plane.kubectl(["get", kinds, "-n", NAMESPACE, "-o", "name"])
        return {name.partition("/")[2] for name in found.split()}

    def events(self) -> set[str]:
        found = json.loads(self.plane.kubectl(["get", "events", "-n", NAMESPACE, "-o", "json"]))
        return {item["reason"] for item in found["items"] if item["involvedObject"]["kind"] == "AdaptationPipeline"}

    def metric(self, expr: str) -> list[float]:
        return [float(item["value"][1]) for item in self.prometheus.get("query", query=expr)["result"]]

    def until_metric(self, expr: str, value: float) -> None:
        self.until(f"{expr} to be {value}", lambda: self.metric(expr) == [value])

    def candidate(self) -> str:
        return outputs_of(self.pipeline)["cpt"]


@contextmanager
def the_day(plane: ControlPlane, team: Team) -> Iterator[Callable[[Platform], Day]]:
    """Everything that a day needs but a platform; the namespace is gone afterwards."""
    plane.create_namespace(NAMESPACE, {"pod-security.kubernetes.io/enforce": "restricted"})
    with installed(plane) as installation, admission(plane):
        port = int(plane.processes._programs["operator"].env["BESSEMER_METRICS_PORT"])
        with started(plane, port) as prometheus:
            yield lambda platform: Day(plane, installation, team, platform, prometheus)
    plane.kubectl(["delete", "namespace", NAMESPACE])


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """On a control plane of its own: metrics and alerts are those of all pipelines that there are."""
    team = Team.make(tmp_path_factory.mktemp("team"))
    with ControlPlane.start(tmp_path_factory.mktemp("day")) as plane, the_day(plane, team) as make:
        yield make(ByHand(plane, team))


def test_the_first_release_waits_for_its_owner_and_is_one_commit(day: Day) -> None:
    day.platform.sync()
    day.until_healthy_as("Progressing")
    day.until_healthy_as("Suspended")
    assert conditions_of(day.pipeline)["Promoted"] == ("False", "WaitingForApproval")
    assert (day.team.served(), len(day.team.deploy.log())) == ("none", 1)
    day.platform.act("approve")
    day.until_healthy_as("Healthy")
    assert (day.channel["digest"], day.channel["record"]) == (day.candidate(), 1)
    assert (day.team.served(), len(day.team.deploy.log())) == (day.channel["release"], 2)
    assert {"GatePassed", "WaitingForApproval", "ChannelMoved", "Promoted"} <= day.events()


def test_a_revision_of_the_data_runs_again_what_depends_on_it_and_no_more(day: Day) -> None:
    before, first, served = day.objects("tstage"), day.candidate(), day.team.served()
    day.team.edit(FIRST, SECOND, "texts of February")
    day.platform.sync()
    day.until_healthy_as("Progressing")
    day.until_healthy_as("Suspended")
    parts = {name.removeprefix("specialist-").rpartition("-")[0] for name in day.objects("tstage") - before}
    assert parts == {"data-domain", "cpt-data", "cpt"}
    assert day.candidate() != first
    assert day.team.served() == served, "nothing is promoted without a person"
    day.until_metric('sum(bessemer_gate_decisions_total{gate="release",verdict="Passed"})', 2)


def test_approval_is_one_more_commit_with_the_evidence(day: Day) -> None:
    day.platform.act("approve")
    day.until_healthy_as("Healthy")
    assert (day.channel["digest"], day.channel["record"]) == (day.candidate(), 2)
    assert (day.team.served(), len(day.team.deploy.log())) == (day.channel["release"], 3)
    day.until("the report", lambda: bool(day.pipeline["status"].get("report")))
    report = Path(day.pipeline["status"]["report"].removeprefix("file://"))
    assert day.candidate().removeprefix("sha256:")[:12] in report.read_text()
    day.until_metric("bessemer_promotions_total", 2)
    day.until_metric('bessemer_channel_record{channel="prod"}', 2)
    assert alerts(day) == {}


def test_a_reported_bug_becomes_a_case_and_what_is_released_is_not_judged_again(day: Day) -> None:
    before = day.objects("tstage,pytorchjobs")
    day.team.edit("    axes:\n    - {name: generalLoss, task", SUITE.format(folder=day.team.folder), "a reported bug")
    day.team.edit("    looks: [100]\n", VETO, "no release with a known bug")
    day.platform.sync()
    day.until("the case to be read", lambda: day.objects("tstage,pytorchjobs") > before)
    day.until("the gate to know it", lambda: bool(day.pipeline["spec"]["gates"][0].get("vetoes")))
    day.until_healthy_as("Healthy")
    (case,) = day.objects("tstage,pytorchjobs") - before
    assert case.startswith("specialist-bank-regression-"), "nothing is trained again"
    assert len(day.team.deploy.log()) == 3, "a case takes nothing back; a person does"


def test_rollback_is_a_commit_back_to_the_release_before(day: Day) -> None:
    left = day.team.served()
    day.platform.act("rollback")
    day.until_healthy_as("Suspended")
    assert conditions_of(day.pipeline)["RolledBack"] == ("True", "RolledBack")
    assert (day.channel["release"], day.channel["record"]) == (day.team.served(), 3)
    assert day.channel["digest"] != day.candidate() and day.team.served() != left
    assert len(day.team.deploy.log()) == 4
    assert {"RolledBack", "Held"} <= day.events()
    day.until_metric('bessemer_channel_record{channel="prod"}', 3)


def test_the_next_candidate_is_refused_by_the_case_and_an_alert_says_so(day: Day) -> None:
    day.team.edit("  - name: cpt\n", "  - name: cpt\n    seed: 4\n", "another try")
    day.platform.sync()
    day.until_healthy_as("Progressing")
    day.until_healthy_as("Degraded")
    (gate,) = day.pipeline["status"]["gates"]
    assert (gate["verdict"], "bug-1" in json.dumps(gate)) == ("Failed", True)
    assert len(day.team.deploy.log()) == 4
    day.until_metric('sum(bessemer_gate_decisions_total{gate="release",verdict="Failed"})', 1)
    day.until("the alert", lambda: alerts(day).get("BessemerPipelinesStalled") == "pending")


def test_at_the_end_of_the_day_nothing_moves_and_nothing_went_wrong(day: Day) -> None:
    day.platform.sync()
    day.until("the operator to be done", lambda: conditions_of(day.pipeline)["Reconciling"][0] == "False")
    assert len(day.team.deploy.log()) == 4
    log = day.installation.operator_log
    assert [line for line in log.splitlines() if TRACEBACK in line or "[ERROR" in line] == []


def alerts(day: Day) -> dict[str, str]:
    """State of each alert of the chart that is pending or firing."""
    return {item["labels"]["alertname"]: item["state"] for item in day.prometheus.get("alerts")["alerts"]}


STORY: tuple[Callable[[Day], None], ...] = (
    test_the_first_release_waits_for_its_owner_and_is_one_commit,
    test_a_revision_of_the_data_runs_again_what_depends_on_it_and_no_more,
    test_approval_is_one_more_commit_with_the_evidence,
    test_a_reported_bug_becomes_a_case_and_what_is_released_is_not_judged_again,
    test_rollback_is_a_commit_back_to_the_release_before,
    test_the_next_candidate_is_refused_by_the_case_and_an_alert_says_so,
    test_at_the_end_of_the_day_nothing_moves_and_nothing_went_wrong,
)
"""The day's steps, which another platform plays too."""
