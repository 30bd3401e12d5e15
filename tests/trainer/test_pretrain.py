"""Training for real, on CPU, one and two ranks, every ZeRO stage: what is learned, saved, resumed and refused."""

import json
import math
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer_trainer.holdout import pack_holdout
from bessemer_trainer.schedule import RunPlan
from tests.trainer.support import (
    SHAPE,
    Inputs,
    MixtureOptions,
    Pod,
    lines_of,
    make_inputs,
    make_mixture,
    run_digest,
    texts,
    training_spec,
    weights_of,
)
from tests.trainer.zygote import Zygote

Weights = Mapping[str, np.ndarray]
STEPS = 12


def _pod(inputs: Inputs, folder: Path, name: str, stage: int, ranks: int, **train: Any) -> Pod:
    hyper = {"maxSteps": STEPS, "globalBatchTokens": 256, **train}
    spec = training_spec(
        inputs,
        name,
        train=hyper,
        worldSize=ranks,
        deepspeed={"zeroStage": stage},
        checkpoint={"everySteps": 5},
    )
    return Pod(folder / name, spec, ranks)


def _weights(pod: Pod, inputs: Inputs) -> Weights:
    return weights_of(inputs.store, str(pod.report().output_digest))


def _largest_difference(a: Weights, b: Weights) -> float:
    assert sorted(a) == sorted(b)
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def _run_folder(inputs: Inputs, name: str) -> Path:
    return Path(inputs.url.removeprefix("file://")) / "runs" / run_digest(name)[7:]


