"""Low-rank updates (LoRA; Hu et al. 2021, arXiv 2106.09685) by peft: put into a model, and merged into plain weights.

What is published has the names and shapes of the model that training started from; nothing that reads it needs peft.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bessemer_api.v1alpha1.train import Lora
from bessemer_trainer.errors import PermanentError

_A, _B, _BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."
_HEAD = "score"
"""Output layer of a reward model: it is new, so it is trained whole."""


def add_lora(model: Any, lora: Lora, seed: int) -> None:  # noqa: ANN401 - transformers is untyped
    """Put updates beside the linear layers that `lora` names, all but the output layer by default; freeze the rest.

    Raises PermanentError(SpecInvalid) when there is no such layer.
    """
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - seconds that only this needs

    scale: Any = lora.alpha  # peft declares a whole number and takes any
    config = LoraConfig(r=lora.r, lora_alpha=scale, lora_dropout=lora.dropout, target_modules=_targets(model, lora))
    torch.manual_seed(seed)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if name.startswith(f"{_HEAD}."):
            parameter.requires_grad_(True)


def _targets(model: Any, lora: Lora) -> list[str]:  # noqa: ANN401 - transformers is untyped
    output = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output and name != _HEAD
    ]
    missing = [target for target in lora.targets if not any(_names(target, name) for name in linear)]
    if missing:
        known = sorted({name.rpartition(".")[2] for name in linear})
        raise PermanentError("SpecInvalid", f"train.lora.targets: no linear layer {missing[0]!r}; there are {known}")
    return [name for name in linear if not lora.targets or any(_names(target, name) for target in lora.targets)]


def _names(target: str, layer: str) -> bool:
    return layer == target or layer.endswith(f".{target}")


def merged(weights: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """Plain weights: W + alpha / r * B A, added up in fp32, under the names that the model had before."""
    plain = {}
    for name, value in weights.items():
        layer = name.partition(_BASE)[0]
        if name.endswith((_A, _B)):
            continue
        if name == f"{layer}{_BASE}weight":
            update = weights[layer + _B].float() @ weights[layer + _A].float()
            plain[f"{layer}.weight"] = value.float() + lora.alpha / lora.r * update
        else:
            plain[name.replace(_BASE, ".")] = value
    return plain
