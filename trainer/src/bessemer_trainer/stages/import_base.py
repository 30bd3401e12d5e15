"""The verb `import`: a model folder (Hugging Face layout) becomes a checkpoint artifact.

Only safetensors are read, never a pickle and never code from the folder. Shards become one file; the tensors keep
their number format. What does not fit together is refused here, before any stage trains on it.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from bessemer_api.v1alpha1.stage import BaseInputs
from bessemer_trainer.artifacts import copy_tokenizer, write_checkpoint
from bessemer_trainer.backends import disk_errors
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import require_unchanged
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.keys import Keys
from bessemer_trainer.release import require_signed
from bessemer_trainer.sources import MODEL_SUFFIXES, list_files, open_bytes, pin
from bessemer_trainer.token_cache import load_vocabulary

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def run(context: Context) -> Outcome:
    """Publish the checkpoint. Raises PermanentError(ModelInvalid | SourceChanged | TokenizerInvalid)."""
    stage = context.spec.stage
    if stage is None or stage.base is None:
        raise PermanentError("SpecInvalid", "stage.base: the method import needs it")
    scratch = context.scratch / "import"
    with disk_errors(str(scratch)):
        source = _copy(context, stage.base, scratch / "source")
        target = scratch / "checkpoint"
        target.mkdir()
        model = empty_model(source)
        vocabulary = load_vocabulary(source)
        if vocabulary.largest >= model.config.vocab_size:
            raise _invalid(source, f"the tokenizer has token {vocabulary.largest}, the model {model.config.vocab_size}")
        weights = complete_weights(source, model, read_weights(source))
        parameters = write_checkpoint(target, model, weights, None)
        copy_tokenizer(source, target)
        digest = context.store.publish(target, "checkpoint", {"source": stage.base.content, "parameters": parameters})
        shutil.rmtree(scratch)
    return Outcome(digest, metrics={"parameters": float(parameters), **shape_metrics(model.config)})


def shape_metrics(config: Any) -> dict[str, float]:  # noqa: ANN401 - transformers is untyped
    """The shape as base.shape names it, for the operator's estimates; empty where the architecture has other words."""
    try:
        heads = int(config.num_attention_heads)
        return {
            "shape.hiddenSize": float(config.hidden_size),
            "shape.intermediateSize": float(config.intermediate_size),
            "shape.layers": float(config.num_hidden_layers),
            "shape.heads": float(heads),
            "shape.keyValueHeads": float(getattr(config, "num_key_value_heads", None) or heads),
            "shape.maxPositions": float(config.max_position_embeddings),
            "shape.vocabularySize": float(config.vocab_size),
            "shape.tieEmbeddings": float(config.tie_word_embeddings),
        }
    except AttributeError:
        return {}


def _invalid(folder: Path, problem: str) -> PermanentError:
    return PermanentError("ModelInvalid", f"{folder.name}: {problem}")


def _copy(context: Context, base: BaseInputs, folder: Path) -> Path:
    """The files of the source's folder itself; what stands in subfolders is not part of the model."""
    _require_trusted(context, base.source.uri)
    require_unchanged(base.source.uri, pin(base.source.uri, base.source.sha256, MODEL_SUFFIXES), base.content)
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    own = [file for file in list_files(base.source.uri, MODEL_SUFFIXES) if "/" not in file.name]
    for done, file in enumerate(own):
        context.progress.update(done, len(own), f"copying {file.name}")
        with open_bytes(file) as reader, (folder / file.name).open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
    return folder


def _require_trusted(context: Context, uri: str) -> None:
    """A folder of the store's own is used as promoted models are: every file as published, and signed with our keys."""
    own = context.store.url("artifacts/")
    if Keys.find() is None or not uri.startswith(own):
        return
    digest = uri.removeprefix(own).strip("/").replace("-", ":", 1)
    require_signed(context.store, digest)
    context.store.fetch(digest)


def empty_model(folder: Path) -> Any:  # noqa: ANN401 - transformers is untyped
    """The model that config.json describes, without memory for its weights."""
    try:
        document = json.loads((folder / "config.json").read_bytes())
        if "auto_map" in document:
            raise _invalid(folder, "config.json: auto_map: the model needs code of its own, which is never run")
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except FileNotFoundError:
        raise _invalid(folder, "config.json is missing; expected a folder in the Hugging Face layout") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _invalid(folder, f"config.json: {first}") from None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors`, or of the shards that its index names."""
    tensors: dict[str, Tensor] = {}
    for name, expected in _shards(folder):
        try:
            with safe_open(folder / name, framework="pt") as file:
                found = set(file.keys())
                if expected is not None and found != expected:
                    raise _invalid(folder, f"{name}: it does not hold the tensors that {_INDEX} says")
                tensors |= {key: file.get_tensor(key) for key in found}
        except SafetensorError as error:
            raise _invalid(folder, f"{name}: {error}; the file is damaged or cut short") from None
    return tensors


def _shards(folder: Path) -> Iterator[tuple[str, set[str] | None]]:
    """Names of the weight files, and of the tensors in each when an index says them."""
    if (folder / _SINGLE).is_file():
        yield _SINGLE, None
        return
    if not (folder / _INDEX).is_file():
        raise _invalid(folder, f"neither {_SINGLE} nor {_INDEX} is there; other formats (pickle) are not read")
    places = _index(folder)
    for name in sorted(set(places.values())):
        if not (folder / name).is_file():
            raise _invalid(folder, f"{name}: {_INDEX} names it, but it is missing")
        yield name, {tensor for tensor, place in places.items() if place == name}


def _index(folder: Path) -> dict[str, str]:
    try:
        places = json.loads((folder / _INDEX).read_bytes())["weight_map"]
        names = {str(tensor): str(place) for tensor, place in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _invalid(folder, f"{_INDEX}: expected JSON with a weight_map of tensor names to file names") from None
    for name in names.values():
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise _invalid(folder, f"{_INDEX}: {name!r} is no safetensors file of this folder")
    return names


def complete_weights(
    folder: Path,
    model: Any,  # noqa: ANN401 - transformers is untyped
    weights: dict[str, Tensor],
) -> dict[str, Tensor]:
    """The weights without those that are tied to another; every tensor of the model must be there, and no other."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tied = set(getattr(model, "all_tied_weights_keys", {}))
    missing = sorted(set(shapes) - set(weights) - tied)
    unknown = sorted(set(weights) - set(shapes))
    if missing or unknown:
        raise _invalid(folder, f"tensors missing: {missing[:3]}, not known to the model: {unknown[:3]}")
    for name, value in weights.items():
        if tuple(value.shape) != shapes[name]:
            raise _invalid(folder, f"{name} has shape {tuple(value.shape)}; config.json says {shapes[name]}")
    return {name: value for name, value in weights.items() if name not in tied}