@pytest.fixture(scope="module")
def reference(zygote: Zygote, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    """One rank, no ZeRO, fp32: what every other way must agree with."""
    pod = _pod(inputs, tmp_path_factory.mktemp("reference"), "reference", 0, 1)
    code, stderr = pod.run(zygote)
    assert code == 0, stderr
    return pod


def test_the_loss_falls_and_the_report_says_so(reference: Pod, inputs: Inputs) -> None:
    lines = list(lines_of(inputs.store, "reference"))
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert lines[0]["loss"] == pytest.approx(math.log(300), rel=0.02), "a fresh model guesses evenly"
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.8
    report = reference.report()
    assert (report.step, report.tokens) == (STEPS, STEPS * 256)
    assert report.metrics["loss"] == lines[-1]["loss"]
    assert report.metrics["holdoutLoss"] == pytest.approx(lines[-1]["loss"], rel=0.1)
    assert 0 < report.metrics["holdoutBitsPerByte"] < 8


def test_the_artifact_loads_in_transformers_and_holds_the_tokenizer(reference: Pod, inputs: Inputs) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = inputs.store.fetch(str(reference.report().output_digest))
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.num_parameters() == reference.report().metrics["parameters"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("the alloy").input_ids) == "the alloy"
    assert tokenizer.eos_token_id == model.config.eos_token_id
    manifest = inputs.store.manifest(str(reference.report().output_digest))
    assert manifest.kind == "checkpoint"
    assert manifest.meta["inputDigest"] == run_digest("reference")


def test_the_artifact_names_its_architecture_for_servers_that_need_it(reference: Pod, inputs: Inputs) -> None:
    folder = inputs.store.fetch(str(reference.report().output_digest))
    assert json.loads((folder / "config.json").read_bytes())["architectures"] == ["LlamaForCausalLM"]


def test_the_artifact_names_no_version_of_a_library(reference: Pod, inputs: Inputs) -> None:
    folder = inputs.store.fetch(str(reference.report().output_digest))
    for name in ("config.json", "generation_config.json"):
        assert not [key for key in json.loads((folder / name).read_bytes()) if "version" in key or key.startswith("_")]


def test_the_holdout_is_packed_once_a_node_and_every_rank_measures_its_share(
    zygote: Zygote, inputs: Inputs, reference: Pod, tmp_path: Path
) -> None:
    pod = _pod(inputs, tmp_path, "two", 0, 2)
    code, stderr = pod.run(zygote)
    assert code == 0, stderr
    assert [path.relative_to(pod.folder / "scratch").as_posix() for path in pod.folder.rglob("tokenised")] == [
        "holdout/tokenised"
    ]
    for name in ("holdoutLoss", "holdoutBitsPerByte"):
        assert pod.report().metrics[name] == pytest.approx(reference.report().metrics[name], abs=1e-4)


def test_memory_does_not_grow_with_the_holdout(inputs: Inputs, tmp_path: Path) -> None:
    """2 MB more of text: the peak of all allocations (Python's and numpy's) hardly grows."""
    import tracemalloc

    plan = RunPlan(sequences=1, sequence_length=32, batch=1, micro=1, accumulation=1, world_size=1, steps=1, seed=0)
    peaks = []
    for count in (600, 2100):  # more than two full batches of the tokenizer
        data = tmp_path / str(count)
        data.mkdir()
        text = "the alloy of iron " * 80
        (data / "holdout.jsonl").write_text("".join(json.dumps({"text": f"{n} {text}"}) + "\n" for n in range(count)))
        tracemalloc.start()
        held = pack_holdout(data, inputs.store.fetch(inputs.tokenizer), plan, tmp_path / f"scratch-{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert held
        assert held.size == sum(len(f"{n} {text}") for n in range(count))
    assert peaks[1] - peaks[0] < 500_000


WAYS = [(0, 2, "fp32"), (1, 2, "fp32"), (2, 2, "fp32"), (3, 2, "fp32"), (0, 2, "bf16"), (3, 2, "bf16")]


@pytest.mark.parametrize(
    "way", WAYS, ids=[f"ZeRO-{stage} {ranks} ranks {precision}" for stage, ranks, precision in WAYS]
)
def test_every_way_agrees_with_one_rank_and_resumes_bit_for_bit(
    zygote: Zygote, inputs: Inputs, reference: Pod, tmp_path: Path, way: tuple[int, int, str]
) -> None:
    """The global batch fixes the mathematics: ranks and ZeRO stage do not. Then: SIGTERM to one rank, and resume."""
    stage, ranks, precision = way
    name = f"{stage}-{ranks}-{precision}"
    whole = _pod(inputs, tmp_path, name, stage, ranks, precision=precision)
    code, stderr = whole.run(zygote)
    assert code == 0, stderr
    bound = 1e-5 if precision == "fp32" else 0.02
    assert _largest_difference(_weights(whole, inputs), _weights(reference, inputs)) < bound
    expected = [line["loss"] for line in lines_of(inputs.store, "reference")]
    losses = [line["loss"] for line in lines_of(inputs.store, name)]
    assert losses == pytest.approx(expected, abs=bound)

    stopped = _pod(inputs, tmp_path, f"{name}-stopped", stage, ranks, precision=precision)
    started = stopped.start(zygote)
    _wait_for_save(inputs, f"{name}-stopped", started)
    started[-1].send_signal(signal.SIGTERM)
    code, stderr = stopped.finish(started)
    assert code == 143, stderr
    assert "Traceback" not in stderr
    assert "stopped: asked to stop by SIGTERM; saved at step" in stderr
    code, stderr = stopped.run(zygote)
    assert code == 0, stderr
    assert "resumed at step" in stderr
    assert stopped.report().output_digest != whole.report().output_digest, "the run's name is in the lineage"
    assert _largest_difference(_weights(stopped, inputs), _weights(whole, inputs)) == 0.0
    assert [line["loss"] for line in lines_of(inputs.store, f"{name}-stopped")] == losses


def _wait_for_save(inputs: Inputs, name: str, ranks: list[Any]) -> None:
    folder = _run_folder(inputs, name)
    while not list(folder.glob("step-5-*")):
        assert all(rank.poll() is None for rank in ranks), "ended before its first save"


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_each_rank_holds_its_share_of_the_optimizer(zygote: Zygote, inputs: Inputs, tmp_path: Path, stage: int) -> None:
    import torch

    name = f"share-{stage}"
    code, stderr = _pod(inputs, tmp_path, name, stage, 2, maxSteps=6).run(zygote)
    assert code == 0, stderr
    shares = []
    for rank in range(2):
        path = next(_run_folder(inputs, name).glob(f"step-5-*/state/*rank_{rank}_mp_rank_00_optim_states.pt"))
        state = torch.load(path, weights_only=False)["optimizer_state_dict"]
        inner = state["optimizer_state_dict"] if stage == 3 else state["base_optimizer_state"]
        moments = inner["state"].values() if isinstance(inner, dict) else inner
        shares.append(sum(moment["exp_avg"].numel() for moment in moments))
    parameters = int(_pod(inputs, tmp_path, name, stage, 2).report().metrics["parameters"])
    assert shares[0] == shares[1]
    assert parameters / 2 <= shares[0] < parameters / 2 + 100, "half of the moments each, but for alignment"


def test_a_learning_rate_of_zero_leaves_every_weight_as_it_was(zygote: Zygote, inputs: Inputs, tmp_path: Path) -> None:
    pods = [_pod(inputs, tmp_path, f"still-{steps}", 2, 2, learningRate=0.0, maxSteps=steps) for steps in (1, 4)]
    for pod in pods:
        code, stderr = pod.run(zygote)
        assert code == 0, stderr
    one, four = (_weights(pod, inputs) for pod in pods)
    assert _largest_difference(one, four) == 0.0
    moved = _pod(inputs, tmp_path, "moved", 2, 2, learningRate=1e-4, maxSteps=1, warmupRatio=0)
    assert moved.run(zygote)[0] == 0
    assert _largest_difference(one, _weights(moved, inputs)) > 0.0


def test_the_data_of_every_rank_counts(zygote: Zygote, tmp_path: Path) -> None:
    """Two mixtures that differ in one sequence, which the second rank reads: the weights differ."""
    from bessemer_api.v1alpha1.train import Train
    from bessemer_trainer.schedule import micro_batch, plan_run

    options = MixtureOptions(packing=False)
    base = make_inputs(tmp_path, 8, options)
    documents = [text[:20] for text in texts(8)]  # each fits in one sequence
    train = Train.model_validate({"max_steps": 1, "global_batch_tokens": 64})
    plan = plan_run(train, 8, 32, 2, 1, 0)
    changed = int(micro_batch(plan, 0, rank=1, index=0)[0])
    unused = int(micro_batch(plan, 1, rank=1, index=0)[0])
    weights = []
    for number, place in enumerate((None, changed, unused)):
        other = [text if n != place else "nickel and nickel" for n, text in enumerate(documents)]
        mixture = make_mixture(
            base.store, tmp_path, base.tokenizer, other, MixtureOptions(packing=False, name=f"m{number}", length=32)
        )
        varied = Inputs(base.store, base.url, base.tokenizer, mixture)
        pod = _pod(varied, tmp_path, f"data-{number}", 2, 2, maxSteps=1, globalBatchTokens=64, warmupRatio=0)
        code, stderr = pod.run(zygote)
        assert code == 0, stderr
        weights.append(_weights(pod, varied))
    assert _largest_difference(weights[0], weights[1]) > 0.0
    assert _largest_difference(weights[0], weights[2]) == 0.0, "what is not read does not matter"


def test_gradient_checkpointing_changes_memory_not_results(
    zygote: Zygote, inputs: Inputs, reference: Pod, tmp_path: Path
) -> None:
    pod = _pod(inputs, tmp_path, "recompute", 3, 2, gradientCheckpointing=True)
    code, stderr = pod.run(zygote)
    assert code == 0, stderr
    assert _largest_difference(_weights(pod, inputs), _weights(reference, inputs)) < 1e-5


def test_a_loss_that_is_not_finite_stops_all_ranks_and_saves_nothing_after_it(
    zygote: Zygote, inputs: Inputs, tmp_path: Path
) -> None:
    pod = _pod(inputs, tmp_path, "diverged", 3, 2, learningRate=10.0, gradientClip=1e6, weightDecay=10.0, maxSteps=400)
    code, stderr = pod.run(zygote)
    assert code == 64, stderr
    error = pod.report().error
    assert error
    assert error.reason == "NonFiniteLoss"
    assert "Traceback" not in stderr
    assert stderr.count("error: NonFiniteLoss: the ") == 2, "each rank says it once"
    failed = int(error.message.split(" in step ")[1].split(";")[0])
    saved = [int(path.name.split("-")[1]) for path in _run_folder(inputs, "diverged").glob("step-*")]
    assert all(step < failed for step in saved)
    assert all(math.isfinite(line["loss"]) for line in lines_of(inputs.store, "diverged"))


def test_continued_pretraining_starts_where_pretraining_ended(
    zygote: Zygote, inputs: Inputs, reference: Pod, tmp_path: Path
) -> None:
    start = str(reference.report().output_digest)
    mixture = make_mixture(inputs.store, tmp_path, start, texts(120), MixtureOptions(length=32))
    continued = Inputs(inputs.store, inputs.url, start, mixture)
    pod = _pod(continued, tmp_path, "cpt", 3, 2)
    pod.document["stage"] = {**pod.document["stage"], "method": "cpt", "model": None}
    code, stderr = pod.run(zygote)
    assert code == 0, stderr
    first = next(iter(lines_of(inputs.store, "cpt")))["loss"]
    assert first == pytest.approx(list(lines_of(inputs.store, "reference"))[-1]["loss"], abs=0.15)
    assert pod.report().metrics["loss"] < first


def _refusals(inputs: Inputs, folder: Path) -> dict[str, tuple[dict[str, Any], str, str]]:
    """What is changed in the stage, the reason that is expected, and words of the message."""
    other = make_inputs(folder / "other", 5)
    size = {**SHAPE, "maxPositions": 16}
    empty = make_mixture(inputs.store, folder, inputs.tokenizer, [], MixtureOptions(name="empty"))
    shutil.copytree(other.store.fetch(other.mixture), folder / "foreign", ignore=lambda *_: {"manifest.json"})
    foreign = inputs.store.publish(folder / "foreign", "mixture", {"tokenizer": inputs.mixture, "sequenceLength": 32})
    missing = "sha256:" + "0" * 64
    return {
        "no mixture": ({"data": missing}, "ArtifactMissing", "there is no artifact"),
        "a tokenizer as mixture": ({"data": inputs.tokenizer}, "WrongKind", "expected a mixture"),
        "a mixture as start": ({"startFrom": inputs.mixture}, "WrongKind", "expected a tokenizer"),
        "another tokenizer": ({"data": foreign}, "TokenizerMismatch", "make the mixture with the tokenizer"),
        "an empty mixture": ({"data": empty}, "MixtureEmpty", "holds no sequence"),
        "sequences that are too long": ({"model": size}, "SequenceTooLong", "made for 16 positions"),
        "no shape": ({"model": None}, "SpecInvalid", "needs the model's shape"),
        "no data": ({"data": None}, "SpecInvalid", "stage.data"),
    }


def test_what_does_not_fit_together_is_refused_by_all_ranks_with_one_reason(
    zygote: Zygote, inputs: Inputs, tmp_path: Path
) -> None:
    for number, (case, (change, reason, words)) in enumerate(_refusals(inputs, tmp_path).items()):
        pod = _pod(inputs, tmp_path, f"refused-{number}", 2, 2)
        pod.document["stage"] = {**pod.document["stage"], **change}
        code, stderr = pod.run(zygote)
        assert code == 64, f"{case}: {stderr}"
        error = pod.report().error
        assert error, case
        assert (error.reason, words in error.message) == (reason, True), f"{case}: {error}"
        assert "Traceback" not in stderr, case


def test_another_number_of_ranks_does_not_resume(zygote: Zygote, inputs: Inputs, tmp_path: Path) -> None:
    pod = _pod(inputs, tmp_path, "grown", 2, 2, maxSteps=100_000)
    started = pod.start(zygote)
    _wait_for_save(inputs, "grown", started)
    started[0].send_signal(signal.SIGTERM)
    assert pod.finish(started)[0] == 143
    alone = Pod(pod.folder, {**pod.document, "worldSize": 1}, 1)
    code, _ = alone.run(zygote)
    assert code == 64
    error = alone.report().error
    assert error
    assert error.reason == "WorldSizeChanged"
    assert "saved by 2 ranks and this attempt has 1; give the stage 2 GPUs again" in error.message


def test_a_run_that_is_done_is_not_run_again(zygote: Zygote, inputs: Inputs, reference: Pod) -> None:
    again = Pod(reference.folder, {**reference.document, "runUid": "second", "attempt": 2}, 1)
    first = reference.report()
    code, stderr = again.run(zygote)
    assert code == 0, stderr
    assert again.report() == first.model_copy(update={"run_uid": "second", "reused": True})
