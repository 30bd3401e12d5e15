"""What a pod wrote is found in the store after it: by the key that the contract says, of good ends and bad ones."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.job import EXIT_PERMANENT, SPEC_ENV, log_key
from bessemer_trainer.__main__ import main
from bessemer_trainer.errors import TransientError
from bessemer_trainer.kept_log import KEPT_BYTES, LAST_WRITE_SECONDS, KeptLog
from bessemer_trainer.store import Store
from tests.trainer.support import Pod, run_digest, store_in

KEY = log_key(run_digest("log"), "uid/words-a1")


def _wait_for(store: Store, key: str, text: bytes) -> None:
    deadline = time.monotonic() + 30
    while text not in (store.read(key) or b"") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert text in (store.read(key) or b"")


def test_the_log_of_a_pod_that_failed_is_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {
        "runUid": "uid/words-a1",
        "verb": "stage",
        "store": f"file://{tmp_path}/store",
        "inputDigest": run_digest("log"),
        "stage": {
            "method": "tokenizer",
            "tokenizer": {"vocabularySize": 280},
            "mixture": {"parts": [{"name": "d", "digest": "sha256:" + "0" * 64}]},
        },
    }
    for name, value in Pod(tmp_path / "pod", spec).variables().items():
        if name.startswith("BESSEMER") or name == SPEC_ENV:
            monkeypatch.setenv(name, value)
    assert main() == EXIT_PERMANENT
    kept = (store_in(tmp_path).read(KEY) or b"").decode()
    assert "ArtifactMissing" in kept
    assert kept == capsys.readouterr().err


def test_a_running_pod_keeps_its_log_from_time_to_time(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with KeptLog(every=0.01) as log:
        log.keep_in(store, KEY, from_now=True)
        sys.stdout.write("step 1\n")
        _wait_for(store, KEY, b"step 1\n")
        sys.stderr.write("step 2\n")
        _wait_for(store, KEY, b"step 1\nstep 2\n")


def test_of_a_long_log_the_newest_part_is_kept(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with KeptLog() as log:
        log.keep_in(store, KEY, from_now=False)
        for number in range(KEPT_BYTES // 8):
            sys.stdout.write(f"line {number:10}\n")
        log.write()
    kept = store.read(KEY) or b""
    assert len(kept) == KEPT_BYTES
    assert kept.endswith(f"line {KEPT_BYTES // 8 - 1:10}\n".encode())


def test_a_store_that_is_down_costs_no_error_and_little_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any) -> None:
        raise TransientError("StoreFailed", "connection refused")

    def hangs(*_: Any) -> None:
        time.sleep(LAST_WRITE_SECONDS + 30)

    store = store_in(tmp_path)
    for broken in (down, hangs):
        monkeypatch.setattr(store.backend, "write", broken)
        with KeptLog() as log:
            log.keep_in(store, KEY, from_now=False)
            sys.stdout.write("lost\n")
            begun = time.monotonic()
            log.write()
            assert time.monotonic() - begun < LAST_WRITE_SECONDS + 10
