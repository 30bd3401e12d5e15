"""The final artifact of training: consolidated safetensors, configuration and tokenizer files. Knows no ranks.

Equal weights give equal bytes: tensors are sorted by name, and no version of any library is written down.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.tokenizer_files import TOKENIZER_FILES, copy_tokenizer

CHAT_TEMPLATE = "chat_template.jinja"
__all__ = [
    "CHAT_TEMPLATE",
    "TOKENIZER_FILES",
    "copy_chat_template",
    "copy_tokenizer",
    "write_checkpoint",
    "write_config",
]


def write_checkpoint(folder: Path, model: nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype | None) -> int:
    """Write `model.safetensors`, `config.json` and `generation_config.json`; the number of parameters.

    Floating-point tensors become `dtype`, or keep theirs when it is None.
    Raises PermanentError(NonFiniteWeights) that names the tensor; nothing is written then.
    """
    tensors = {}
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise PermanentError("NonFiniteWeights", f"{name} holds NaN or infinity; lower the learning rate")
        tensors[name] = value.to(dtype) if dtype and value.is_floating_point() else value
    save_file(dict(sorted(tensors.items())), folder / "model.safetensors", metadata={"format": "pt"})
    kept = next(value.dtype for value in tensors.values() if value.is_floating_point())
    write_config(folder, model, dtype or kept)
    return sum(tensor.numel() for tensor in tensors.values())


def write_config(folder: Path, model: Any, dtype: torch.dtype | None) -> None:  # noqa: ANN401 - transformers is untyped
    """Write the configuration files without transformers' version, which would make equal models differ.

    `architectures` names the model's class: transformers can do without, vLLM and mergekit can not.
    """
    told = {"dtype": str(dtype).removeprefix("torch."), "architectures": [type(model).__name__]}
    config = model.config.to_dict() | told
    _write_json(folder / "config.json", config)
    generation = {key: config.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(
        folder / "generation_config.json", {key: value for key, value in generation.items() if value is not None}
    )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    kept = {key: value for key, value in document.items() if key not in ("transformers_version", "_name_or_path")}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_chat_template(mixture: Path, target: Path) -> None:
    """The template that the examples were written with replaces whatever the model had before."""
    if (mixture / CHAT_TEMPLATE).is_file():
        shutil.copyfile(mixture / CHAT_TEMPLATE, target / CHAT_TEMPLATE)
