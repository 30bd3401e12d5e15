"""Ranks, the launcher, DeepSpeed's configuration, and the schedule: pure functions against their formulas."""

import itertools
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer_api.v1alpha1.train import DeepSpeed, Train
from bessemer_trainer.dist import declared_gang, deepspeed_config
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.launch import rank_environments, wait_for
from bessemer_trainer.schedule import RunPlan, global_batch, learning_rate, micro_batch, plan_run
from tests.trainer.support import Inputs, Pod, training_spec


def _train(**changes: Any) -> Train:
    length = {} if {"epochs", "max_steps", "max_tokens"} & set(changes) else {"max_steps": 100}
    return Train.model_validate({**length, **changes})


def _plan(sequences: int = 10, batch: int = 4, world: int = 1, micro: int = 1) -> RunPlan:
    return plan_run(_train(global_batch_tokens=batch * 8, max_steps=7), sequences, 8, world, micro, 3)


def test_the_whole_configuration_of_deepspeed() -> None:
    train = _train(learning_rate=1e-3, global_batch_tokens=64, precision="bf16", gradient_clip=0.5)
    plan = plan_run(train, 100, 8, 2, 2, 0)
    settings = DeepSpeed.model_validate({"zero_stage": 3, "micro_batch_size": 2})
    assert deepspeed_config(plan, train, settings, on_gpu=True) == {
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
        "bf16": {"enabled": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "torch_adam": True,
                "lr": 1e-3,
                "betas": [0.9, 0.95],
                "eps": 1e-8,
                "weight_decay": 0.1,
                "fused": True,
            },
        },
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
            "stage3_prefetch_bucket_size": 50_000_000,
            "stage3_gather_16bit_weights_on_model_save": False,
        },
        "checkpoint": {"tag_validation": "Ignore"},
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


STAGES = [("bf16", 0, 1), ("bf16", 1, 1), ("bf16", 2, 2), ("bf16", 3, 3), ("fp32", 0, 0), ("fp32", 2, 2)]


@pytest.mark.parametrize(("precision", "declared", "used"), STAGES)
def test_bf16_always_keeps_fp32_weights(precision: str, declared: int, used: int) -> None:
    train = _train(precision=precision, global_batch_tokens=64)
    config = deepspeed_config(
        plan_run(train, 9, 8, 1, 1, 0), train, DeepSpeed.model_validate({"zero_stage": declared}), on_gpu=False
    )
    assert config["zero_optimization"]["stage"] == used


def test_the_cosine_schedule_follows_its_formula() -> None:
    train = _train(learning_rate=2.0, warmup_ratio=0.1, min_learning_rate_ratio=0.1, schedule="cosine")
    rates = [learning_rate(train, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 10 for step in range(10)])
    expected = [2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * (step - 10) / 89)) / 2) for step in range(10, 100)]
    assert rates[10:] == pytest.approx(expected)
    assert (rates[10], rates[-1]) == (2.0, pytest.approx(0.2))


def test_the_linear_schedule_follows_its_formula() -> None:
    train = _train(learning_rate=1.0, warmup_ratio=0.2, min_learning_rate_ratio=0.5, schedule="linear")
    rates = [learning_rate(train, step, 10) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, *(1 - 0.5 * step / 7 for step in range(8))])


