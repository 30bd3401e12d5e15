"""Ranks killed with SIGKILL at random times, over and over, under ZeRO-3 with packed data: the end is always the same.

Random are the times and the rank, from a fixed seed; what the processes do meanwhile is not, and must not matter.
"""

import random
import signal
import time
from pathlib import Path

import pytest

from bessemer_trainer.checkpoint import Checkpoints
from bessemer_trainer.dist import Gang
from bessemer_trainer.store import run_key
from tests.trainer.support import Inputs, Pod, lines_of, run_digest, training_spec, weights_of
from tests.trainer.zygote import Zygote

STEPS = 24
KILLS = 8


def _pod(inputs: Inputs, folder: Path, name: str, attempt: int = 1) -> Pod:
    spec = training_spec(
        inputs,
        name,
        train={"maxSteps": STEPS, "globalBatchTokens": 128},
        worldSize=2,
        deepspeed={"zeroStage": 3},
        checkpoint={"everySteps": 2, "keepLast": 2},
        attempt=attempt,
    )
    return Pod(folder / name, spec, 2)


def _steps_seen(inputs: Inputs, name: str) -> int:
    """Step of the newest checkpoint; every visible one must be whole."""
    checkpoints = Checkpoints(inputs.store, run_key(run_digest(name)), name, Gang(), Path("/nonexistent"))
    visible = checkpoints._visible()
    for checkpoint, manifest in visible:
        folder = Path(inputs.url.removeprefix("file://")) / run_key(run_digest(name)) / checkpoint
        assert checkpoints._check(checkpoint, manifest, folder) == "", checkpoint
    return int(visible[0][1].meta["step"]) if visible else 0


@pytest.mark.slow
def test_sigkill_at_random_times_never_changes_the_result(zygote: Zygote, inputs: Inputs, tmp_path: Path) -> None:
    whole = _pod(inputs, tmp_path, "whole")
    code, stderr = whole.run(zygote)
    assert code == 0, stderr
    chance = random.Random(5)
    killed, attempt, furthest = 0, 1, 0
    while killed < KILLS:
        pod = _pod(inputs, tmp_path, "killed", attempt)
        ranks = pod.start(zygote)
        goal = furthest + chance.choice([0, 2])
        while _step_reached(inputs) < goal and all(rank.poll() is None for rank in ranks):
            pass
        moment = time.monotonic() + chance.random() * 0.4  # somewhere in the steps and the save that follow
        while time.monotonic() < moment and all(rank.poll() is None for rank in ranks):
            pass
        chance.choice(ranks).send_signal(signal.SIGKILL)
        code, _ = pod.finish(ranks)
        if code == 0:
            break  # it was faster than we were: nothing is left to kill
        killed, attempt = killed + 1, attempt + 1
        reached = _steps_seen(inputs, "killed")
        assert reached >= furthest, "a save that was seen stays"
        furthest = reached
    last = _pod(inputs, tmp_path, "killed", attempt)
    code, stderr = last.run(zygote)
    assert code == 0, stderr
    assert killed >= 3
    expected = weights_of(inputs.store, str(whole.report().output_digest))
    found = weights_of(inputs.store, str(last.report().output_digest))
    assert sorted(found) == sorted(expected)
    assert all((found[name] == expected[name]).all() for name in expected)
    assert [line["step"] for line in lines_of(inputs.store, "killed")] == list(range(1, STEPS + 1))


def _step_reached(inputs: Inputs) -> int:
    folder = Path(inputs.url.removeprefix("file://")) / run_key(run_digest("killed"))
    return max((int(path.name.split("-")[1]) for path in folder.glob("step-*")), default=0)


def test_a_damaged_shard_sends_the_next_attempt_to_the_older_checkpoint(
    zygote: Zygote, inputs: Inputs, tmp_path: Path
) -> None:
    code, stderr = _pod(inputs, tmp_path, "intact").run(zygote)
    assert code == 0, stderr
    expected = weights_of(inputs.store, str(_pod(inputs, tmp_path, "intact").report().output_digest))
    pod = _pod(inputs, tmp_path, "damaged")
    ranks = pod.start(zygote)
    folder = Path(inputs.url.removeprefix("file://")) / run_key(run_digest("damaged"))
    while len(list(folder.glob("step-*"))) < 2:
        assert all(rank.poll() is None for rank in ranks)
    ranks[0].send_signal(signal.SIGKILL)
    assert pod.finish(ranks)[0] == 137
    newest = max(folder.glob("step-*"), key=lambda path: int(path.name.split("-")[1]))
    shard = next(newest.glob("state/*rank_1*optim_states.pt"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    code, stderr = _pod(inputs, tmp_path, "damaged", attempt=2).run(zygote)
    assert code == 0, stderr
    assert f"warning: checkpoint {newest.name} is damaged (state/{shard.name} was changed)" in stderr
    found = weights_of(inputs.store, str(pod.report().output_digest))
    assert all((found[name] == expected[name]).all() for name in expected)


def test_what_fails_after_the_last_step_loses_no_step(zygote: Zygote, inputs: Inputs, tmp_path: Path) -> None:
    """A file stands where the holdout is packed: training ends, and then the attempt fails."""
    whole = _pod(inputs, tmp_path, "unhindered")
    assert whole.run(zygote)[0] == 0
    pod = _pod(inputs, tmp_path, "hindered")
    (pod.folder / "scratch").mkdir(parents=True)
    obstacle = pod.folder / "scratch/holdout"
    obstacle.write_bytes(b"")
    code, stderr = pod.run(zygote)
    assert code == 75, stderr
    assert "Traceback" not in stderr
    trained = (inputs.store.read(f"{run_key(run_digest('hindered'))}/metrics.jsonl") or b"").decode()
    obstacle.unlink()
    again = _pod(inputs, tmp_path, "hindered", attempt=2)
    code, stderr = again.run(zygote)
    assert code == 0, stderr
    assert f"resumed at step {STEPS}" in stderr
    assert (inputs.store.read(f"{run_key(run_digest('hindered'))}/metrics.jsonl") or b"").decode() == trained
    expected = weights_of(inputs.store, str(whole.report().output_digest))
    found = weights_of(inputs.store, str(again.report().output_digest))
    assert all((found[name] == expected[name]).all() for name in expected)
    metrics = [pod.report().metrics for pod in (whole, again)]
    for name in ("loss", "holdoutLoss", "holdoutBitsPerByte"):
        assert metrics[0][name] == metrics[1][name]


def test_a_disk_that_fills_up_is_one_line_exit_75_and_nothing_is_lost(
    zygote: Zygote, inputs: Inputs, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE stands in for a full disk: the real write(2) fails in the middle of a shard, on both ranks."""
    pod = _pod(inputs, tmp_path, "full")
    ranks = pod.start(zygote)
    folder = Path(inputs.url.removeprefix("file://")) / run_key(run_digest("full"))
    while not list(folder.glob("step-*")):
        assert all(rank.poll() is None for rank in ranks)
    import resource

    for rank in ranks:
        resource.prlimit(rank.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    code, stderr = pod.finish(ranks)
    assert code == 75, stderr
    assert "Traceback" not in stderr
    error = pod.report().error
    assert error
    assert error.reason == "DiskFull"
    assert "continues from the newest checkpoint" in error.message
    assert not list(folder.glob(".tmp-*"))
    assert _steps_seen(inputs, "full") >= 2
    code, stderr = _pod(inputs, tmp_path, "full", attempt=2).run(zygote)
    assert code == 0, stderr
    assert "resumed at step" in stderr
