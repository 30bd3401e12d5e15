"""Progress is asked of running pods, shown, and never believed: whatever a pod answers, the operator goes on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bessemer_api.v1alpha1.evaluation import Progress
from bessemer_operator.reconcile.cache import Key
from bessemer_operator.reconcile.progress import MAX_BYTES, attempt_of, poll_progress, read_progress, url_of
from tests.operator.reconcile.test_pipeline import hang, on
from tests.support.world import World

GOOD = {"progressPercentage": 40, "estimatedRemainingSeconds": 60, "metrics": {"loss": 2.5}, "message": "step 4"}
Serve = Callable[[Any], Any]


@pytest.fixture
async def answers() -> AsyncIterator[tuple[str, list[bytes | int]]]:
    """A pod's port: answers with the bytes (or the status) that the test put last."""
    said: list[bytes | int] = [json.dumps(GOOD).encode()]

    async def progress(_: web.Request) -> web.Response:
        if isinstance(said[-1], int):
            return web.Response(status=said[-1], headers={"Location": "http://169.254.169.254/"})
        return web.Response(body=said[-1])

    app = web.Application()
    app.add_routes([web.get("/progress", progress)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", said
    await runner.cleanup()


async def read(url: str) -> Progress | None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        return await read_progress(session, f"{url}/progress")


async def test_a_good_answer_is_read(answers: tuple[str, list[bytes | int]]) -> None:
    assert await read(answers[0]) == Progress.model_validate(GOOD)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"not json", id="no JSON"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"progressPercentage": 400}', id="400 percent"),
        pytest.param(b'{"metrics": {"loss": NaN}}', id="a loss that is not a number"),
        pytest.param(b'{"metrics": {"loss": 1e309}}', id="a loss that is infinite"),
        pytest.param(b'{"phase": "Succeeded"}', id="a field that it has no say in"),
        pytest.param(b'{"message": "' + b"x" * 300 + b'"}', id="a message that is too long"),
        pytest.param(b'{"message": "' + b"x" * MAX_BYTES + b'"}', id="more bytes than anybody needs"),
        pytest.param(302, id="a redirect"),
        pytest.param(500, id="an error"),
    ],
)
async def test_a_bad_answer_is_no_answer(answers: tuple[str, list[bytes | int]], answer: bytes | int) -> None:
    answers[1].append(answer)
    assert await read(answers[0]) is None


async def test_nobody_there_is_no_answer(unused_tcp_port: int) -> None:
    assert await read(f"http://127.0.0.1:{unused_tcp_port}") is None


def pod(**changes: Any) -> dict[str, Any]:
    labels = {"bessemer.dev/attempt": "a1", **changes.pop("labels", {})}
    owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "a1", "uid": "u", "controller": True}
    metadata = {"name": "a1-master-0", "namespace": "ns", "labels": labels, "ownerReferences": [owner], **changes}
    return {"kind": "Pod", "metadata": metadata, "status": {"phase": "Running", "podIP": "10.0.0.1"}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(pod(), Key("PyTorchJob", "ns", "a1"), id="a master that runs"),
        pytest.param(pod(labels={"training.kubeflow.org/replica-type": "worker"}), None, id="a worker"),
        pytest.param({**pod(), "status": {"phase": "Pending"}}, None, id="a pod that waits"),
        pytest.param(pod(ownerReferences=[]), None, id="a pod without a controller"),
    ],
)
def test_the_first_pod_of_a_running_attempt_reports(found: dict[str, Any], expected: Key | None) -> None:
    assert attempt_of(found) == expected


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        pytest.param(None, "http://10.0.0.1:9402/progress", id="the usual port"),
        pytest.param("20123", "http://10.0.0.1:20123/progress", id="a port that the kubelet chose"),
        pytest.param("9402/../x", "http://10.0.0.1:9402/progress", id="no port at all"),
        pytest.param("99999", "http://10.0.0.1:9402/progress", id="a port that is too large"),
    ],
)
def test_where_a_pod_is_asked(port: str | None, expected: str) -> None:
    annotations = {"bessemer.dev/metrics-port": port} if port else {}
    assert url_of(pod(annotations=annotations)) == expected


async def test_progress_reaches_the_stage_and_the_pipeline_and_goes_with_the_pod(
    world: World, answers: tuple[str, list[bytes | int]]
) -> None:
    world.node.script = on("pretrain", hang)
    await world.settle()
    [running] = [item for item in await world.all("Pod") if item["status"]["phase"] == "Running"]
    port = answers[0].rpartition(":")[2]
    annotated = {**running["metadata"], "annotations": {"bessemer.dev/metrics-port": port}}
    await world.cluster.update({**running, "metadata": annotated})
    await world.settle()
    polling = asyncio.create_task(poll_progress(world.runtime.controller, world.runtime.queue.add, 0.01))
    async with asyncio.timeout(10):
        while not world.runtime.controller.progress:
            await asyncio.sleep(0.01)
    await world.settle()
    assert (await world.stage("pretrain"))["status"]["progress"] == GOOD
    rows = {row["name"]: row["progressPercentage"] for row in (await world.pipeline())["status"]["stages"]}
    assert rows["pretrain"] == 40
    world.node.script = lambda spec, name: None
    await world.settle()
    async with asyncio.timeout(10):
        while world.runtime.controller.progress:
            await asyncio.sleep(0.01)
    polling.cancel()
    assert "progress" not in (await world.stage("pretrain"))["status"]
