"""Preference methods for real: taste is learned, counted, resumed and shared by ranks; what can not be is refused."""

import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_trainer.evals.diagnostics import chosen_log_probability
from bessemer_trainer.evals.diagnostics.common import Case
from bessemer_trainer.reporting import curves
from tests.trainer.preferred import LENGTH, World, encoded, make_pairs, rows
from tests.trainer.support import Pod, lines_of, store_in, weights_of
from tests.trainer.zygote import Rank

RECIPES: dict[str, dict[str, Any]] = {
    "dpo": {"learningRate": 1e-3, "beta": 0.1},
    "orpo": {"learningRate": 3e-3, "beta": 0.5},
    "kto": {"learningRate": 2e-3, "beta": 0.1},
    "reward": {"learningRate": 3e-3, "maxSteps": 30},
}


@pytest.fixture(scope="module")
def trained(world: World) -> dict[str, Pod]:
    return {method: world.trained(method, method, recipe) for method, recipe in RECIPES.items()}


def weights(world: World, pod: Pod) -> Mapping[str, np.ndarray]:
    return weights_of(world.inputs.store, str(pod.report().output_digest))


def losses(world: World, name: str) -> list[float]:
    return [line["loss"] for line in lines_of(world.inputs.store, name)]


@pytest.mark.parametrize("method", sorted(RECIPES))
def test_held_out_preference_accuracy_rises_by_ten_points(method: str, trained: dict[str, Pod]) -> None:
    metrics = trained[method].report().metrics
    assert 0.3 <= metrics["preferenceAccuracyBefore"] <= 0.7, "the base has no taste"
    assert metrics["preferenceAccuracy"] >= metrics["preferenceAccuracyBefore"] + 0.1
    assert metrics["rewardsMargin"] > 0
    assert metrics["rewardsAccuracy"] >= 0.75
    if method in ("dpo", "kto"):
        assert metrics["holdoutRewardsAccuracy"] > 0.9


def test_every_pair_was_trained_as_often_as_it_should_and_its_tokens_are_those_of_the_mixture(world: World) -> None:
    """Two epochs of 96 pairs, 8 a step."""
    pod = world.trained("epochs", "orpo", {"maxSteps": None, "epochs": 2})
    tokens = np.fromfile(world.inputs.store.fetch(world.pairs) / "tokens.u16", "<u2")
    index = np.fromfile(world.inputs.store.fetch(world.pairs) / "index.u32", "<u4").reshape(-1, 4)
    report = pod.report()
    assert (report.step, report.tokens) == (24, 2 * len(tokens))
    assert report.metrics["targets"] == 2 * index[:, 2:].sum()


def test_the_log_of_every_step_holds_the_metrics_of_preferences(world: World, trained: dict[str, Pod]) -> None:
    assert trained["dpo"].report().step == 20
    lines = list(lines_of(world.inputs.store, "dpo"))
    assert lines[0]["loss"] == pytest.approx(np.log(2), abs=1e-6), "the policy is its reference before the first step"
    assert (lines[0]["rewardsMargin"], lines[0]["rewardsAccuracy"]) == (pytest.approx(0, abs=1e-6), 0.5)
    for line in lines:
        assert {"rewardsMargin", "rewardsAccuracy", "logpsChosen", "logpsRejected"} <= set(line)
        assert line["logpsChosen"] < 0
    assert all("kl" in line for line in lines_of(world.inputs.store, "kto"))


def test_who_reads_the_log_knows_the_names_in_it(world: World, trained: dict[str, Pod]) -> None:
    """The detector of falling log-probabilities, and the report, which has a title for each figure."""
    log = list(lines_of(world.inputs.store, "dpo"))
    case = Case(None, None, None, [], [], {}, log)  # type: ignore[arg-type]  # it reads nothing but the log
    found = chosen_log_probability.detect(case, Diagnostic(name="chosenLogProbability"))
    assert found.state in {"Alarm", "Quiet"}, found.message
    assert found.value is not None
    assert {"rewardsMargin", "rewardsAccuracy", "logpsChosen", "logpsRejected"} <= curves.TITLES.keys() & log[0].keys()


