"""Training with the store in S3: two ranks, preempted, resumed from objects, published."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bessemer_trainer.store import open_store, run_key
from tests.support.s3 import S3Server
from tests.trainer.support import (
    Inputs,
    Pod,
    lines_of,
    make_mixture,
    make_tokenizer,
    run_digest,
    texts,
    training_spec,
    weights_of,
)
from tests.trainer.zygote import Zygote


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server.start() as server:
        yield server


def test_a_preempted_run_resumes_from_s3_bit_for_bit(
    zygote: Zygote, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3.bucket}/models"
    store = open_store(url, tmp_path / "scratch")
    tokenizer = make_tokenizer(store, tmp_path)
    inputs = Inputs(store, url, tokenizer, make_mixture(store, tmp_path, tokenizer, texts(80)))
    weights = []
    for name, is_preempted in (("whole", False), ("preempted", True)):
        spec = training_spec(
            inputs,
            name,
            train={"maxSteps": 12, "globalBatchTokens": 128},
            worldSize=2,
            deepspeed={"zeroStage": 2},
            checkpoint={"everySteps": 4, "keepLast": 1},
        )
        pod = Pod(tmp_path / name, spec, 2)
        ranks = pod.start(zygote)
        if is_preempted:
            while not any(key.endswith("manifest.json") for key in store.list(run_key(run_digest(name)))):
                assert all(rank.poll() is None for rank in ranks)
            ranks[1].send_signal(signal.SIGTERM)
            assert pod.finish(ranks)[0] == 143
            ranks = pod.start(zygote)
        code, stderr = pod.finish(ranks)
        assert code == 0, stderr
        assert ("resumed at step" in stderr) == is_preempted
        weights.append(weights_of(store, str(pod.report().output_digest)))
        kept = {key.split("/")[2] for key in store.list(run_key(run_digest(name))) if "/step-" in key}
        assert len(kept) == 1
        assert [line["step"] for line in lines_of(store, name)] == list(range(1, 13))
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_a_store_that_can_not_be_reached_is_one_line_and_exit_75(
    zygote: Zygote, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    url = f"s3://{s3.bucket}/models"
    store = open_store(url, tmp_path / "scratch")
    digest = "sha256:" + "0" * 64
    pod = Pod(tmp_path, training_spec(Inputs(store, url, digest, digest), "unreachable"), 1)
    code, stderr = pod.run(zygote)
    assert code == 75
    assert stderr.count("\n") == 1
    assert stderr.startswith("error: StoreFailed: s3://")
