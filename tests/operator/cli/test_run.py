"""`bessemer run` and the verbs, for real: a pipeline that prepares data and trains a tokenizer, as a process."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bessemer_operator.cli.problems import (
    EXIT_INTERRUPTED,
    EXIT_INVALID,
    EXIT_NOT_FOUND,
    EXIT_STAGE,
    EXIT_UNREACHABLE,
    UserError,
)
from bessemer_operator.cli.target import as_pipeline
from bessemer_operator.cluster.local import LocalCluster
from tests.api.documents import PIPELINE as DOCUMENT
from tests.api.documents import edited

PIPELINE = """apiVersion: bessemer.dev/v1alpha1
kind: AdaptationPipeline
metadata: {name: words}
spec:
  store: file://./store
  data:
    poems: {sources: [{uri: poems.jsonl}]}
  stages:
  - {name: words, method: tokenizer, data: {mixture: [{ref: poems}]}, tokenizer: {vocabularySize: 300}}
"""
LIMIT_SECONDS = 300


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bessemer_operator.cli.main", *arguments]


def bessemer(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments), check=False, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A pipeline beside its data; nothing has run."""
    rows = [json.dumps({"text": f"The fox number {n} jumps over the dog {n * n} times."}) for n in range(200)]
    (tmp_path / "poems.jsonl").write_text("\n".join(rows))
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE)
    return path


def test_a_run_ends_well_tells_what_happened_and_is_reused(file: Path) -> None:
    first = bessemer("run", str(file))
    assert first.returncode == 0, first.stdout + first.stderr
    lines = first.stdout.splitlines()
    assert [line for line in lines if "running" not in line][:2] == ["data-poems: succeeded", "words: succeeded"]
    assert lines[-2] == "Everything that was declared is done."
    report = Path(lines[-1].removeprefix("Report: file://"))
    assert report.is_file() and report.is_relative_to(file.parent / "store")
    assert bessemer("report", str(file)).stdout.strip() == f"file://{report}"

    plan = json.loads(bessemer("plan", str(file), "-o", "json").stdout)
    assert {step["name"]: step["fate"] for step in plan["steps"]} == {"data-poems": "reuse", "words": "reuse"}
    again = bessemer("run", str(file))
    assert (again.returncode, "running" in again.stdout) == (0, False)

    changed = file.read_text().replace("300", "310")
    file.write_text(changed)
    plan = json.loads(bessemer("plan", str(file), "-o", "json").stdout)
    assert {step["name"]: step["fate"] for step in plan["steps"]} == {"data-poems": "reuse", "words": "run"}


def test_a_plan_before_anything_ran_leaves_nothing_behind(file: Path) -> None:
    done = bessemer("plan", str(file))
    assert done.stdout.splitlines()[:3] == [
        "run    data-poems  prepare",
        "later  words       tokenizer, after data-poems",
        "0 of 2 reused.",
    ]
    assert not (file.parent / ".bessemer").exists()


def test_verbs_on_a_local_run(file: Path) -> None:
    assert bessemer("status", str(file)).returncode == EXIT_NOT_FOUND
    assert bessemer("run", str(file)).returncode == 0
    assert "✓  words" in bessemer("status", str(file)).stdout
    assert json.loads(bessemer("status", str(file), "-o", "json").stdout)["metadata"]["name"] == "words"

    assert bessemer("status", str(file), "-o", "name").stdout == "adaptationpipeline.bessemer.dev/words\n"
    assert "Ready" in bessemer("status", str(file), "-o", "wide").stdout
    watched = bessemer("watch", str(file))
    assert (watched.returncode, watched.stdout.splitlines()[-1]) == (0, "Everything that was declared is done.")

    assert bessemer("suspend", str(file)).stdout == f"words is suspended; continue with: bessemer run {file}\n"
    paused = bessemer("run", str(file))
    assert (paused.returncode, "Suspended" in paused.stdout) == (EXIT_INTERRUPTED, True)
    assert bessemer("resume", str(file)).returncode == 0
    assert bessemer("retry", str(file)).returncode == 0
    assert bessemer("run", str(file)).returncode == 0

    wrong = bessemer("rerun-from", str(file), "wrods")
    assert (wrong.returncode, wrong.stderr) == (2, "words has no stage wrods; its stages: words\n")
    assert bessemer("rerun-from", str(file), "words").returncode == 0
    again = bessemer("run", str(file))
    assert (again.returncode, "words: running" in again.stdout) == (0, True)