def test_the_constant_schedule_only_warms_up() -> None:
    train = _train(learning_rate=1.0, warmup_ratio=0.5, schedule="constant")
    assert [learning_rate(train, step, 4) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


def test_the_wsd_schedule_decays_over_the_last_tenth() -> None:
    train = _train(learning_rate=1.0, warmup_ratio=0.1, min_learning_rate_ratio=0.0, schedule="wsd")
    rates = [learning_rate(train, step, 1000) for step in range(1000)]
    assert set(rates[99:899]) == {1.0}
    assert rates[-1] == pytest.approx(0.0)
    assert rates[949] == pytest.approx(0.5, abs=0.01)
    assert all(after <= before for before, after in itertools.pairwise(rates[99:]))


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_every_rate_is_between_zero_and_the_peak(schedule: str, warmup: float, steps: int) -> None:
    train = _train(learning_rate=3.0, warmup_ratio=warmup, schedule=schedule)
    rates = [learning_rate(train, step, steps) for step in range(steps)]
    assert all(0.0 < rate <= 3.0 for rate in rates)


LENGTHS: list[tuple[str, dict[str, Any], int]] = [
    ("as many steps as were asked for", {"max_steps": 17}, 17),
    ("tokens are rounded up to whole steps", {"max_tokens": 33}, 2),
    ("an epoch of 10 sequences in batches of 4 takes 3 steps", {"epochs": 1}, 3),
    ("two epochs that fit take no step more", {"epochs": 2}, 5),
    ("a part of an epoch is enough", {"epochs": 0.1}, 1),
    ("0.3 of 10 epochs is 3, not 3.0000000004", {"epochs": 0.8}, 2),
]


@pytest.mark.parametrize(("train", "steps"), [row[1:] for row in LENGTHS], ids=[row[0] for row in LENGTHS])
def test_the_length_of_a_run(train: dict[str, Any], steps: int) -> None:
    assert plan_run(_train(global_batch_tokens=32, **train), 10, 8, 1, 1, 0).steps == steps


BAD_BATCHES = [
    ("a batch that is no multiple of the sequence", 36, 1, 1, 5, "no multiple of sequenceLength 8"),
    ("a batch smaller than a sequence", 8, 1, 1, 16, "no multiple of sequenceLength 16"),
    ("three ranks for four sequences", 32, 3, 1, 5, "can not be divided over 3 ranks"),
    ("a micro batch too large", 32, 1, 8, 5, "microBatchSize 8"),
    ("an empty mixture", 32, 1, 1, 0, "holds no sequence"),
]


@pytest.mark.parametrize("case", BAD_BATCHES, ids=[row[0] for row in BAD_BATCHES])
def test_numbers_that_do_not_fit_are_named(case: tuple[str, int, int, int, int, str]) -> None:
    _, tokens, world, micro, sequences, words = case
    length = 16 if "16" in words else 8
    with pytest.raises(PermanentError, match=words):
        plan_run(_train(global_batch_tokens=tokens), sequences, length, world, micro, 0)


def test_every_sequence_is_seen_once_an_epoch_in_a_new_order() -> None:
    plan = _plan()
    seen = np.concatenate([global_batch(plan, step) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10))
    assert list(seen[:10]) != list(seen[10:20])
    other = plan_run(_train(global_batch_tokens=32, max_steps=7), 10, 8, 1, 1, 4)
    assert list(global_batch(plan, 0)) != list(global_batch(other, 0))


@pytest.mark.parametrize(("world", "micro"), [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (1, 4)])
def test_the_global_batch_does_not_depend_on_ranks(world: int, micro: int) -> None:
    plan = _plan(world=world, micro=micro)
    for step in range(7):
        parts = [micro_batch(plan, step, rank, index) for index in range(plan.accumulation) for rank in range(world)]
        assert [int(row) for part in parts for row in part] == [int(row) for row in global_batch(_plan(), step)]


def test_the_environment_of_each_rank() -> None:
    given = {
        "PET_NNODES": "3",
        "PET_NPROC_PER_NODE": "2",
        "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": "job-master-0",
        "PET_MASTER_PORT": "23456",
        "RANK": "1",  # of the node: a PyTorchJob sets it so
        "WORLD_SIZE": "6",
        "HOME": "/home",
    }
    common = {"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"}
    common["OMP_NUM_THREADS"] = "1"
    assert rank_environments(given) == [
        {**given, **common, "RANK": "2", "LOCAL_RANK": "0"},
        {**given, **common, "RANK": "3", "LOCAL_RANK": "1"},
    ]


def test_without_a_launcher_a_pod_is_a_gang_of_one() -> None:
    assert declared_gang(1, {"RANK": "0", "WORLD_SIZE": "8"}).world_size == 1


@pytest.mark.parametrize(
    "environment", [{}, {"RANK": "0", "WORLD_SIZE": "4"}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}]
)
def test_another_world_size_than_declared_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(PermanentError, match=r"ranks were started and 4 were declared.*bessemer_trainer\.launch"):
        declared_gang(4, environment)


ENDS: list[tuple[str, list[str], int]] = [
    ("all done", ["sys.exit(0)", "sys.exit(0)"], 0),
    ("one fails, the other would wait for ever", ["sys.exit(64)", "signal.pause()"], 64),
    ("the second fails", ["signal.pause()", "sys.exit(75)"], 75),
    ("one is killed", ["signal.pause()", "os.kill(os.getpid(), 9)"], 137),
    ("all were preempted", ["sys.exit(143)", "sys.exit(143)"], 143),
    ("one preempted while the other still saves", ["sys.exit(143)", "sys.stdin.read(); sys.exit(143)"], 143),
]


@pytest.mark.parametrize(("programs", "code"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_the_exit_code_is_that_of_the_rank_that_failed(programs: list[str], code: int) -> None:
    head = "import os, signal, sys; "
    workers = [subprocess.Popen([sys.executable, "-c", head + text], stdin=subprocess.DEVNULL) for text in programs]
    assert wait_for(workers) == code
    assert all(worker.poll() is not None for worker in workers)


def test_bad_numbers_of_ranks_are_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PET_NPROC_PER_NODE": "auto"}
    command = [sys.executable, "-m", "bessemer_trainer.launch"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 64
    assert done.stderr.startswith("error: SpecInvalid: PET_NNODES, PET_NPROC_PER_NODE, PET_NODE_RANK: ")
    assert done.stderr.count("\n") == 1


def test_the_real_command_reports_a_wrong_world_size_and_its_code(inputs: Inputs, tmp_path: Path) -> None:
    pod = Pod(tmp_path, training_spec(inputs, "mismatch", worldSize=3), ranks=2)
    launcher = pod.launch()
    _, stderr = launcher.communicate(timeout=300)
    assert launcher.returncode == 64
    error = pod.report().error
    assert error
    assert error.reason == "WorldSizeMismatch"
    assert "error: WorldSizeMismatch: 2 ranks were started and 3 were declared" in stderr
    assert "Traceback" not in stderr


def test_sigterm_to_the_real_command_reaches_the_ranks(inputs: Inputs, tmp_path: Path) -> None:
    """The launcher is the container's first process: it must hand the signal on and exit with the ranks' code."""
    pod = Pod(tmp_path, training_spec(inputs, "signalled", train={"maxSteps": 100_000}, worldSize=2), ranks=2)
    launcher = pod.launch()
    assert launcher.stderr
    for line in launcher.stderr:  # until a step was made; another rank may have written into the line
        if "/100000" in line:
            break
    launcher.send_signal(signal.SIGTERM)
    _, stderr = launcher.communicate(timeout=300)
    assert launcher.returncode == 143
    assert "stopped: asked to stop by SIGTERM; saved at step" in stderr
