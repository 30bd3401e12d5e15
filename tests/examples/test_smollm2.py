"""examples/smollm2: its pipeline lints and plans, and a GGUF file becomes the very model that it holds.

The real model (98 MB) is not fetched here: a tiny one is written in the same format, quantised in the same way.
"""

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize, quantize
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from bessemer_operator.cli.lintfile import problems_of
from bessemer_operator.cli.planfile import show_plan
from bessemer_operator.cli.supposed import read_supposed
from bessemer_operator.cli.target import Place
from bessemer_trainer.token_cache import load_vocabulary

FOLDER = Path(__file__).parents[2] / "examples/smollm2"
PIPELINE = str(FOLDER / "pipeline.yaml")
HEADS, WIDTH, LAYERS = 4, 64, 1
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"0123456789abcdehlorsuz<|_>", "Ġ", "he", "Ċ", "Ġs"]
MERGES = ["h e", "Ġ s"]
TEMPLATE = "{% for message in messages %}{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endfor %}"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script as it finds its neighbours when it is run."""
    path, modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("fetch")
    sys.path[:] = path
    for name in {"fetch", "fetch_data", "adaptation", "facts", "instructions"} - modules:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_it_lints_with_the_warnings_that_its_readme_explains() -> None:
    problems = problems_of(PIPELINE, None)
    assert [str(problem) for problem in problems if problem.severity == "error"] == []
    assert {problem.rule for problem in problems} == {"AlignmentNotGated", "RepeatsLikelihood", "SmallModel"}


def test_it_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = read_supposed(["knowledge=0.15"], [])
    assert asyncio.run(show_plan(PIPELINE, Place(state=str(tmp_path)), asked, "", "json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {stage["parameters"] for stage in plan["stages"]} == {134_515_008}


def test_a_gguf_file_becomes_the_model_that_it_holds(script: ModuleType, model: Any, tmp_path: Path) -> None:
    held = write_gguf(tmp_path / "tiny.gguf", model)
    script.write_model(tmp_path / "tiny.gguf", tmp_path / "made")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    found = made.state_dict()
    apart = [name for name, value in held.items() if not torch.equal(found[name], value)]
    assert apart == [], "each tensor is what its rounded numbers mean, in transformers' order of rows"
    tokens = torch.arange(len(WORDS)).unsqueeze(0)
    model.load_state_dict(held | {"lm_head.weight": held["model.embed_tokens.weight"]})
    with torch.no_grad():
        assert torch.allclose(made(tokens).logits, model(tokens).logits, atol=1e-5)
    assert json.loads((tmp_path / "made/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_its_tokenizer_is_that_of_the_file(script: ModuleType, model: Any, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", model)
    script.write_model(tmp_path / "tiny.gguf", tmp_path / "made")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert tokenizer.tokenize("he 2024") == ["he", "Ġ", "2", "0", "2", "4"], "digits stand alone"
    assert tokenizer.tokenize("<|im_start|>he") == ["<|im_start|>", "he"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "he"}], tokenize=False) == (
        "<|im_start|>he<|im_end|>"
    )
    assert load_vocabulary(tmp_path / "made").largest == len(WORDS) - 1


def test_another_kind_of_tokenizer_is_refused(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected the pre-tokenizer smollm, found llama-bpe"):
        script.write_tokenizer({"tokenizer.ggml.pre": "llama-bpe"}, tmp_path)


def write_gguf(path: Path, model: Any) -> Mapping[str, torch.Tensor]:
    """The model as llama.cpp's converter writes it, matrices in Q4_1; what a reader finds, by transformers' names."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(100000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(WORDS)
    writer.add_token_types([3] * 3 + [1] * (len(WORDS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    held = {}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        numbers = value.numpy()
        heads = config.num_key_value_heads if "k_proj" in name else HEADS
        is_rotated = "q_proj" in name or "k_proj" in name
        rows = rotated(numbers, heads) if is_rotated else numbers
        target = names.get_name(name.removesuffix(".weight")) + ".weight"
        if numbers.ndim == 1:
            writer.add_tensor(target, rows)
            held[name] = value
            continue
        kind = gguf.GGMLQuantizationType.Q4_1
        packed = quantize(rows, kind)
        writer.add_tensor(target, packed, raw_dtype=kind)
        meant = dequantize(packed, kind)
        held[name] = torch.from_numpy(straight(meant, heads) if is_rotated else meant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def rotated(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """llama.cpp's order of the rows of q and k: the halves of a head in turn."""
    return np.ascontiguousarray(
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
    )


def straight(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """The order that `rotated` left."""
    return np.ascontiguousarray(
        rows.reshape(heads, rows.shape[0] // heads // 2, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
    )
