"""The ranks do not know who started them: the real torchrun and our launcher give the same artifact."""

import subprocess
import sys
from pathlib import Path

from tests.trainer.support import Pod, make_inputs, training_spec, weights_of


def test_a_stage_under_the_real_torchrun_gives_the_tensors_that_it_gives_under_our_launcher(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    settings = {"worldSize": 2, "deepspeed": {"zeroStage": 2}}
    ours = Pod(tmp_path / "ours", training_spec(inputs, "ours", **settings), 2)
    theirs = Pod(tmp_path / "theirs", training_spec(inputs, "theirs", **settings), 2)
    with ours.launch() as started:
        _, stderr = started.communicate()
    assert started.returncode == 0, stderr

    command = [sys.executable, "-m", "torch.distributed.run", "-m", "bessemer_trainer"]
    done = subprocess.run(command, env=theirs.variables(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    weights = [weights_of(inputs.store, str(pod.report().output_digest)) for pod in (ours, theirs)]
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
