"""Importing a base model: what transformers wrote comes in, one file, same numbers; everything else is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bessemer_api.job import RunSpec
from bessemer_api.v1alpha1.train import ModelShape
from bessemer_trainer.artifacts import copy_tokenizer
from bessemer_trainer.context import Context, Outcome, Progress
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.metrics import Board
from bessemer_trainer.model import fresh_model, load_model
from bessemer_trainer.sources import MODEL_SUFFIXES, pin
from bessemer_trainer.stages.import_base import run
from tests.trainer.support import SHAPE, Inputs, run_digest, store_in

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def model(inputs: Inputs) -> Any:
    """A small Llama in bf16, as a base model would be."""
    shape = ModelShape.model_validate(SHAPE)
    return fresh_model(shape, inputs.store.fetch(inputs.tokenizer), 3).to(torch.bfloat16)


@pytest.fixture
def source(inputs: Inputs, model: Any, tmp_path: Path) -> Path:
    """Its folder as transformers writes it."""
    folder = tmp_path / "base"
    model.save_pretrained(folder)
    copy_tokenizer(inputs.store.fetch(inputs.tokenizer), folder)
    return folder


def _import(source: Path, tmp_path: Path, content: str | None = None) -> tuple[Context, Outcome]:
    base = {"source": {"uri": str(source)}, "content": content or pin(str(source), None, MODEL_SUFFIXES)}
    document = {
        "runUid": "u",
        "verb": "stage",
        "store": f"file://{tmp_path}/store",
        "inputDigest": run_digest("import"),
        "stage": {"method": "import", "base": base},
    }
    spec = RunSpec.model_validate(document)
    context = Context(spec, store_in(tmp_path), tmp_path / "scratch", Progress(Board("import_base"), quiet=True))
    return context, run(context)


def test_an_imported_model_is_the_model(source: Path, tmp_path: Path, model: Any) -> None:
    context, outcome = _import(source, tmp_path)
    folder = context.store.fetch(str(outcome.output_digest))
    loaded = load_model(folder).state_dict()
    expected = model.state_dict()
    assert all(torch.equal(loaded[name], expected[name].float()) for name in expected)
    assert {value.dtype for value in load_file(folder / WEIGHTS).values()} == {torch.bfloat16}
    config = json.loads((folder / "config.json").read_bytes())
    assert (config["dtype"], config["architectures"]) == ("bfloat16", ["LlamaForCausalLM"])
    assert context.store.manifest(str(outcome.output_digest)).kind == "checkpoint"
    assert _import(source, tmp_path)[1].output_digest == outcome.output_digest


def test_shards_become_one_file(source: Path, tmp_path: Path, model: Any) -> None:
    whole = _import(source, tmp_path)[1].output_digest
    shutil.copytree(source, tmp_path / "sharded")
    (tmp_path / "sharded" / WEIGHTS).unlink()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    context, outcome = _import(tmp_path / "sharded", tmp_path)
    sharded = context.store.fetch(str(outcome.output_digest))
    assert (sharded / WEIGHTS).read_bytes() == (context.store.fetch(str(whole)) / WEIGHTS).read_bytes()


def _edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / name).read_bytes())
        (folder / name).write_text(json.dumps({**document, **changes}))

    return edit


def _tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return edit


def _index(place: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        names = dict.fromkeys(load_file(folder / WEIGHTS), place)
        (folder / INDEX).write_text(json.dumps({"weight_map": names}))
        (folder / WEIGHTS).rename(folder / "other.safetensors")

    return edit


def _poison(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"][3] = float("nan")


def _cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def _pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _wrong_index(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": "other.safetensors"}}))
    (folder / WEIGHTS).rename(folder / "other.safetensors")


REFUSED: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no config", lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    ("a config that is no JSON", lambda f: (f / "config.json").write_text("{"), r"config\.json: "),
    ("a config that is a list", lambda f: (f / "config.json").write_text("[]"), r"config\.json: "),
    ("a model of unknown type", _edit("config.json", model_type="mystery"), r"config\.json: "),
    ("code of its own", _edit("config.json", auto_map={"AutoModel": "evil.Model"}), "never run"),
    ("only a pickle", _pickle, "pickle"),
    ("a pickle in disguise", lambda f: torch.save({}, f / WEIGHTS), "damaged or cut short"),
    ("weights cut short", _cut, "damaged or cut short"),
    ("weights with NaN", _tensors(_poison), r"model\.norm\.weight holds NaN"),
    ("a missing tensor", _tensors(lambda t: t.pop("model.norm.weight")), "missing"),
    ("a tensor too many", _tensors(lambda t: t.update(extra=torch.ones(1))), "not known to the model"),
    ("another shape", _edit("config.json", intermediate_size=128), "has shape"),
    ("an index that points outside", _index("../other.safetensors"), "no safetensors file of this folder"),
    ("an index that names a pickle", _index("other.bin"), "no safetensors file of this folder"),
    ("an index of a missing shard", _index("lost.safetensors"), "names it, but it is missing"),
    ("an index that lies", _wrong_index, "does not hold the tensors"),
    ("an index that is no JSON", lambda f: ((f / WEIGHTS).unlink(), (f / INDEX).write_text("{")), "weight_map"),
    ("no tokenizer", lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json"),
    ("a tokenizer larger than the model", _edit("config.json", vocab_size=100), "the tokenizer has token"),
]


@pytest.mark.parametrize(("damage", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_whole_model_is_refused(
    source: Path, tmp_path: Path, damage: Callable[[Path], Any], words: str
) -> None:
    damage(source)
    with pytest.raises(PermanentError, match=words):
        _import(source, tmp_path)
    assert store_in(tmp_path).list("artifacts") == []


def test_a_source_that_changed_since_it_was_resolved_is_refused(source: Path, tmp_path: Path) -> None:
    before = pin(str(source), None, MODEL_SUFFIXES)
    _edit("config.json", rms_norm_eps=1.0)(source)
    with pytest.raises(PermanentError) as caught:
        _import(source, tmp_path, before)
    assert caught.value.reason == "SourceChanged"
