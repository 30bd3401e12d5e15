"""Measuring a really trained tiny model: numbers against a plain forward pass, determinism, and unusable inputs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, MixtralConfig, PretrainedConfig

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals import bits_per_byte, common, multiple_choice
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject, load_subject
from bessemer_trainer.stages import evaluate
from tests.trainer.evaluation.tiny import AXES, ITEMS, World, multiple_choice_items, publish_bank, text_items

CHOICE_AXIS = Axis.model_validate(AXES[0])
TEXT_AXIS = Axis.model_validate(AXES[1])


def samples(world: World, evaluation: str, axis: str) -> list[dict[str, Any]]:
    path = world.store().fetch(evaluation) / f"samples_{axis}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain_log_likelihood(model: torch.nn.Module, tokens: list[int], start: int) -> float:
    """Sum of log p of tokens[start:], by one forward pass without padding, batch or cache."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0].double()
    logs = torch.log_softmax(logits, -1)
    return sum(float(logs[i - 1, tokens[i]]) for i in range(start, len(tokens)))


@pytest.fixture(scope="module")
def subject(world: World) -> Subject:
    folder = world.store().fetch(world.good)
    return load_subject(folder, "fp32")


def uneven_items() -> list[Item]:
    """Prompts and choices of very different length, one-token choices, and a border that a token spans."""
    documents = [
        *multiple_choice_items()[:5],
        {"id": "long", "prompt": "The colour of kalomi is amber. " * 4 + "It is", "choices": [" ü", " é"], "answer": 0},
        {"id": "spans", "prompt": "The colou", "choices": ["r of", "rs", "x"], "answer": 0},
        {"id": "short", "prompt": "T.", "choices": ["The colour of kaloru is green.", "o"], "answer": 1},
        {"id": "chinese", "prompt": "颜色", "choices": ["红", "蓝色"], "answer": 1},
    ]  # fmt: skip
    return [Item(d["id"], d | {"fact": d["id"]}, "test") for d in documents]


def test_log_likelihoods_with_a_shared_prefix_equal_a_plain_forward_pass(
    subject: Subject,
) -> None:
    model, encoder = subject.model, subject.encoder
    items = uneven_items()
    found = multiple_choice.measure(subject, items, CHOICE_AXIS, lambda done: None)
    for item, sample in zip(items, found, strict=True):
        alone = encoder.encode(item.fields["prompt"])
        for choice, likelihood in zip(item.fields["choices"], sample.detail["logLikelihoods"], strict=True):
            whole = encoder.encode(item.fields["prompt"] + choice)
            border = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone))
            assert likelihood == pytest.approx(plain_log_likelihood(model, whole, border), abs=1e-4), (item.id, choice)


def test_a_token_that_spans_the_border_belongs_to_the_choice(
    subject: Subject,
) -> None:
    encoder = subject.encoder
    prompt, whole = encoder.encode("The colou"), encoder.encode("The colour of")
    assert whole[: len(prompt)] != prompt, "the case is there to span the border"


@pytest.mark.parametrize("length", [1, 3, 40], ids=["one word", "one window", "several windows"])
def test_bits_per_byte_equals_a_plain_forward_pass_in_windows(subject: Subject, length: int) -> None:
    model, encoder = subject.model, subject.encoder
    text = " ".join(["The colour of kaloru is green, I say."] * length) if length > 1 else "éa"
    longest = 64
    tokens = encoder.encode(text)
    nats = sum(-plain_log_likelihood(model, tokens[i : i + longest + 1], 1) for i in range(0, len(tokens) - 1, longest))
    other = Item("o", {"text": "Another text, so that the batch has rows of different length."}, "test")
    (sample, _) = bits_per_byte.measure(subject, [Item("t", {"text": text}, "test"), other], TEXT_AXIS, print)
    assert sample.score == pytest.approx(nats / math.log(2) / len(text.encode()), abs=1e-5)
    assert sample.detail["bytes"] == len(text.encode())


