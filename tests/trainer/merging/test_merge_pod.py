"""A merge as a pod runs it: two processes, told to stop, begun again, found again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bessemer_api.job import EXIT_PREEMPTED, REPORT_ENV, SPEC_ENV, RunReport
from tests.trainer.merging.world import Family

NAMES = ["left", "right"]


def start(family: Family, folder: Path) -> subprocess.Popen[str]:
    context = family.context(family.inputs(t=[{"value": [0.6]}]), NAMES)
    (folder / "run.json").write_text(context.spec.model_dump_json(by_alias=True, exclude_none=True))
    environment = {
        SPEC_ENV: str(folder / "run.json"),
        REPORT_ENV: str(folder / "report.json"),
        "BESSEMER_SCRATCH": str(folder / "scratch"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "bessemer_trainer"], env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
    )


def engines(folder: Path) -> list[int]:
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdecimal() and f"{folder}/scratch/merge/job.json" in (path / "cmdline").read_text():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_an_attempt_that_is_told_to_stop_leaves_no_process_and_the_next_one_is_whole(
    family: Family, tmp_path: Path
) -> None:
    pod = start(family, tmp_path)
    deadline = time.monotonic() + 120
    while not engines(tmp_path):
        assert pod.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    pod.send_signal(signal.SIGTERM)
    pod.communicate(timeout=60)
    assert (pod.returncode, engines(tmp_path)) == (EXIT_PREEMPTED, [])
    pod = start(family, tmp_path)
    pod.communicate(timeout=300)
    first = RunReport.model_validate_json((tmp_path / "report.json").read_bytes())
    assert (pod.returncode, first.verb, first.reused) == (0, "merge", False)
    pod = start(family, tmp_path)
    pod.communicate(timeout=300)
    again = RunReport.model_validate_json((tmp_path / "report.json").read_bytes())
    assert (again.output_digest, again.reused) == (first.output_digest, True)
