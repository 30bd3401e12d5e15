"""A family of really trained tiny models: a common ancestor and two branches, and ways to poison a copy of one.

Nothing is mocked: plain torch trains them on made-up facts; they are published in the real store as a stage would.
"""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from bessemer_api.digest import input_digest
from bessemer_api.job import RunSpec
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_trainer.artifacts import write_checkpoint
from bessemer_trainer.context import Context, Outcome, Progress
from bessemer_trainer.metrics import Board
from bessemer_trainer.stages import merge
from bessemer_trainer.store import Store, open_store
from tests.trainer.evaluation.tiny import facts_tokenizer, sentences
from tests.trainer.tinymodel import learn_lines, llama, save_tokenizer

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Family:
    """A store with an ancestor (`base`), two branches of it, and a data artifact with held-out documents."""

    root: Path
    url: str
    base: str
    left: str
    right: str
    held_out: str

    def store(self) -> Store:
        return open_store(self.url, self.root / "scratch")

    def weights(self, digest: str) -> Weights:
        return load_file(self.store().fetch(digest) / "model.safetensors")

    def inputs(self, method: str = "slerp", **fields: Any) -> MergeInputs:
        given = {
            "parents": [self.left, self.right],
            **({"t": [{"value": [0.5]}]} if method in {"linear", "slerp", "nuslerp"} else {}),
        }
        return MergeInputs.model_validate({"method": method, **given, **fields})

    def context(self, inputs: MergeInputs, names: list[str] | None = None) -> Context:
        document = {
            "runUid": "test", "verb": "merge", "store": self.url, "inputDigest": input_digest(inputs),
            "merge": {"inputs": inputs.wire(), "names": names or []},
        }  # fmt: skip
        scratch = self.root / "scratch"
        scratch.mkdir(exist_ok=True)
        return Context(RunSpec.model_validate(document), self.store(), scratch, Progress(Board("test"), quiet=True))

    def merge(self, inputs: MergeInputs, names: list[str] | None = None) -> Outcome:
        return merge.run(self.context(inputs, names))

    def poisoned(self, name: str, poison: Callable[[Path], None], digest: str = "") -> str:
        """A copy of the right branch after `poison` changed its files, published under a digest of its own."""
        folder = self.root / f"poisoned-{name}"
        shutil.copytree(self.store().fetch(digest or self.right), folder)
        (folder / "manifest.json").unlink()
        poison(folder)
        return self.store().publish(folder, "checkpoint", {"poison": name})


def edit_json(file: str, **values: Any) -> Callable[[Path], None]:
    """Set keys of a JSON file; None removes one."""

    def poison(folder: Path) -> None:
        document = json.loads((folder / file).read_bytes()) | values
        (folder / file).write_text(json.dumps({key: value for key, value in document.items() if value is not None}))

    return poison


def edit_weights(change: Callable[[Weights], None]) -> Callable[[Path], None]:
    """Change the tensors in place."""

    def poison(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return poison


def numbers(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    return tensor.double().numpy()


def build_family(root: Path) -> Family:
    store = open_store(f"file://{root}/store", root / "scratch")
    tokenizer = facts_tokenizer()
    lines = sentences()
    base = learn_lines(llama(tokenizer, width=32, layers=3), tokenizer, lines, 60)
    digests = {"base": publish(store, root / "base", base, tokenizer)}
    for name, part in (("left", lines[:30]), ("right", lines[30:])):
        branch = learn_lines(copy.deepcopy(base), tokenizer, part, 30)
        digests[name] = publish(store, root / name, branch, tokenizer)
    held = root / "held"
    held.mkdir()
    (held / "documents.jsonl").write_text("")
    (held / "holdout.jsonl").write_text(
        "".join(json.dumps({"id": str(n), "text": line}) + "\n" for n, line in enumerate(lines[20:40]))
    )
    return Family(root, f"file://{root}/store", **digests, held_out=store.publish(held, "data", {}))


def publish(store: Store, folder: Path, model: LlamaForCausalLM, tokenizer: Any, dtype: Any = torch.float32) -> str:
    folder.mkdir(parents=True)
    weights = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    parameters = write_checkpoint(folder, model, weights, dtype)
    save_tokenizer(folder, tokenizer, chat_template=TEMPLATE)
    return store.publish(folder, "checkpoint", {"parameters": parameters})