def largest_logits(model: torch.nn.Module, work: Callable[[], object]) -> int:
    """Bytes of the largest fp32 logits that the head made during `work`."""
    sizes: list[int] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda *made: sizes.append(4 * made[2].numel()))
    try:
        work()
    finally:
        hook.remove()
    return max(sizes)


@pytest.mark.parametrize("length", [3, 40], ids=["less than a window", "several windows"])
def test_logits_of_a_long_text_are_made_in_pieces_and_give_the_same(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    model = subject.model
    items = [Item("t", {"text": " ".join(["The colour of kaloru is green, I say."] * length)}, "test")]
    (whole,) = bits_per_byte.measure(subject, items, TEXT_AXIS, print)
    monkeypatch.setattr(common, "LOGIT_BYTES", 4 * model.config.vocab_size * 7)
    found = []
    largest = largest_logits(model, lambda: found.extend(bits_per_byte.measure(subject, items, TEXT_AXIS, print)))
    assert found[0].detail["nats"] == pytest.approx(whole.detail["nats"], abs=1e-4)
    assert largest <= common.LOGIT_BYTES


def test_logits_of_a_long_choice_are_made_in_pieces_and_give_the_same(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = subject.model
    choices = [" colour of kalomi is amber, and that of kaloru is green.", " e", " The colour is silver"]
    item = Item("c", {"prompt": "The", "choices": choices, "answer": 0, "fact": "f"}, "test")
    (whole,) = multiple_choice.measure(subject, [item], CHOICE_AXIS, print)
    monkeypatch.setattr(common, "LOGIT_BYTES", 4 * model.config.vocab_size * 7)
    found = []
    largest = largest_logits(model, lambda: found.extend(multiple_choice.measure(subject, [item], CHOICE_AXIS, print)))
    assert found[0].detail["logLikelihoods"] == pytest.approx(whole.detail["logLikelihoods"], abs=1e-4)
    assert largest <= common.LOGIT_BYTES


SMALL = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HEADS = {
    "capped logits": Gemma2Config(**SMALL, head_dim=16, final_logit_softcapping=0.5),
    "scaled logits": CohereConfig(**SMALL, logit_scale=0.0625),
    "a router beside the logits": MixtralConfig(**SMALL, num_local_experts=2, output_router_logits=True),
}


@pytest.mark.parametrize("config", HEADS.values(), ids=HEADS)
def test_every_kind_of_head_gives_what_a_plain_forward_pass_gives(
    monkeypatch: pytest.MonkeyPatch, config: PretrainedConfig
) -> None:
    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_config(config).eval()
    pieces = [torch.randint(3, 400, (length,)).tolist() for length in (40, 13)]
    monkeypatch.setattr(common, "LOGIT_BYTES", 4 * 400 * 14)
    expected = [-plain_log_likelihood(model, piece, 1) for piece in pieces]
    assert bits_per_byte.nats(model, pieces) == pytest.approx(expected, abs=1e-4)
    assert plain_log_likelihood(model, pieces[0], 1) == pytest.approx(-expected[0]), "the model is whole again"


def test_a_text_of_one_token_is_refused_since_nothing_can_be_predicted(
    subject: Subject,
) -> None:
    with pytest.raises(PermanentError, match="single token"):
        bits_per_byte.measure(subject, [Item("t", {"text": "o"}, "test")], TEXT_AXIS, print)


def test_text_that_spells_a_special_token_stays_text(subject: Subject) -> None:
    assert 0 not in subject.encoder.encode("a <|endoftext|>")


def test_a_trained_model_knows_its_facts_and_an_untrained_one_guesses(world: World) -> None:
    good, weak = (world.means(world.evaluate(c)) for c in (world.good, world.weak))
    assert good["knowledge"] > 0.8
    assert 0.05 < weak["knowledge"] < 0.6
    assert good["generalLoss"] < weak["generalLoss"]


def test_shuffled_gold_answers_give_chance(world: World, tmp_path: Path) -> None:
    items = multiple_choice_items()
    shifted = [item | {"answer": (item["answer"] + 1 + k % 3) % 4} for k, item in enumerate(items)]
    mixed = [item if k % 4 == 0 else shifted[k] for k, item in enumerate(items)]  # right for one in four
    bank = publish_bank(world.store(), tmp_path / "bank", mixed, text_items())
    mean = world.means(world.evaluate(world.good, bank=bank))["knowledge"]
    assert abs(mean - 0.25) < 0.1


def test_equal_inputs_give_equal_digests_and_another_range_gives_the_same_items(world: World) -> None:
    whole = world.evaluate(world.good)
    assert world.evaluate(world.good) == whole
    later = world.evaluate(world.good, 60, 120)
    assert [s["id"] for s in samples(world, later, "knowledge")] == [f"k{k}" for k in range(60, 120)]
    for one, other in zip(samples(world, later, "generalLoss"), samples(world, whole, "generalLoss")[60:], strict=True):
        assert one == other | {"score": pytest.approx(other["score"]), "nats": pytest.approx(other["nats"])}


def test_samples_carry_cluster_answer_and_chance(world: World) -> None:
    first = samples(world, world.evaluate(world.good, 0, 10), "knowledge")[0]
    assert first.keys() == {"id", "cluster", "score", "answer", "chosen", "chance", "logLikelihoods"}
    assert (first["cluster"], first["chance"]) == ("f0", 0.25)
    assert first["score"] == float(first["answer"] == first["chosen"])


@pytest.mark.parametrize("part", ["gate", "dev"])
def test_means_of_gate_items_are_told_nowhere_before_the_try_is_counted(world: World, part: str) -> None:
    inputs = world.inputs(world.good, 0, 10, part=part)
    outcome = evaluate.run(world.context(verb="evaluate", evaluate=inputs.wire()))
    assert outcome.output_digest is not None
    meta = world.store().manifest(outcome.output_digest).meta
    expected = world.means(outcome.output_digest) if part == "dev" else {}
    assert outcome.metrics == pytest.approx(expected)
    assert meta.get("means", {}) == pytest.approx(expected)
    assert meta.keys() == {"checkpoint", "settings"} | ({"means"} if part == "dev" else set())


def test_settings_name_everything_but_the_checkpoint(world: World) -> None:
    meta = world.store().manifest(world.evaluate(world.good, 0, 10)).meta
    assert meta["checkpoint"] == world.good
    assert meta["settings"] == {
        "bank": world.bank, "axes": AXES, "part": "gate", "start": 0, "end": 10, "precision": "fp32", "seed": 0,
        "recipe": 1, "device": "cuda" if torch.cuda.is_available() else "cpu",
    }  # fmt: skip


def test_bf16_is_measured_in_bf16(world: World) -> None:
    narrow = samples(world, world.evaluate(world.good, 0, 10, precision="bf16"), "generalLoss")
    wide = samples(world, world.evaluate(world.good, 0, 10), "generalLoss")
    gaps = [abs(a["score"] - b["score"]) for a, b in zip(narrow, wide, strict=True)]
    assert 0 < max(gaps) < 0.1


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        pytest.param({"end": ITEMS + 1}, "TooFewItems", ["120 items", "0 to 121"], id="more items than the bank has"),
        pytest.param({"recipe": 2}, "UnknownRecipe", ["recipe is 2"], id="a recipe of another version"),
        pytest.param(
            {"axes": [{"name": "manners", "task": "multipleChoice"}]}, "NoItems", ["manners"], id="an unknown axis"
        ),
        pytest.param(
            {"axes": [AXES[0] | {"clusterBy": "author"}]}, "BadItem", ["k0", "author"], id="no such cluster"
        ),
        pytest.param(
            {"axes": [AXES[1] | {"task": "multipleChoice"}]}, "BadItem", ["line 1", "prompt"], id="another task"
        ),
        pytest.param({"bank": "checkpoint"}, "WrongKind", ["expected bank"], id="a bank that is a checkpoint"),
        pytest.param({"bank": "sha256:" + "1" * 64}, "ArtifactMissing", ["there is no"], id="a bank that is not there"),
    ],
)  # fmt: skip
def test_unusable_inputs_are_refused_with_their_reason(
    world: World, fields: dict[str, Any], reason: str, words: list[str]
) -> None:
    if fields.get("bank") == "checkpoint":
        fields = {"bank": world.good}
    with pytest.raises(PermanentError) as caught:
        world.evaluate(world.good, **({"start": 0, "end": 10} | fields))
    assert caught.value.reason == reason
    assert all(word in caught.value.message for word in words), caught.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"choices": [" a"]}, "at least two", id="one choice"),
        pytest.param({"choices": [" a", ""]}, "at least two", id="an empty choice"),
        pytest.param({"answer": 4}, "0 to 3", id="an answer that is no choice"),
        pytest.param({"answer": True}, "0 to 3", id="an answer that is a truth value"),
        pytest.param({"prompt": ""}, "not empty", id="an empty prompt"),
        pytest.param({"prompt": "colour " * 100}, "the model takes 64", id="a prompt longer than the model"),
        pytest.param({"prompt": "T", "choices": ["he c", " o"], "answer": 0}, "longer prompt", id="no prompt before"),
        pytest.param({"id": 5}, "`id`", id="an id that is a number"),
        pytest.param({"prompt": "\ud800"}, "JSON", id="half a surrogate pair"),
    ],
)
def test_a_bad_item_is_named_by_file_and_line(world: World, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    items = multiple_choice_items()
    items[7] = items[7] | change
    bank = publish_bank(world.store(), tmp_path / "bank", items, text_items())
    with pytest.raises(PermanentError) as caught:
        world.evaluate(world.good, 0, 10, bank=bank)
    assert caught.value.reason == "BadItem"
    assert "knowledge.gate.jsonl, line 8" in caught.value.message
    assert words in caught.value.message


def checkpoint_with(world: World, folder: Path, change: str) -> str:
    """A copy of the good checkpoint that is broken in one way."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(world.store().fetch(world.good), folder, ignore=shutil.ignore_patterns("manifest.json"))
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    if change == "nan":
        tensors[name][0, 0] = math.nan
    elif change == "missing":
        del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if change == "pickle":
        torch.save(tensors, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif change == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif change == "code":
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine", "AutoConfig": "mine.Config"}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "mine.py").write_text("raise SystemExit('code of the checkpoint was run')")
    return world.store().publish(folder, "checkpoint", {"broken": change})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param("nan", "NonFiniteScore", id="a NaN in the weights"),
        pytest.param("missing", "CheckpointInvalid", id="a weight that is missing"),
        pytest.param("pickle", "CheckpointInvalid", id="a pickle instead of safetensors"),
        pytest.param("no tokenizer", "TokenizerInvalid", id="no tokenizer"),
        pytest.param("code", "CheckpointInvalid", id="code in the checkpoint"),
    ],
)
def test_a_broken_checkpoint_is_an_error_and_no_score(world: World, tmp_path: Path, change: str, reason: str) -> None:
    broken = checkpoint_with(world, tmp_path / "broken", change)
    with pytest.raises(PermanentError) as caught:
        world.evaluate(broken, 0, 10)
    assert caught.value.reason == reason


def test_an_edited_checkpoint_is_refused(world: World, tmp_path: Path) -> None:
    digest = checkpoint_with(world, tmp_path / "copy", "none")
    path = world.store().fetch(digest) / "config.json"
    path.chmod(0o644)
    path.write_text(path.read_text() + " ")
    with pytest.raises(PermanentError) as caught:
        world.evaluate(digest, 0, 10)
    assert caught.value.reason == "ArtifactCorrupt"


def test_evaluate_finishes_its_determinism_when_it_ends() -> None:
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    with evaluate.deterministic():
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (1, True)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