def test_a_learning_rate_of_zero_leaves_accuracy_and_weights(world: World) -> None:
    pod = world.trained("still", "dpo", {"learningRate": 0.0, "maxSteps": 3})
    metrics = pod.report().metrics
    assert metrics["preferenceAccuracy"] == metrics["preferenceAccuracyBefore"]
    assert losses(world, "still") == pytest.approx([np.log(2)] * 3, abs=1e-6)
    before = weights_of(world.inputs.store, world.base)
    assert all((value == before[name]).all() for name, value in weights(world, pod).items())


def test_swapping_chosen_and_rejected_lowers_the_accuracy(world: World, tmp_path: Path) -> None:
    pairs = [encoded(row, world.vocabulary) for row in rows(96, 1)]
    held = [encoded(row, world.vocabulary) for row in rows(60, 2)]
    swapped = make_pairs(
        store_in(world.folder), tmp_path / "swapped", world.inputs.tokenizer, [[(p, r, c) for p, c, r in pairs], held]
    )
    pod = world.trained("swapped", "dpo", RECIPES["dpo"], stage={"data": swapped})
    metrics = pod.report().metrics
    assert metrics["preferenceAccuracy"] <= metrics["preferenceAccuracyBefore"] - 0.1


def _wait_for_save(world: World, name: str, ranks: list[Rank]) -> None:
    folder = world.run_folder(name)
    while not list(folder.glob("step-*/manifest.json")) and all(rank.poll() is None for rank in ranks):
        pass


@pytest.mark.parametrize(("method", "stage"), [("dpo", 2), ("kto", 1)])
def test_two_ranks_agree_with_one_and_resume_bit_for_bit(
    method: str, stage: int, world: World, trained: dict[str, Pod]
) -> None:
    """The global batch fixes the mathematics: the KL of kto too. Then SIGTERM to one rank, and resume."""
    name = f"{method}-two"
    settings = {"deepspeed": {"microBatchSize": 2, "zeroStage": stage}, "checkpoint": {"everySteps": 3}}
    recipe = {**RECIPES[method], "maxSteps": 10}
    whole = world.trained(name, method, recipe, ranks=2, **settings)
    assert trained[method].report().step == 20
    assert losses(world, name) == pytest.approx(losses(world, method)[:10], rel=1e-5)

    stopped = world.pod(f"{name}-stopped", method, recipe, ranks=2, **settings)
    started = stopped.start(world.zygote)
    _wait_for_save(world, f"{name}-stopped", started)
    started[1].send_signal(signal.SIGTERM)
    code, stderr = stopped.finish(started)
    assert code == 143, stderr
    resumed = Pod(stopped.folder, {**stopped.document, "attempt": 2}, 2)
    code, stderr = resumed.run(world.zygote)
    assert code == 0, stderr
    assert losses(world, f"{name}-stopped") == losses(world, name)
    expected, found = weights(world, whole), weights(world, resumed)
    assert all((found[key] == expected[key]).all() for key in expected)
    assert resumed.report().metrics["preferenceAccuracyBefore"] == whole.report().metrics["preferenceAccuracyBefore"]


def test_the_reference_may_be_another_checkpoint(world: World, trained: dict[str, Pod]) -> None:
    """Against a reference with the taste, a policy without it starts with a negative margin."""
    reference = str(trained["dpo"].report().output_digest)
    world.trained("referred", "dpo", {**RECIPES["dpo"], "maxSteps": 2}, stage={"referenceFrom": reference})
    first = next(lines_of(world.inputs.store, "referred"))
    last = list(lines_of(world.inputs.store, "dpo"))[-1]
    assert first["rewardsMargin"] < -last["rewardsMargin"] / 3 < -0.1


