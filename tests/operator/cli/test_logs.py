"""`bessemer logs -f` on the log of a pod that is still being written."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from bessemer_operator.cli import logs
from bessemer_operator.cluster.local import LocalCluster
from bessemer_operator.cluster.protocol import Ref
from bessemer_operator.core import naming

NAMES = ("words-a1-0", "words-a1-1")


class Attempt:
    """An attempt of two pods in a local cluster, whose logs this test writes as an executor would."""

    def __init__(self, root: Path) -> None:
        self.root, self.cluster = root, LocalCluster(root / "cluster", logs=root / "pods")

    async def add(self, name: str) -> None:
        labels = {naming.LABEL_ATTEMPT: "words-a1"}
        metadata = {"name": name, "namespace": "default", "labels": labels}
        await self.cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}})
        await self.become(name, "Running")

    async def become(self, name: str, phase: str) -> None:
        pod = await self.cluster.get(Ref("Pod", name, "default"))
        await self.cluster.replace_status({**pod, "status": {"phase": phase}}, "kubelet")

    def write(self, name: str, text: str) -> None:
        folder = self.root / "pods" / f"default_{name}_1"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{logs.CONTAINER}.log").open("a") as stream:
            stream.write(text)


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_what_is_written_is_shown_once_line_by_line_until_the_pods_have_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FOLLOW_SECONDS", 0.01)
    attempt, said = Attempt(tmp_path), ""

    def shows(text: str) -> Callable[[], bool]:
        def look() -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return said == text

        return look

    for name in NAMES:
        await attempt.add(name)
    attempt.write(NAMES[0], "old\nstep 1\nhalf a l")
    follow = asyncio.create_task(logs._follow(attempt.cluster, "default", "words-a1", 1))
    await eventually(shows(f"{NAMES[0]}: step 1\n"))
    attempt.write(NAMES[0], "ine\n")
    await eventually(shows(f"{NAMES[0]}: step 1\n{NAMES[0]}: half a line\n"))
    attempt.write(NAMES[1], "\x1b[31mred\n")
    attempt.write(NAMES[0], "no end")
    for name in NAMES:
        assert not follow.done()
        await attempt.become(name, "Succeeded")
    assert await asyncio.wait_for(follow, 60) is True
    said += capsys.readouterr().out
    assert sorted(said.splitlines()[2:]) == [f"{NAMES[0]}: no end", f"{NAMES[1]}: \ufffd[31mred"]
    await attempt.cluster.close()


async def test_nothing_is_followed_where_no_pod_is(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path)
    assert await logs._follow(attempt.cluster, "default", "words-a1", 0) is False
    await attempt.cluster.close()
