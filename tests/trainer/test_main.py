"""The entry point: exit codes, one clear line, a report that always fits, and results that are found again."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer_api.job import MAX_REPORT_BYTES, REPORT_ENV, SPEC_ENV, RunError, RunReport
from bessemer_api.v1alpha1.data import Source
from bessemer_trainer.__main__ import fit, main
from bessemer_trainer.backends import disk_errors
from bessemer_trainer.context import Progress
from bessemer_trainer.data import pin_sources
from bessemer_trainer.errors import TransientError
from bessemer_trainer.metrics import Board, serve
from tests.trainer.support import Pod, make_tokenizer, run_digest, store_in, texts


def _prepared(folder: Path) -> str:
    """Digest of a prepared data set, made by hand."""
    store = store_in(folder)
    data = folder / "data"
    data.mkdir()
    lines = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(texts(30))]
    (data / "documents.jsonl").write_text("\n".join(lines) + "\n")
    return store.publish(data, "data", {"documents": 30})


def _tokenizer_spec(folder: Path, data: str, uid: str = "one") -> dict[str, Any]:
    stage = {
        "method": "tokenizer",
        "tokenizer": {"vocabularySize": 280},
        "mixture": {"parts": [{"name": "d", "digest": data}]},
    }
    digest = run_digest("tokenizer")
    return {"runUid": uid, "verb": "stage", "store": f"file://{folder}/store", "inputDigest": digest, "stage": stage}


def _run(folder: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[int, RunReport]:
    pod = Pod(folder / "pod", document)
    variables = pod.variables()
    for name in (SPEC_ENV, REPORT_ENV, "BESSEMER_SCRATCH"):
        monkeypatch.setenv(name, variables[name])
    (folder / "pod/report.json").unlink(missing_ok=True)
    return main(), pod.report()


def test_a_result_is_made_once_and_reported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _prepared(tmp_path)
    code, first = _run(tmp_path, _tokenizer_spec(tmp_path, data), monkeypatch)
    assert (code, first.error, first.reused) == (0, None, False)
    code, again = _run(tmp_path, _tokenizer_spec(tmp_path, data, "two"), monkeypatch)
    assert code == 0
    assert again == first.model_copy(update={"run_uid": "two", "reused": True})


def test_a_result_whose_artifact_is_gone_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _prepared(tmp_path)
    _, first = _run(tmp_path, _tokenizer_spec(tmp_path, data), monkeypatch)
    assert first.output_digest
    (tmp_path / "store/artifacts" / first.output_digest.replace(":", "-") / "manifest.json").unlink()
    code, again = _run(tmp_path, _tokenizer_spec(tmp_path, data), monkeypatch)
    assert (code, again.reused, again.output_digest) == (0, False, first.output_digest)
    assert store_in(tmp_path).fetch(str(again.output_digest)).is_dir()


def test_a_damaged_result_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _prepared(tmp_path)
    key = f"runs/{run_digest('tokenizer')[7:]}/result.json"
    store_in(tmp_path).write(key, b'{"output": "torn')
    code, report = _run(tmp_path, _tokenizer_spec(tmp_path, data), monkeypatch)
    assert (code, report.error) == (0, None)
    assert json.loads(store_in(tmp_path).read(key) or b"")["output"] == report.output_digest


BAD_SPECS: list[tuple[str, Any, str]] = [
    ("no JSON", "{", "Invalid JSON"),
    ("an empty file", "", "Invalid JSON"),
    ("a list", [], "document"),
    ("an unknown field", {"surprise": 1}, "surprise"),
    ("an unknown verb", {"verb": "mine"}, "verb"),
    ("a verb without its field", {"verb": "compare"}, "the verb 'compare' needs it"),
    ("a store that is a path", {"store": "/tmp"}, "store"),
    ("a digest of another kind", {"inputDigest": "md5:1"}, "inputDigest"),
    ("no ranks", {"worldSize": 0}, "worldSize"),
    ("a method that does not exist", {"stage": {"method": "guess"}}, "stage.method"),
    ("a newline in a name", {"runUid": "a", "stage": {"method": "prepare\n"}}, "stage.method"),
]


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in BAD_SPECS], ids=[row[0] for row in BAD_SPECS])
def test_a_bad_spec_is_one_line_and_exit_64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], change: Any, words: str
) -> None:
    spec = tmp_path / "run.json"
    good = _tokenizer_spec(tmp_path, "sha256:" + "0" * 64)
    spec.write_text(change if isinstance(change, str) else json.dumps({**good, **change} if change else change))
    monkeypatch.setenv(SPEC_ENV, str(spec))
    monkeypatch.setenv(REPORT_ENV, str(tmp_path / "report"))
    assert main() == 64
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("error: SpecInvalid: ")
    assert words in line
    error = RunReport.model_validate_json((tmp_path / "report").read_bytes()).error
    assert error
    assert error.reason == "SpecInvalid"


def test_a_missing_input_is_one_line_and_exit_64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, report = _run(tmp_path, _tokenizer_spec(tmp_path, "sha256:" + "0" * 64), monkeypatch)
    assert code == 64
    assert report.error
    assert report.error.reason == "ArtifactMissing"
    assert capfd.readouterr().err.startswith("error: ArtifactMissing: there is no artifact sha256:000")


def test_a_bug_leaves_a_report_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = store_in(tmp_path)
    make_tokenizer(store, tmp_path)
    data = _prepared(tmp_path)
    monkeypatch.setattr("bessemer_trainer.stages.tokenizer.train", lambda *_: 1 / 0)
    code, report = _run(tmp_path, _tokenizer_spec(tmp_path, data), monkeypatch)
    assert code == 1
    assert report.error == RunError(reason="Crashed", message="ZeroDivisionError: division by zero")
    assert "Traceback" in capfd.readouterr().err


def test_a_stop_that_comes_while_a_tokenizer_is_read_is_no_error_of_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM strikes inside the handler of all errors that surrounds the library."""
    tokenizer = make_tokenizer(store_in(tmp_path), tmp_path)
    parts = [{"name": "d", "digest": _prepared(tmp_path)}]
    stage = {"method": "mixture", "mixture": {"parts": parts, "tokenizer": tokenizer, "sequenceLength": 16}}
    document = _tokenizer_spec(tmp_path, "") | {"stage": stage}
    monkeypatch.setattr(
        "bessemer_trainer.token_cache.Tokenizer.from_file", lambda _: signal.raise_signal(signal.SIGTERM)
    )
    pod = Pod(tmp_path / "pod", document)
    for name, value in pod.variables().items():
        monkeypatch.setenv(name, value)
    assert main() == 143
    assert not (tmp_path / "pod/report.json").exists()


