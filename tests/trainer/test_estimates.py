"""What `bessemer plan` estimates, against what it estimates: DeepSpeed's own estimators, real models, real autograd."""

from dataclasses import replace

import pytest
import torch
from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
from deepspeed.runtime.zero.stage3 import model_to_params as count_parameters
from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs
from transformers import LlamaConfig, LlamaForCausalLM

from bessemer_operator.core.memory import HOST_BUFFER, Layout, activation_bytes, estimate_memory
from bessemer_operator.core.shapes import NAMED, Shape, from_config, from_metrics
from bessemer_trainer.objectives.likelihood import Likelihood
from bessemer_trainer.stages.import_base import shape_metrics

TINY = Shape(64, 160, 3, 4, 2, 512, False)


def config_of(shape: Shape) -> LlamaConfig:
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=shape.tied,
    )
    config._attn_implementation = "sdpa"
    return config


@pytest.mark.parametrize("name", NAMED)
def test_a_named_shape_has_the_parameters_of_the_model(name: str) -> None:
    shape = NAMED[name]
    with torch.device("meta"):
        model = LlamaForCausalLM(config_of(shape))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    largest = max(sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules())
    assert shape.largest_module == largest
    assert from_config(model.config.to_dict()) == shape
    assert from_metrics(shape_metrics(model.config)) == shape


def test_deepspeed_counts_the_parameters_of_a_model_as_we_do() -> None:
    assert count_parameters(LlamaForCausalLM(config_of(TINY))) == (TINY.parameters, TINY.largest_module)


@pytest.mark.parametrize("nodes", [1, 2, 16])
@pytest.mark.parametrize("name", ["smollm-1.7b", "mistral-7b", "llama-3.1-8b", "llama-3.1-70b"])
@pytest.mark.parametrize("gpus", [1, 8])
def test_model_states_are_those_of_deepspeed(name: str, gpus: int, nodes: int) -> None:
    shape = NAMED[name]
    layout = Layout(ranks=gpus * nodes, ranks_per_node=gpus, zero=2, rows=1, length=2048)
    two = {
        offload: estimate_zero2_model_states_mem_needs(shape.parameters, gpus, nodes, offload == "optimizer")
        for offload in ("none", "optimizer")
    }
    for offload, (host, device) in two.items():
        memory = estimate_memory(shape, replace(layout, offload=offload))  # type: ignore[arg-type]
        assert (memory.host, memory.states) == (pytest.approx(host, abs=1), pytest.approx(device, abs=2))
    three = {
        offload: estimate_zero3_model_states_mem_needs(
            shape.parameters,
            shape.largest_module,
            gpus,
            nodes,
            offload != "none",
            offload == "all",
            zero_init=False,
            additional_buffer_factor=HOST_BUFFER,
        )
        for offload in ("none", "optimizer", "all")
    }
    for offload, (host, device, _) in three.items():
        memory = estimate_memory(shape, replace(layout, zero=3, offload=offload))  # type: ignore[arg-type]
        assert (memory.host, memory.states) == (pytest.approx(host, abs=1), pytest.approx(device, abs=2))


def kept_bytes(shape: Shape, layout: Layout) -> int:
    """Bytes that autograd really keeps in one forward pass of the trainer's model, weights aside."""
    model = LlamaForCausalLM(config_of(shape)).to(torch.bfloat16 if layout.value_bytes == 2 else torch.float32)
    model.train()
    if layout.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    tokens = torch.randint(0, shape.vocabulary, (layout.rows, layout.length))
    documents = torch.ones_like(tokens)
    documents[:, layout.length // 2 :] = 2
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        Likelihood(model)({"tokens": tokens, "documents": documents})
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("value_bytes", [2, 4], ids=["bf16", "fp32"])
@pytest.mark.parametrize("shape", [TINY, Shape(96, 256, 4, 6, 6, 300, True)], ids=["grouped", "full"])
def test_activations_are_those_that_autograd_keeps(shape: Shape, value_bytes: int) -> None:
    layout = Layout(ranks=1, ranks_per_node=1, zero=2, rows=2, length=128, value_bytes=value_bytes)
    tokens = layout.rows * layout.length
    log_probabilities = 4 * tokens * shape.vocabulary  # the part of the logits that waits for backward
    kept = kept_bytes(shape, layout) - log_probabilities
    assert tokens * activation_bytes(shape, layout) == pytest.approx(kept, rel=0.05)


def test_checkpointed_activations_are_the_layers_inputs_and_one_layer() -> None:
    layout = Layout(ranks=1, ranks_per_node=1, zero=2, rows=2, length=128, checkpointing=True)
    tokens = layout.rows * layout.length
    deep = replace(TINY, layers=TINY.layers + 5)
    grown = (kept_bytes(deep, layout) - kept_bytes(TINY, layout)) / 5
    assert tokens * (activation_bytes(deep, layout) - activation_bytes(TINY, layout)) / 5 == pytest.approx(grown)
    one = replace(TINY, layers=1)
    plain = replace(layout, checkpointing=False)
    assert activation_bytes(one, layout) == activation_bytes(one, plain) + 2 * one.hidden
