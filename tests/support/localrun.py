"""`bessemer run` as its user meets it: a program with an output and an exit code, and what it left in its folder.

It must not reach into the program: what is asked is asked of its output, its state folder and its store.
"""

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer_operator.cluster.local import LocalCluster
from tests.support.controlplane.process import wait_for

Obj = dict[str, Any]
COMMAND = (sys.executable, "-m", "bessemer_operator.cli.main")
TRAINERS = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
MINUTES = 60
"""For a run that hangs; how long one takes depends on what else the machine does."""
TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str

    @property
    def last_line(self) -> str:
        """The last line on standard error, or of the output while there is none."""
        return (self.errors or self.output).rstrip().rpartition("\n")[2]


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs of one pipeline file, in one state folder."""

    file: Path
    environment: Mapping[str, str] | None = None

    @property
    def state(self) -> Path:
        return self.file.parent / ".bessemer"

    def start(self) -> "subprocess.Popen[str]":
        """Begin a run; it leads a process group of its own."""
        return subprocess.Popen(
            [*COMMAND, "run", str(self.file)],
            env={**os.environ, **TRAINERS, **(self.environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def run(self) -> Ended:
        """Run to the end. No way to end is a traceback, for whatever reason."""
        process = self.start()
        try:
            ended = self.finish(process)
        finally:
            process.kill()
        assert TRACEBACK not in ended.output + ended.errors + self.log()
        return ended

    def finish(self, process: "subprocess.Popen[str]") -> Ended:
        """Wait for a run that was started."""
        output, errors = process.communicate(timeout=MINUTES * 60)
        return Ended(process.returncode, output, errors)

    def log(self) -> str:
        """What the machinery logged, over all runs."""
        path = self.state / "run.log"
        return path.read_text() if path.exists() else ""

    def objects(self, kind: str) -> list[Obj]:
        """All objects of a kind."""

        async def listed() -> list[Obj]:
            cluster = LocalCluster(self.state / "cluster")
            try:
                return [dict(item) for item in (await cluster.list(kind)).items]
            finally:
                await cluster.close()

        return asyncio.run(listed())

    def pipeline(self) -> Obj:
        """The pipeline, with its status."""
        return self.objects("AdaptationPipeline")[0]

    def attempts(self) -> list[str]:
        """Names of all attempts that there are, in order."""
        return sorted(item["metadata"]["name"] for kind in ("Job", "PyTorchJob") for item in self.objects(kind))

    def running_pod(self, part: str) -> Obj | None:
        """The pod that runs for this part of the pipeline: a stage, `eval`, or one of the pipeline's own verbs."""
        pods = self.objects("Pod") if (self.state / "cluster").is_dir() else []
        mine = [pod for pod in pods if re.search(rf"-{part}-[0-9a-f]{{10}}-a", pod["metadata"]["name"])]
        return next((pod for pod in mine if (pod.get("status") or {}).get("phase") == "Running"), None)

    def await_pod(self, part: str) -> Obj:
        """Wait until a pod runs for this part of the pipeline; the pod."""
        return wait_for(f"a pod of {part} to run", lambda: self.running_pod(part), 300) or {}

    def await_ranks(self, stage: str, count: int) -> list[int]:
        """Wait until a training stage has this many ranks; their process ids by rank."""
        self.await_pod(stage)
        wait_for(f"{count} ranks of {stage}", lambda: len(self._ranks()) == count, 60)
        return [pid for _, pid in sorted(self._ranks().items())]

    def await_step(self, stage: str, percent: int) -> None:
        """Wait until this much of a running training stage is done."""
        port = self.await_pod(stage)["metadata"]["annotations"]["bessemer.dev/metrics-port"]
        deadline = time.monotonic() + 300
        while progress_at(port) < percent:
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited in vain for {percent} % of {stage}")
            time.sleep(0.002)

    def await_quiet(self) -> None:
        """Wait until nothing that a killed run had started is left."""
        wait_for("what the killed run had started to end", lambda: not self.left_over(), 30)

    def _ranks(self) -> dict[int, int]:
        found = {}
        for pid in self.left_over():
            variables = dict(line.partition("=")[::2] for line in environment_of(pid))
            if "LOCAL_RANK" in variables:
                found[int(variables["RANK"])] = pid
        return found

    def left_over(self) -> list[int]:
        """Processes that still run for this state folder: their command, environment or working folder names it."""
        processes = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
        return [pid for pid in processes if self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        if pid == os.getpid():
            return False
        try:
            told = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
            place = str(Path(f"/proc/{pid}/cwd").readlink())
        except OSError:  # it ended just now
            return False
        mark = str(self.state)
        return place.startswith(mark) or any(mark.encode() in text for text in told)


def summary_of(pipeline: Obj) -> dict[str, Any]:
    """What must be equal wherever a pipeline ran: identities, artifacts, verdicts with their numbers, channels."""
    status = pipeline["status"]
    rows = {row["name"]: (row["inputDigest"], row.get("outputDigest")) for row in status["stages"]}
    channels = [(item["name"], item.get("digest"), item["record"]) for item in status["channels"]]
    return {"stages": rows, "gates": status["gates"], "channels": channels}


def outputs_of(pipeline: Obj) -> dict[str, str | None]:
    """Artifact of each stage."""
    return {row["name"]: row.get("outputDigest") for row in pipeline["status"]["stages"]}


def conditions_of(obj: Obj) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {item["type"]: (item["status"], item["reason"]) for item in obj["status"].get("conditions") or []}


def last_record(store: Path, channel: str) -> Obj:
    """The newest record of a channel in a store folder."""
    newest = max((store / "channels" / channel).glob("*.json"))
    return dict(json.loads(newest.read_text()))


def environment_of(pid: int) -> list[str]:
    """`NAME=value` of a process; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return []


def progress_at(port: str) -> int:
    """Per cent that the pod behind this port says are done; 0 while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=5) as answer:
            return int(json.load(answer).get("progressPercentage", 0))
    except (OSError, http.client.HTTPException):
        return 0
