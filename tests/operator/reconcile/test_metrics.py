"""What Prometheus gets to see of a run, and what /healthz says of a process that has gone blind."""

import re

import aiohttp
import pytest

from bessemer_api.job import EXIT_PREEMPTED
from bessemer_operator.reconcile.cache import Cache, Key
from bessemer_operator.reconcile.gauges import Objects
from bessemer_operator.reconcile.health import LAG_SECONDS, OLDEST_SECONDS, SIGN_SECONDS, Health, serve
from bessemer_operator.reconcile.metrics import Metrics
from bessemer_operator.reconcile.watches import LONGEST_PAUSE, Pacer
from tests.operator.reconcile.test_pipeline import on
from tests.support.world import Ending, World, utc_start

POEMS = 'namespace="default",pipeline="poems"'


async def measured(world: World) -> dict[str, float]:
    """A run, and all samples after it."""
    metrics = Metrics(Objects(world.cache, world.profiles, lambda: world.now), "1.2.3")
    world.runtime.controller.on_plan = metrics.planned
    world.runtime.measured = metrics.reconciled
    metrics.watch_queue(lambda: float(len(world.runtime.queue)))
    metrics.request("GET", "pods", 200)
    await world.settle()
    lines = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_a_run_is_counted(world: World) -> None:
    world.node.script = on("pretrain", lambda spec: Ending(EXIT_PREEMPTED), times=2)
    world.store.verdicts[("release", 1)] = "unclear"
    found = await measured(world)
    expected = {
        'bessemer_pipelines{phase="Ready"}': 1,
        'bessemer_pipelines{phase="Stalled"}': 0,
        'bessemer_gate_decisions_total{gate="forgetting",verdict="Passed"}': 1,
        'bessemer_gate_decisions_total{gate="release",verdict="Passed"}': 1,
        "bessemer_promotions_total": 1,
        'bessemer_attempts_total{outcome="Succeeded"}': 7 + 4,
        'bessemer_attempts_total{outcome="Preempted"}': 2,
        "bessemer_preemptions_total": 2,
        'bessemer_stage_duration_seconds_count{method="cpt"}': 1,
        'bessemer_api_requests_total{code="200",resource="pods",verb="GET"}': 1,
        "bessemer_queue_depth": 0,
        'bessemer_build_info{version="1.2.3"}': 1,
        'bessemer_pods{phase="Running"}': 0,
        'bessemer_channel_record{channel="prod",namespace="default",pipeline="poems"}': 1,
        f'bessemer_gate_score{{axis="loss",gate="release",{POEMS}}}': 0.2,
        f'bessemer_gate_threshold{{axis="loss",bound="notWorseThan",gate="release",{POEMS}}}': -0.05,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["bessemer_stage_handoff_seconds_count"] >= 6
    assert sum(value for name, value in found.items() if name.startswith("bessemer_reconcile_seconds_count")) > 20
    assert all(re.match(r"bessemer_[a-z_]+(\{|$)", name) for name in found)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def health() -> Health:
    health = Health(oldest=lambda: 0.0, is_leader=lambda: True, clock=Clock(), is_synced=True)
    health.sign("Pod")
    return health


def test_a_process_that_sees_and_works_is_healthy(health: Health) -> None:
    assert health.problems() == []


def test_a_watch_without_a_sign_of_life_is_a_problem(health: Health) -> None:
    health.clock.now += SIGN_SECONDS + 1  # type: ignore[attr-defined]
    assert health.problems() == ["no sign of the watch of Pod for 421 s"]
    health.sign("Pod")
    assert health.problems() == []


def test_an_object_that_waits_for_ever_is_a_problem(health: Health) -> None:
    health.oldest = lambda: OLDEST_SECONDS + 1
    assert health.problems() == ["an object has been waiting for 181 s"]
    health.is_leader = lambda: False
    assert health.problems() == []


def test_a_loop_that_is_late_is_a_problem(health: Health) -> None:
    health.lag = LAG_SECONDS + 1
    assert health.problems() == ["the event loop was 11.0 s late"]


async def test_the_port_answers_health_readiness_and_metrics(health: Health) -> None:
    health.is_leader = lambda: False
    runner, port = await serve(0, health, lambda: b"bessemer_up 1\n")
    found = {}
    async with aiohttp.ClientSession() as session:
        for path in ("healthz", "readyz", "metrics"):
            async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                found[path] = (answer.status, await answer.text())
    await runner.cleanup()
    assert found == {
        "healthz": (200, "ok"),
        "readyz": (503, "another operator holds the lease"),
        "metrics": (200, "bessemer_up 1\n"),
    }


def test_a_watch_that_ends_at_once_waits_longer_and_longer_and_a_calm_one_does_not() -> None:
    clock = Clock()
    pacer = Pacer(clock)
    requests, calm = 0, []
    end = clock.now + 60
    while clock.now < end:
        clock.now += pacer.pause("/pods") + 0.0005
        requests += 1
    assert requests <= 12
    clock.now += LONGEST_PAUSE * 3
    for _ in range(3):
        calm.append(pacer.pause("/pods"))
        clock.now += 300
    assert calm == [0.0, 0.0, 0.0]


def test_the_gpus_of_a_running_pod_are_seen_although_the_cache_keeps_little_of_it() -> None:
    labels = {"bessemer.dev/pipeline": "poems", "bessemer.dev/stage": "cpt"}
    metadata = {"name": "cpt-a1", "namespace": "default", "uid": "u", "resourceVersion": "1", "labels": labels}
    containers = [{"name": "pytorch", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]
    cache = Cache()
    cache.put({"kind": "Pod", "metadata": metadata, "spec": {"containers": containers}, "status": {"phase": "Running"}})
    shown = Metrics(Objects(cache, {}, utc_start), "1").render().decode()
    assert 'bessemer_stage_pod_gpus{namespace="default",pipeline="poems",pod="cpt-a1",stage="cpt"} 2.0' in shown
    assert cache.objects[Key("Pod", "default", "cpt-a1")]["spec"] == {
        "containers": [{"resources": containers[0]["resources"]}]
    }
