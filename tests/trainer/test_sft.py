"""sft on a tiny model: what is learned is what the mixture marks, the model stops, and it resumes bit for bit."""

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bessemer_trainer.chat import load_template
from bessemer_trainer.objectives.likelihood import IGNORE, Likelihood, lengths_of, targets_of
from bessemer_trainer.shards import open_shards
from tests.trainer.support import Pod, lines_of, weights_of
from tests.trainer.talk import LENGTH, QUESTIONS, Talk, make_talk
from tests.trainer.zygote import Zygote


@pytest.fixture(scope="module")
def talk(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Talk:
    return make_talk(tmp_path_factory.mktemp("talk"), zygote)


@pytest.fixture(scope="module")
def mixture(talk: Talk) -> str:
    return talk.examples("qa")


@pytest.fixture(scope="module")
def tuned(talk: Talk, mixture: str) -> Pod:
    train = {"maxSteps": 200, "learningRate": 1e-2, "weightDecay": 0, "minLearningRateRatio": 0}
    return talk.run("tuned", "sft", mixture, train=train, deepspeed={"microBatchSize": 4})


def _weights(talk: Talk, pod: Pod) -> dict[str, np.ndarray]:
    return weights_of(talk.store, str(pod.report().output_digest))


def test_answers_are_learned_and_the_model_stops(talk: Talk, tuned: Pod) -> None:
    """As a user would ask: transformers' own template and generation on the published folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = talk.store.fetch(str(tuned.report().output_digest))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    right = stopped = 0
    for row in QUESTIONS:
        question, answer = row["messages"]
        ids = tokenizer.apply_chat_template(
            [question], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**ids, max_new_tokens=16, do_sample=False)[0, ids["input_ids"].shape[1] :]
        right += tokenizer.decode(made) == f" {answer['content']}{tokenizer.eos_token}"
        stopped += int(made[-1]) == tokenizer.eos_token_id
    assert stopped == len(QUESTIONS)
    assert right >= 0.75 * len(QUESTIONS)
    losses = [line["loss"] for line in lines_of(talk.store, "tuned")]
    assert losses[-1] < 0.5 < losses[0]
    assert tuned.report().metrics["holdoutLoss"] < 0.7, "what is held out here was also trained on"


def test_the_checkpoint_carries_the_template_of_its_mixture(talk: Talk, mixture: str, tuned: Pod) -> None:
    start, result = (talk.store.fetch(digest) for digest in (talk.start, str(tuned.report().output_digest)))
    assert not (start / "chat_template.jinja").exists()
    template = load_template("fromModel", result)
    assert template
    assert template.digest == talk.store.manifest(mixture).meta["chatTemplateDigest"]


@pytest.mark.parametrize("packing", [True, False], ids=["packed", "one example a sequence"])
@pytest.mark.parametrize("loss_on", ["completion", "all"])
def test_an_epoch_trains_as_many_tokens_as_the_mixture_marks_and_a_rate_of_zero_moves_nothing(
    talk: Talk, packing: bool, loss_on: str
) -> None:
    name = f"epoch-{packing}-{loss_on}"
    data = talk.examples(name, packing=packing, lossOn=loss_on)
    train = {"maxSteps": None, "epochs": 1, "globalBatchTokens": LENGTH, "learningRate": 0.0, "neftuneAlpha": 5}
    report = talk.run(name, "sft", data, train=train).report()
    meta = talk.store.manifest(data).meta
    assert meta["targets"] > len(QUESTIONS)
    assert report.metrics["targets"] == meta["targets"]
    assert report.step == meta["sequences"]
    assert talk.store.manifest(str(report.output_digest)).meta["targets"] == meta["targets"]
    before, after = (weights_of(talk.store, digest) for digest in (talk.start, str(report.output_digest)))
    assert sorted(before) == sorted(after)
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_batch_in_examples_is_so_many_sequences(talk: Talk) -> None:
    data = talk.examples("unpacked", packing=False)
    train = {"maxSteps": None, "epochs": 1, "globalBatchExamples": len(QUESTIONS), "learningRate": 0.0}
    report = talk.run("unpacked", "sft", data, train=train).report()
    assert report.step == 1
    assert report.metrics["targets"] == talk.store.manifest(data).meta["targets"]


WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "NEFTune, ZeRO-2": (2, {"neftuneAlpha": 5}),
    "LoRA with dropout, ZeRO-3": (3, {"lora": {"r": 4, "dropout": 0.2}}),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_run_ends_as_one_that_was_not(talk: Talk, mixture: str, way: str) -> None:
    """With random noise in training, on two ranks: weights, losses and the count of tokens agree bit for bit."""
    stage, train = WAYS[way]
    settings = {"train": {"maxSteps": 12, **train}, "deepspeed": {"zeroStage": stage}, "checkpoint": {"everySteps": 5}}
    whole = talk.run(f"{stage}-whole", "sft", mixture, 2, **settings)
    stopped = talk.pod(f"{stage}-stopped", "sft", mixture, 2, **settings)
    started = stopped.start(talk.zygote)
    while not list(talk.runs(f"{stage}-stopped").glob("step-5-*")):
        assert all(rank.poll() is None for rank in started), "ended before its first save"
    started[0].send_signal(signal.SIGTERM)
    assert stopped.finish(started)[0] == 143
    code, stderr = stopped.run(talk.zygote)
    assert code == 0, stderr
    assert "resumed at step" in stderr
    one, other = (_weights(talk, pod) for pod in (whole, stopped))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    for figure in ("loss", "targets"):
        told = [[line[figure] for line in lines_of(talk.store, f"{stage}-{end}")] for end in ("whole", "stopped")]
        assert told[0] == told[1]
    assert whole.report().metrics["targets"] == stopped.report().metrics["targets"]


def test_a_mixture_of_text_is_refused(talk: Talk) -> None:
    pod = talk.pod("text", "sft", talk.inputs.mixture)
    assert pod.run(talk.zygote)[0] == 64
    error = pod.report().error
    assert error
    assert (error.reason, "sft needs one of examples" in error.message) == ("WrongKind", True)


def test_a_loss_that_is_nan_is_not_hidden(talk: Talk, mixture: str, tmp_path: Path) -> None:
    """transformers' trainer logs the last finite loss instead (logging_nan_inf_filter) and goes on."""
    from safetensors.torch import load_file, save_file
    from transformers import TrainingArguments

    assert TrainingArguments(output_dir=str(tmp_path / "peer"), use_cpu=True).logging_nan_inf_filter
    folder = tmp_path / "poisoned"
    shutil.copytree(talk.store.fetch(talk.start), folder)
    (folder / "manifest.json").unlink()
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    poisoned = talk.store.publish(folder, "checkpoint", {})
    pod = talk.pod("poisoned", "sft", mixture, stage={"startFrom": poisoned})
    assert pod.run(talk.zygote)[0] == 64
    error = pod.report().error
    assert error
    assert error.reason == "NonFiniteLoss"
    assert "the loss became nan in step 1" in error.message


# --- the objective ----------------------------------------------------------------------------------------------


DOCUMENTS = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
WANTED = torch.tensor([[0, 0, 1, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0, 1]], dtype=torch.uint8)


@pytest.fixture(scope="module")
def likelihood(talk: Talk) -> Likelihood:
    from bessemer_trainer.model import load_model

    return Likelihood(load_model(talk.store.fetch(talk.start)), neftune_alpha=5.0)


def _batch() -> dict[str, torch.Tensor]:
    tokens = torch.randint(0, 280, DOCUMENTS.shape, generator=torch.Generator().manual_seed(0))
    return {"tokens": tokens, "documents": DOCUMENTS, "targets": WANTED}


def test_only_marked_tokens_are_predicted_and_none_across_a_border() -> None:
    tokens = torch.arange(16).reshape(2, 8)
    x = IGNORE
    assert targets_of(tokens, DOCUMENTS, WANTED).tolist() == [
        [x, 2, 3, x, x, 6, x, x],
        [9, x, x, x, x, x, 15, x],
    ]


def test_packed_examples_score_as_each_one_alone(likelihood: Likelihood) -> None:
    likelihood.eval()
    batch = _batch()
    alone = 0.0
    for row in range(2):
        for number in set(DOCUMENTS[row].tolist()) - {0}:
            place = DOCUMENTS[row] == number
            one = {name: value[row][place][None] for name, value in batch.items()}
            one["documents"] = torch.ones_like(one["documents"])
            alone += float(likelihood(one).detach())
    assert float(likelihood(batch).detach()) == pytest.approx(alone, abs=1e-4)


def test_no_target_in_a_batch_is_no_loss(likelihood: Likelihood) -> None:
    batch = _batch()
    loss = likelihood({**batch, "targets": torch.zeros_like(WANTED)})
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_noise_is_of_training_alone_and_follows_the_seed(likelihood: Likelihood) -> None:
    batch = _batch()
    losses = []
    for is_training, seed in ((False, 0), (False, 1), (True, 0), (True, 0), (True, 1)):
        torch.manual_seed(seed)
        losses.append(float(likelihood.train(is_training)(batch).detach()))
    plain, again, noisy, same, other = losses
    assert plain == again == float(Likelihood(likelihood.model)(batch).detach())
    assert noisy == same
    assert len({plain, noisy, other}) == 3


def test_noise_is_as_published_and_by_document() -> None:
    """[-1, 1] alpha / sqrt(L d): packing does not make it smaller, as the length of a packed row would."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=8, hidden_size=512, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    objective = Likelihood(LlamaForCausalLM(config), neftune_alpha=5.0)
    lengths = lengths_of(DOCUMENTS)
    assert lengths.tolist() == [[4, 4, 4, 4, 3, 3, 3, 1], [8] * 8]
    noise = objective._noise(torch.zeros_like(DOCUMENTS), DOCUMENTS)
    bound = 5.0 / (lengths * 512).sqrt()
    assert bool((noise.abs() <= bound.unsqueeze(-1)).all())
    assert noise.std(dim=-1).numpy() == pytest.approx((bound / 3**0.5).numpy(), rel=0.15)


def test_a_tokenizer_that_pads_with_its_end_still_teaches_the_end(talk: Talk) -> None:
    """TRL falls back to this; where labels are masked by the padding's id the model then never learns to stop."""
    import json

    from bessemer_trainer.token_cache import load_vocabulary

    folder = talk.folder / "pads-with-end"
    shutil.copytree(talk.store.fetch(talk.start), folder)
    (folder / "manifest.json").unlink()
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        document = json.loads((folder / name).read_bytes())
        (folder / name).write_text(json.dumps({**document, "pad_token": document["eos_token"]}))
    start = talk.store.publish(folder, "checkpoint", {})
    shards = open_shards(talk.store.fetch(talk.examples("pads-with-end-qa", start)), LENGTH)
    is_end = shards.tokens == load_vocabulary(folder).end
    assert shards.targets is not None
    assert is_end.sum() == len(QUESTIONS)
    assert np.all(shards.targets[is_end] == 1)
    assert np.all(shards.documents[is_end] != 0)
    assert not np.any(shards.targets[shards.documents == 0])
