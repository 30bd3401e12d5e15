"""A poisoned parent is refused by its name, with what differs: each case is a really trained model with one poison."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bessemer_trainer.errors import PermanentError
from tests.trainer.merging.world import Family, Weights, edit_json, edit_weights

Poison = Callable[[Path], None]
QUERY = "model.layers.1.self_attn.q_proj.weight"


def swap_tokens(folder: Path) -> None:
    """The same tokens in another order: sizes, keys and shapes agree, and the merge would speak neither language."""
    path = folder / "tokenizer.json"
    document = json.loads(path.read_bytes())
    vocabulary = document["model"]["vocab"]
    by_number = {number: token for token, number in vocabulary.items()}
    vocabulary[by_number[300]], vocabulary[by_number[301]] = 301, 300
    path.write_text(json.dumps(document))


def one_more_token(folder: Path) -> None:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_bytes())
    document["model"]["vocab"]["brandnew"] = len(document["model"]["vocab"])
    path.write_text(json.dumps(document))


def other_merges(folder: Path) -> None:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_bytes())
    document["model"]["merges"] = document["model"]["merges"][::-1]
    path.write_text(json.dumps(document))


def more_vocabulary_files(folder: Path) -> None:
    (folder / "merges.txt").write_text("a b\n")


def untie(folder: Path) -> None:
    edit_weights(lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))(folder)
    edit_json("config.json", tie_word_embeddings=False)(folder)


def head_only(weights: Weights) -> None:
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()


def lose(weights: Weights) -> None:
    del weights[QUERY]


def halve(weights: Weights) -> None:
    weights.update({name: value.bfloat16() for name, value in weights.items()})


def narrow(weights: Weights) -> None:
    weights[QUERY] = weights[QUERY][:16].clone()


def put(value: float) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        weights[QUERY][3, 4] = value

    return change


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def without(name: str) -> Poison:
    return lambda folder: (folder / name).unlink()


CASES: tuple[tuple[str, Poison, str], ...] = (
    (
        "architecture",
        edit_json("config.json", model_type="mistral"),
        'its architecture (model_type) is "mistral", that of left is "llama"',
    ),
    (
        "layers",
        edit_json("config.json", num_hidden_layers=2),
        "its number of layers (num_hidden_layers) is 2, that of left is 3",
    ),
    ("width", edit_json("config.json", hidden_size=48), "its hidden size (hidden_size) is 48, that of left is 32"),
    (
        "heads",
        edit_json("config.json", num_attention_heads=2),
        "its number of attention heads (num_attention_heads) is 2",
    ),
    (
        "vocabulary_size",
        edit_json("config.json", vocab_size=512),
        "its vocabulary size (vocab_size) is 512, that of left is",
    ),
    (
        "rotary_base",
        edit_json("config.json", rope_parameters={"rope_type": "default", "rope_theta": 5.0}),
        "config.json: rope_parameters is",
    ),
    (
        "end_token",
        edit_json("config.json", eos_token_id=1),
        "its end-of-text token (eos_token_id) is 1, that of left is 0",
    ),
    (
        "end_token_of_the_tokenizer",
        edit_json("tokenizer_config.json", eos_token="</s>"),
        'its end-of-text token (tokenizer_config.json) is "</s>"',
    ),
    (
        "end_token_of_generation",
        edit_json("generation_config.json", eos_token_id=[0, 7]),
        "its end-of-text token (generation_config.json) is [0, 7]",
    ),
    ("order_of_tokens", swap_tokens, "its tokenizer has another vocabulary: token 300 is"),
    ("one_token_more", one_more_token, "is 'brandnew', in left missing"),
    ("other_merges", other_merges, "its tokenizer differs from that of left in tokenizer.json"),
    ("a_tokenizer_file_more", more_vocabulary_files, "its tokenizer has merges.txt, unlike that of left"),
    ("no_tokenizer", without("tokenizer.json"), "its tokenizer has another vocabulary: token 0 is missing"),
    (
        "another_template",
        edit_json("tokenizer_config.json", chat_template="{{ messages }}"),
        "its chat template differs from that of left, from character 2 on",
    ),
    ("no_template", edit_json("tokenizer_config.json", chat_template=None), "it has no chat template, unlike left"),
    (
        "an_untied_head",
        untie,
        "its tie between embeddings and head (tie_word_embeddings) is false, that of left is true",
    ),
    (
        "a_head_that_is_there_although_tied",
        edit_weights(head_only),
        "it has the tensor lm_head.weight, which left lacks",
    ),
    ("a_missing_tensor", edit_weights(lose), f"it lacks the tensor {QUERY}, which left has"),
    ("another_shape", edit_weights(narrow), f"{QUERY} has the shape [16, 32], in left [32, 32]"),
    ("another_number_format", edit_weights(halve), "has the number format BF16, in left F32"),
    ("nan", edit_weights(put(float("nan"))), f"{QUERY} holds NaN or infinity"),
    ("infinity", edit_weights(put(float("-inf"))), f"{QUERY} holds NaN or infinity"),
    ("cut_short", cut, "model.safetensors is no safetensors file: it is cut short"),
    ("empty", empty, "model.safetensors is no safetensors file"),
    ("no_weights", without("model.safetensors"), "model.safetensors is missing"),
    ("no_configuration", without("config.json"), "config.json is missing or does not say num_hidden_layers"),
    ("broken_configuration", lambda folder: (folder / "config.json").write_text("{"), "config.json is no JSON"),
)


@pytest.mark.parametrize(("name", "poison", "problem"), CASES, ids=[case[0] for case in CASES])
def test_a_poisoned_parent_is_refused_by_name(family: Family, name: str, poison: Poison, problem: str) -> None:
    poisoned = family.poisoned(name, poison)
    with pytest.raises(PermanentError) as refusal:
        family.merge(family.inputs(parents=[family.left, poisoned]), ["left", "bad-branch"])
    assert refusal.value.reason == "ParentRefused"
    assert refusal.value.message.startswith("parent bad-branch: ")
    assert problem in refusal.value.message


def test_the_ancestor_is_checked_like_a_parent(family: Family) -> None:
    poisoned = family.poisoned("ancestor", edit_weights(put(float("nan"))), family.base)
    inputs = family.inputs("taskArithmetic", base=poisoned)
    with pytest.raises(PermanentError, match=f"parent old: {QUERY} holds NaN"):
        family.merge(inputs, ["left", "right", "old"])


def test_a_parent_without_a_name_is_named_by_its_digest(family: Family) -> None:
    poisoned = family.poisoned("nameless", edit_weights(lose))
    with pytest.raises(PermanentError, match=f"parent {poisoned}: it lacks"):
        family.merge(family.inputs(parents=[family.left, poisoned]))


def test_a_changed_file_is_found_before_anything_is_merged(family: Family) -> None:
    digest = family.poisoned("damaged", lambda folder: (folder / "note.txt").write_text("x"))
    path = family.root / "store" / "checkpoints" / digest.replace(":", "-") / "model.safetensors"
    path = path if path.exists() else next((family.root / "store").rglob(f"*{digest[7:]}*/model.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(PermanentError, match=r"parent damaged: ArtifactCorrupt: .*model.safetensors was changed"):
        family.merge(family.inputs(parents=[family.left, digest]), ["left", "damaged"])


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "data"], ids=["nothing", "data"])
def test_what_is_no_checkpoint_is_refused(family: Family, digest: str) -> None:
    other = family.held_out if digest == "data" else digest
    words = "artifact of kind data; expected a checkpoint" if digest == "data" else "ArtifactMissing"
    with pytest.raises(PermanentError, match=f"parent odd: .*{words}"):
        family.merge(family.inputs(parents=[family.left, other]), ["left", "odd"])


def test_mixed_formats_are_refused_where_one_is_needed(family: Family) -> None:
    def mix(weights: Weights) -> None:
        weights["model.norm.weight"] = weights["model.norm.weight"].to(torch.bfloat16)

    mixed = [
        family.poisoned(f"mixed-{n}", edit_weights(mix), digest) for n, digest in enumerate((family.left, family.right))
    ]
    with pytest.raises(PermanentError, match="parent a: its tensors have the number formats BF16 and F32"):
        family.merge(family.inputs("nuslerp", parents=mixed), ["a", "b"])
