"""The operator as a program, under its own account, on a real control plane: killed, stopped, doubled, cut off.

The control plane is this module's own, because its operator and API server are ended at will.
"""

import json
import math
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.monitoring.test_dashboards import PANELS, replaced
from tests.support.controlplane import ControlPlane, Program, wait_for
from tests.support.controlplane.process import free_port
from tests.support.installation import ACCOUNT, NAMESPACE, Installation, installed
from tests.support.mini import write_mini
from tests.support.prometheus import PROMETHEUS, REASON, Prometheus, started

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OPERATOR = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
OWN_KINDS = "adaptationpipelines,trainingstages,evaluations"
TAKE_OVER_SECONDS = 45.0
"""On an idle machine 17: 15 of the Lease and 2 until the next look. The rest is for a machine that runs other tests."""
EXIT_SECONDS = 60.0
"""On an idle machine 2. What matters is that no grace period or watch is waited for: these take minutes."""

LOOKED_AT = 4000
"""Items of the gate: so many that an evaluation lasts for some of Prometheus's looks, a second apart."""

Obj = dict[str, Any]


@pytest.fixture(scope="module")
def bessemer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with ControlPlane.start(tmp_path_factory.mktemp("operator")) as plane, installed(plane) as installation:
        yield installation


@pytest.fixture(scope="module")
def prometheus(bessemer: Installation) -> Iterator[Prometheus | None]:
    """Scrapes the operator, whatever becomes of it, and every pod of an attempt; None where it is not installed."""
    if PROMETHEUS is None:
        yield None
        return
    with started(bessemer.plane, int(program_of(bessemer).env["BESSEMER_METRICS_PORT"])) as made:
        yield made


def words_only(folder: Path, name: str) -> Path:
    """A pipeline that prepares data and trains a tokenizer: four Jobs, some seconds."""
    absent = {"spec.gates": [], "spec.evaluation": {}, "spec.data.texts.prepare": {}}
    mini = write_mini(folder / name, absent)
    document: Obj = YAML(typ="safe").load(mini.file)
    document["metadata"]["name"] = name
    document["spec"]["stages"] = document["spec"]["stages"][:1]
    del document["spec"]["promotion"]
    file = folder / name / "words.json"
    file.write_text(json.dumps(document))
    return file


def get(bessemer: Installation, kind: str, name: str = "", namespace: str = "default") -> Obj:
    found: Obj = json.loads(
        bessemer.plane.kubectl(["get", kind, *([name] if name else []), "-n", namespace, "-o", "json"])
    )
    return found


def condition(bessemer: Installation, name: str, kind: str) -> str:
    found = get(bessemer, "apipe", name).get("status", {}).get("conditions", [])
    return next((item["status"] for item in found if item["type"] == kind), "")


def await_ready(bessemer: Installation, name: str, seconds: float = 180.0) -> None:
    wait_for(f"pipeline {name} to be Ready", lambda: condition(bessemer, name, "Ready") == "True", seconds)
    wait_for("its report", lambda: condition(bessemer, name, "Reconciling") == "False", seconds)


def read(program: Program, path: str) -> tuple[int, str]:
    """Status and text of a path on the operator's health port; (0, "") while nobody listens."""
    port = program.env["BESSEMER_METRICS_PORT"]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def program_of(bessemer: Installation) -> Program:
    return bessemer.plane.processes._programs["operator"]