def test_a_reward_model_is_an_artifact_of_its_own_kind_that_transformers_loads(
    world: World, trained: dict[str, Pod]
) -> None:
    from transformers import AutoModelForSequenceClassification

    digest = str(trained["reward"].report().output_digest)
    assert world.inputs.store.manifest(digest).kind == "reward"
    model, info = AutoModelForSequenceClassification.from_pretrained(
        world.inputs.store.fetch(digest), output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.num_labels == 1
    pod = world.pod("wrong-kind", "dpo", RECIPES["dpo"], stage={"startFrom": digest})
    code, stderr = pod.run(world.zygote)
    assert code == 64, stderr
    error = pod.report().error
    assert error is not None
    assert (error.reason, "is a reward; expected a checkpoint" in error.message) == ("WrongKind", True)


def test_a_raw_loss_that_is_not_a_number_stops_with_a_clear_error(world: World, tmp_path: Path) -> None:
    """Weights that are finite and yet overflow in the first forward."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "huge"
    shutil.copytree(world.inputs.store.fetch(world.base), folder, ignore=shutil.ignore_patterns("manifest.json"))
    tensors = load_file(folder / "model.safetensors")
    huge = {name: value * 1e38 if "norm" in name else value for name, value in tensors.items()}
    save_file(huge, folder / "model.safetensors", metadata={"format": "pt"})
    digest = store_in(world.folder).publish(folder, "checkpoint", {})
    for method in ("dpo", "orpo"):
        pod = world.pod(f"huge-{method}", method, RECIPES[method], stage={"startFrom": digest})
        code, stderr = pod.run(world.zygote)
        assert code == 64, stderr
        error = pod.report().error
        assert error is not None
        assert (error.reason, "the loss became nan in step 1" in error.message) == ("NonFiniteLoss", True), error
        assert "Traceback" not in stderr


def test_a_model_whose_tokenizer_names_no_padding_still_learns_to_stop(world: World, tmp_path: Path) -> None:
    """Elsewhere EOS pads then, and is masked as padding. A model that knows nothing learns that chosen answers end."""
    import torch

    from bessemer_trainer.model import load_model
    from bessemer_trainer.token_cache import load_vocabulary

    folder = tmp_path / "padless"
    shutil.copytree(world.inputs.store.fetch(world.base), folder, ignore=shutil.ignore_patterns("manifest.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "pad_token"}))
    tensors = weights_of(world.inputs.store, world.base)
    from safetensors.torch import save_file

    fresh = {name: torch.randn(value.shape) * 0.02 if "norm" not in name else torch.ones(value.shape)
             for name, value in tensors.items()}  # fmt: skip
    save_file(fresh, folder / "model.safetensors", metadata={"format": "pt"})
    store = store_in(world.folder)
    digest = store.publish(folder, "checkpoint", {})
    vocabulary = load_vocabulary(store.fetch(digest))
    assert vocabulary.padding != vocabulary.end
    pod = world.trained("padless", "orpo", {"learningRate": 1e-2}, stage={"startFrom": digest})
    ends = []
    for artifact in (digest, str(pod.report().output_digest)):
        model = load_model(store.fetch(artifact)).eval()
        row, answer, _ = encoded(rows(1, 7)[0], vocabulary)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*row, *answer]])).logits[0, -2]
        ends.append(float(logits.softmax(dim=-1)[vocabulary.end]))
    assert ends[0] < 0.02
    assert ends[1] > 5 * ends[0]


def test_rows_stay_within_the_mixture(world: World) -> None:
    """The index of the fixture is what the contract says: offset and three lengths, nothing longer than a sequence."""
    index = np.fromfile(world.inputs.store.fetch(world.pairs) / "index.u32", "<u4").reshape(-1, 4)
    assert (index[:, 0] == np.concatenate([[0], np.cumsum(index[:, 1:].sum(axis=1))[:-1]])).all()
    assert (index[:, 1] + index[:, 2:].max(axis=1)).max() <= LENGTH


def test_low_rank_updates_learn_the_taste_and_become_plain_weights(world: World) -> None:
    """The reference is the model without updates: they are zero when training starts."""
    lora = {"r": 8, "alpha": 16, "targets": ["q_proj", "v_proj", "down_proj"]}
    pod = world.trained("lora", "dpo", {**RECIPES["dpo"], "learningRate": 1e-2, "lora": lora})
    metrics = pod.report().metrics
    assert losses(world, "lora")[0] == pytest.approx(np.log(2), abs=1e-6)
    assert metrics["preferenceAccuracy"] >= metrics["preferenceAccuracyBefore"] + 0.1
    before, after = weights_of(world.inputs.store, world.base), weights(world, pod)
    assert sorted(after) == sorted(before)
    changed = {name.split(".")[-2] for name in after if (after[name] != before[name]).any()}
    assert changed == {"q_proj", "v_proj", "down_proj"}