def test_a_disk_that_fills_up_outside_of_training_is_one_line_and_exit_75(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: the real write(2) of `prepare` fails in the middle of its documents."""
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps({"text": f"document {n}"}) + "\n" for n in range(2000)))
    sources = [{"uri": str(source)}]
    content = pin_sources([Source.model_validate(item) for item in sources])
    stage = {"method": "prepare", "prepare": {"sources": sources, "content": content, "rules": {}}}
    pod = Pod(tmp_path / "pod", _tokenizer_spec(tmp_path, "") | {"stage": stage})
    command = [sys.executable, "-c", _LIMITED]
    done = subprocess.run(command, env=pod.variables(), stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: DiskFull: ")
    assert "Traceback" not in done.stderr
    error = pod.report().error
    assert error
    assert error.reason == "DiskFull"


_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from bessemer_trainer.__main__ import main
sys.exit(main())
"""


def _tofile(folder: Path) -> None:
    with (folder / "array").open("wb") as file:
        np.zeros(10_000).tofile(file)


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    Tokenizer(BPE({f"word{number}": number for number in range(5000)}, [])).save(str(folder / "tokenizer.json"))


def _tensors(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(10_000)}, folder / "model.safetensors")


@pytest.mark.parametrize("write", [_tofile, _tokenizer, _tensors])
def test_a_full_disk_is_understood_from_every_library_that_writes(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    import resource

    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(TransientError, match=r"is full|allows no larger file") as caught, disk_errors("here"):
            write(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.reason == "DiskFull"


def test_an_error_that_is_none_of_the_disk_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), disk_errors("here"):
        raise ZeroDivisionError


LONG = ["x" * 1024, "\N{SNOWMAN}" * 1024, '"' * 1024, "\x01" * 1024]


@pytest.mark.parametrize("message", LONG, ids=["ascii", "three bytes each", "escaped", "control characters"])
def test_a_report_always_fits_and_keeps_its_digests(message: str) -> None:
    report = RunReport.model_validate(
        {
            "run_uid": "u" * 128,
            "verb": "stage",
            "input_digest": run_digest("a"),
            "output_digest": run_digest("b"),
            "metrics": {f"{'m' * 60}{n:03}": 1 / 3 for n in range(24)},
            "error": {"reason": "TooLong", "message": message},
        }
    )
    data = fit(report)
    assert len(data) <= MAX_REPORT_BYTES
    kept = RunReport.model_validate_json(data)
    assert (kept.input_digest, kept.output_digest, kept.error and kept.error.reason) == (
        report.input_digest,
        report.output_digest,
        "TooLong",
    )


@pytest.mark.parametrize(
    "module", ["resolve", "bank", "prepare", "tokenizer", "mixture", "compare", "promote", "rollback", "report"]
)
def test_a_verb_that_does_not_train_imports_no_torch(module: str) -> None:
    program = (
        f"import sys, bessemer_trainer.__main__, bessemer_trainer.stages.{module}; "
        "sys.exit(bool({'torch', 'transformers', 'deepspeed'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, env=os.environ).returncode == 0


def test_progress_and_metrics_are_served() -> None:
    board = Board("train")
    now = [0.0]
    progress = Progress(board, quiet=True, clock=lambda: now[0])
    progress.update(0, 100)
    now[0] = 10.0
    progress.update(20, 100, "training", loss=2.5, tokens_total=640.0)
    server = serve(board, 0)
    assert server
    base = f"http://127.0.0.1:{server.server_port}"
    with urllib.request.urlopen(f"{base}/progress") as answer:
        assert json.loads(answer.read()) == {
            "progressPercentage": 20,
            "estimatedRemainingSeconds": 40,
            "metrics": {"loss": 2.5, "tokens_total": 640.0},
            "message": "training",
        }
    with urllib.request.urlopen(f"{base}/metrics") as answer:
        text = answer.read().decode()
    server.shutdown()
    server.server_close()
    values = dict(line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    assert values == {
        "bessemer_train_loss": "2.5",
        "bessemer_train_progress_ratio": "0.2",
        "bessemer_train_tokens_total": "640.0",
    }
    assert "# TYPE bessemer_train_tokens_total counter" in text


def test_a_taken_port_costs_the_metrics_not_the_work(capfd: pytest.CaptureFixture[str]) -> None:
    server = serve(Board("train"), 0)
    assert server
    assert serve(Board("train"), server.server_port) is None
    assert "metrics are not served" in capfd.readouterr().err
    server.shutdown()
    server.server_close()