def test_a_log_outlives_its_pod_and_a_report_is_fetched(file: Path) -> None:
    assert bessemer("run", str(file)).returncode == 0
    from_pod = bessemer("logs", str(file))
    assert (from_pod.returncode, from_pod.stdout) == (0, bessemer("logs", str(file), "words").stdout)
    shutil.rmtree(file.parent / ".bessemer/node")
    kept = bessemer("logs", str(file), "words")
    assert (kept.returncode, kept.stdout) == (0, from_pod.stdout)
    assert bessemer("logs", str(file), "resolve").returncode == 0
    assert bessemer("logs", str(file), "words", "--attempt", "2").stderr.endswith("has no attempt 2; attempts: 1\n")
    unknown = bessemer("logs", str(file), "wrods")
    assert (unknown.returncode, "stages: data-poems, words" in unknown.stderr) == (EXIT_NOT_FOUND, True)

    saved = file.parent / "saved.html"
    assert bessemer("report", str(file), "--save", str(saved)).stdout == f"{saved}\n"
    assert saved.read_bytes() == Path(bessemer("report", str(file)).stdout.strip().removeprefix("file://")).read_bytes()
    shutil.rmtree(file.parent / "store/reports")
    gone = bessemer("report", str(file), "--save", str(saved))
    assert (gone.returncode, "is not there, as seen from here" in gone.stderr) == (EXIT_NOT_FOUND, True)
    for log in (file.parent / "store").glob("runs/*/logs/*/*.log"):
        log.unlink()
    lost = bessemer("logs", str(file), "words")
    assert (lost.returncode, "left no log" in lost.stderr) == (EXIT_NOT_FOUND, True)


def test_data_that_is_not_there_is_a_failed_run(file: Path) -> None:
    (file.parent / "poems.jsonl").unlink()
    done = bessemer("run", str(file))
    assert (done.returncode, "poems.jsonl" in done.stdout) == (EXIT_STAGE, True), done.stdout
    assert done.stderr.startswith(f"Logs: {file.parent}/.bessemer/node")


def test_an_invalid_file_starts_nothing(file: Path) -> None:
    file.write_text(PIPELINE.replace("ref: poems", "ref: poem"))
    done = bessemer("run", str(file))
    assert (done.returncode, done.stdout) == (EXIT_INVALID, "")
    assert 'did you mean "poems"?' in done.stderr
    assert not (file.parent / ".bessemer").exists()


def test_an_interrupted_run_goes_on_where_it_was(file: Path) -> None:
    process = subprocess.Popen(command("run", str(file)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("data-poems: ")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert (process.returncode, "Traceback" in errors) == (EXIT_INTERRUPTED, False), output + errors
    assert bessemer("run", str(file)).returncode == 0


async def test_a_second_run_of_the_same_folder_is_refused(file: Path) -> None:
    owner = LocalCluster(file.parent / ".bessemer" / "cluster")
    owner.claim()
    second = bessemer("run", str(file))
    await owner.close()
    assert (second.returncode, "is in use by another bessemer process" in second.stderr) == (EXIT_UNREACHABLE, True)
    assert bessemer("run", str(file)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status", "words", "--kubeconfig", "/nowhere"), EXIT_UNREACHABLE),
        (("retry", "words", "--kubeconfig", "/nowhere"), EXIT_UNREACHABLE),
        (("status", "nowhere.yaml"), EXIT_INVALID),
        (("run",), 2),
        (("status", "-o", "xml"), 2),
        (("frobnicate",), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_have_exit_codes_and_no_traceback(arguments: tuple[str, ...], code: int) -> None:
    done = bessemer(*arguments)
    assert (done.returncode, bool(done.stderr)) == (code, True)


@pytest.mark.parametrize("blocked", ["", "cluster", "node", "cluster/owner.lock/x", "run.log/x"])
def test_a_state_folder_that_can_not_be_used_is_one_line(file: Path, blocked: str) -> None:
    """What should be a folder is a file, or the reverse; a folder that may not be written to fails in the same way."""
    state = file.parent / "state"
    (state / blocked).parent.mkdir(parents=True, exist_ok=True)
    (state / blocked).write_text("in the way") if not blocked.endswith("/x") else (state / blocked).mkdir()
    done = bessemer("run", str(file), "--state", str(state))
    assert done.returncode == EXIT_UNREACHABLE, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert str(state / blocked.removesuffix("/x")) in done.stderr


def test_a_state_below_a_file_is_one_line(file: Path) -> None:
    done = bessemer("run", str(file), "--state", f"{file}/x")
    assert (done.returncode, done.stderr) == (EXIT_UNREACHABLE, f"{file}/x: Not a directory\n")


def test_a_disk_that_is_full_is_no_traceback(file: Path) -> None:
    """No file may grow beyond 8 KiB: the journal soon does."""
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "-", *command("run", str(file))]
    done = subprocess.run(limited, check=False, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert (done.returncode, len(done.stderr.splitlines())) == (EXIT_UNREACHABLE, 1), done.stdout + done.stderr
    assert "File too large" in done.stderr


def test_help_needs_none_of_the_heavy_modules() -> None:
    script = "import sys, bessemer_operator.cli.main; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    heavy = {"asyncio", "pydantic", "kubernetes", "aiohttp", "ruamel", "torch", "kopf"}
    assert not heavy & set(done.stdout.strip("[]\n").replace("'", "").split(", "))


def test_an_object_of_another_version_is_told() -> None:
    with pytest.raises(UserError) as refusal:
        as_pipeline(edited(DOCUMENT, {"spec.stages.0.method": "distil"}))
    assert (refusal.value.code, "does not understand spec.stages[0].method" in str(refusal.value)) == (
        EXIT_INVALID,
        True,
    )