def samples(program: Program) -> dict[str, float]:
    lines = [line for line in read(program, "metrics")[1].splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def operator_writes(bessemer: Installation) -> list[Obj]:
    """What the operator asked for that changes something, and was answered."""
    reads = {"get", "list", "watch"}
    events = bessemer.plane.audit_events()
    return [event for event in events if event["user"]["username"] == OPERATOR and event["verb"] not in reads]


def assert_nothing_created_twice(bessemer: Installation) -> None:
    names = [
        (event["objectRef"]["resource"], event["objectRef"]["name"])
        for event in operator_writes(bessemer)
        if event["verb"] == "create"
        and event["responseStatus"]["code"] == 201
        and event["objectRef"]["resource"] in {"jobs", "pytorchjobs", "configmaps"}
    ]
    assert names
    assert [name for name, count in Counter(names).items() if count > 1] == []


def assert_attempts_are_never_changed(bessemer: Installation) -> None:
    """But for the annotation that keeps the report, which is no change of what runs: the generation says so."""
    touched = {
        (event["verb"], event["objectRef"]["resource"])
        for event in operator_writes(bessemer)
        if event["objectRef"]["resource"] in {"jobs", "pytorchjobs", "pods", "configmaps"}
    }
    kinds = {"jobs", "pytorchjobs"}
    assert touched <= {("create", "configmaps"), *((verb, kind) for verb in ("create", "patch") for kind in kinds)}
    for job in [item for kind in sorted(kinds) for item in get(bessemer, kind)["items"]]:
        assert job["metadata"]["generation"] == 1, job["metadata"]["name"]


def test_it_starts_healthy_and_holds_the_lease(bessemer: Installation) -> None:
    program = program_of(bessemer)
    assert read(program, "healthz") == (200, "ok")
    assert read(program, "readyz") == (200, "ok")
    holder = get(bessemer, "lease", "bessemer-operator", NAMESPACE)["spec"]["holderIdentity"]
    assert f"{holder} holds the lease" in bessemer.operator_log
    assert 'bessemer_build_info{version="0.1.0"}' in samples(program)


def test_a_whole_pipeline_is_promoted_although_the_operator_is_killed_again_and_again(
    bessemer: Installation, prometheus: Prometheus | None, tmp_path: Path
) -> None:
    """Everything is real: data, tokenizer, training under torchrun, evaluation, gate, promotion."""
    bank = {"spec.evaluation.banks.0.gate": LOOKED_AT, "spec.gates.0.looks": [LOOKED_AT]}
    mini = write_mini(tmp_path / "mini", {"spec.profiles": {"train": "gpu-2"}, **bank}, items=LOOKED_AT + 40)
    bessemer.plane.kubectl(["apply", "-f", str(mini.file)])
    for part in ("mini-bank-", "mini-words-", "mini-pre-data-", "mini-cpt-", "mini-eval-", "mini-compare-"):

        def is_there(part: str = part) -> bool:
            jobs = [*get(bessemer, "jobs")["items"], *get(bessemer, "pytorchjobs")["items"]]
            return any(job["metadata"]["name"].startswith(part) for job in jobs)

        wait_for(f"a job {part}*", is_there, 180)
        bessemer.plane.processes.stop("operator", signal.SIGKILL)
        bessemer.plane.processes.restart("operator")
    await_ready(bessemer, "mini")
    assert condition(bessemer, "mini", "Promoted") == "True"
    attempts = {stage["metadata"]["name"]: stage["status"]["attempts"] for stage in get(bessemer, "tstage")["items"]}
    assert [[item["outcome"] for item in found] for found in attempts.values()] == [["Succeeded"]] * 7
    assert_nothing_created_twice(bessemer)
    assert_attempts_are_never_changed(bessemer)


@pytest.mark.skipif(PROMETHEUS is None, reason=REASON)
@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_of_the_dashboards_shows_that_run(prometheus: Prometheus | None, panel: Obj) -> None:
    """Asked over the run, step by step: the answer changes on the way. DCGM's metrics are those of support/dcgm.py."""
    assert prometheus is not None
    for target in panel["targets"]:
        states = changes(prometheus, replaced(target["expr"], "10s"))
        assert len(states) > 1, (target["expr"], states)


def changes(prometheus: Prometheus, expr: str) -> set[tuple[tuple[str, str], ...]]:
    """The different answers to a query at the times at which the operator was scraped."""
    end = float(prometheus.get("query", query="time()")["result"][0])
    start, step = end - 900, 1.0
    up = prometheus.over("bessemer_build_info", start, end, step)
    answers: dict[float, list[tuple[str, str]]] = {at: [] for series in up.values() for at, _ in series}
    for labels, series in prometheus.over(expr, start, end, step).items():
        for at, value in series:
            if at in answers and math.isfinite(float(value)):  # a share of nothing is no answer
                answers[at].append((labels, value))
    return {tuple(sorted(found)) for found in answers.values()}


def test_the_doctor_finds_the_operator_well(bessemer: Installation) -> None:
    command = [sys.executable, "-m", "bessemer_operator.cli.main", "doctor", "-o", "json", "-n", "default"]
    done = subprocess.run(
        [*command, "--kubeconfig", str(bessemer.plane.kubeconfig)], check=False, capture_output=True, text=True
    )
    found = {item["subject"]: item["level"] for item in json.loads(done.stdout)}
    assert (found["operator"], found["training-operator"]) == ("ok", "ok"), done.stdout
    assert [level for subject, level in found.items() if subject.startswith("store ")] == ["ok"]


def test_events_tell_the_story_to_kubectl(bessemer: Installation) -> None:
    said = bessemer.plane.kubectl(["events", "--for", "adaptationpipeline/mini", "-n", "default", "--no-headers"])
    reasons = {line.split()[2] for line in said.splitlines()}
    assert {"StageSucceeded", "GatePassed", "ChannelMoved", "Promoted"} <= reasons, said


def test_kopf_leaves_no_mark_on_our_objects(bessemer: Installation) -> None:
    for obj in get(bessemer, OWN_KINDS)["items"]:
        assert "kopf" not in json.dumps(obj["metadata"])
        assert "finalizers" not in obj["metadata"]


def test_an_operator_that_starts_when_all_is_done_writes_nothing(bessemer: Installation) -> None:
    objects = len(get(bessemer, OWN_KINDS)["items"])
    before = len(operator_writes(bessemer))
    bessemer.plane.processes.stop("operator", signal.SIGKILL)
    bessemer.plane.processes.restart("operator")

    def reconciles() -> float:
        found = samples(program_of(bessemer))
        return sum(value for name, value in found.items() if name.startswith("bessemer_reconcile_seconds_count"))

    wait_for("every object to be reconciled", lambda: reconciles() >= objects)
    assert operator_writes(bessemer)[before:] == []


def test_an_edit_reaches_the_operator_and_only_what_depends_on_it_runs(bessemer: Installation, tmp_path: Path) -> None:
    file = words_only(tmp_path, "words")
    bessemer.plane.kubectl(["apply", "-f", str(file)])
    await_ready(bessemer, "words")
    document = json.loads(file.read_text())
    document["spec"]["stages"][0]["tokenizer"] = {"vocabularySize": 280}
    file.write_text(json.dumps(document))
    bessemer.plane.kubectl(["apply", "-f", str(file)])
    generation = get(bessemer, "apipe", "words")["metadata"]["generation"]

    def is_seen() -> bool:
        status = get(bessemer, "apipe", "words")["status"]
        return bool(status["observedGeneration"] == generation and status["stages"][-1].get("reused") is False)

    wait_for("the edit to be done", is_seen)
    await_ready(bessemer, "words")
    stages = [item for item in get(bessemer, "tstage")["items"] if item["metadata"]["name"].startswith("words-")]
    methods = Counter(item["spec"]["inputs"]["method"] for item in stages)
    assert methods == {"prepare": 1, "tokenizer": 2}


def test_it_goes_on_when_the_api_server_comes_back(bessemer: Installation, tmp_path: Path) -> None:
    bessemer.plane.kubectl(["apply", "-f", str(words_only(tmp_path, "outage"))])
    bessemer.plane.stop_component("kube-apiserver")
    bessemer.plane.start_component("kube-apiserver")
    if not bessemer.plane.processes.is_running("operator"):
        bessemer.plane.processes.restart("operator")
    await_ready(bessemer, "outage")
    assert_nothing_created_twice(bessemer)


def test_a_second_operator_waits_and_takes_over(bessemer: Installation, tmp_path: Path) -> None:
    """The holder is stopped, not killed: when it wakes it must not write, and ends."""
    processes = bessemer.plane.processes
    first = program_of(bessemer)
    second = replace(
        first, name="operator-2", env={**first.env, "BESSEMER_METRICS_PORT": str(free_port())}, is_ready=None
    )
    processes.start(second)
    wait_for("the second operator", lambda: read(second, "readyz") == (503, "another operator holds the lease"))
    processes.send_signal("operator", signal.SIGSTOP)
    begun = time.monotonic()
    wait_for("the second operator to take over", lambda: read(second, "readyz")[0] == 200)
    assert time.monotonic() - begun <= TAKE_OVER_SECONDS
    processes.send_signal("operator", signal.SIGCONT)
    wait_for("the first operator to end", lambda: not processes.is_running("operator"))
    assert "the lease was lost" in bessemer.operator_log
    bessemer.plane.kubectl(["apply", "-f", str(words_only(tmp_path, "second"))])
    await_ready(bessemer, "second")
    assert_nothing_created_twice(bessemer)
    processes.stop("operator-2", signal.SIGTERM)
    processes.restart("operator")


def test_sigterm_ends_it_soon_and_frees_the_lease(bessemer: Installation, tmp_path: Path) -> None:
    bessemer.plane.kubectl(["apply", "-f", str(words_only(tmp_path, "term"))])
    begun = time.monotonic()
    bessemer.plane.processes.stop("operator", signal.SIGTERM)
    assert time.monotonic() - begun < EXIT_SECONDS
    assert get(bessemer, "lease", "bessemer-operator", NAMESPACE)["spec"].get("holderIdentity", "") == ""
    begun = time.monotonic()
    bessemer.plane.processes.restart("operator")
    assert time.monotonic() - begun < EXIT_SECONDS
    await_ready(bessemer, "term")


def test_nothing_that_happened_here_was_a_traceback(bessemer: Installation) -> None:
    assert "Traceback" not in bessemer.operator_log


def test_without_the_crd_of_training_operator_it_says_what_to_install(bessemer: Installation) -> None:
    """The last test of this module: the CRD is gone afterwards."""
    processes = bessemer.plane.processes
    processes.stop("operator", signal.SIGTERM)
    bessemer.plane.kubectl(["delete", "crd", "pytorchjobs.kubeflow.org", "--wait=true"])
    before = len(bessemer.operator_log)
    processes.launch(replace(program_of(bessemer), is_ready=None))
    wait_for("the operator to give up", lambda: not processes.is_running("operator"))
    said = bessemer.operator_log[before:]
    assert processes._children["operator"].returncode == 1
    assert "install Kubeflow training-operator 1.9.4 or later" in said
    assert "Traceback" not in said
