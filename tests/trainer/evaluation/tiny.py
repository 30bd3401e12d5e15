"""A tiny language model that was really trained, a bank about what it learned, and a store that holds both.

Nothing is mocked: a byte-level BPE tokenizer and a two-layer Llama are trained on made-up facts with plain torch, on
one thread; the artifacts are published through the real store.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from bessemer_api.digest import input_digest
from bessemer_api.job import RunSpec
from bessemer_api.v1alpha1.evaluation import EvaluationInputs
from bessemer_trainer.context import Context, Outcome, Progress
from bessemer_trainer.metrics import Board
from bessemer_trainer.stages import evaluate
from bessemer_trainer.store import Store, open_store
from tests.trainer.tinymodel import learn_lines, llama, save_checkpoint, train_tokenizer

COLOURS = ["amber", "blue", "crimson", "green", "ivory", "orange", "purple", "silver"]
FACTS = 60
ITEMS = 120
AXES = [
    {"name": "knowledge", "task": "multipleChoice", "clusterBy": "fact"},
    {"name": "generalLoss", "task": "bitsPerByte"},
]


def names() -> list[str]:
    syllables = ["ka", "lo", "mi", "ru", "se", "to", "va", "ze", "pi", "do"]
    return [a + b + c for a in syllables for b in syllables for c in syllables][::13][:FACTS]


def colour_of(index: int) -> str:
    return COLOURS[int(np.random.Generator(np.random.PCG64(index)).integers(len(COLOURS)))]


def sentences() -> list[str]:
    return [f"The colour of {name} is {colour_of(i)}." for i, name in enumerate(names())]


def multiple_choice_items() -> list[dict[str, Any]]:
    """Two items a fact, with different distractors and order."""
    items = []
    for k in range(ITEMS):
        fact = k % FACTS
        generator = np.random.Generator(np.random.PCG64(1000 + k))
        right = colour_of(fact)
        wrong = [c for c in COLOURS if c != right]
        choices = [" " + c for c in [right, *generator.choice(wrong, 3, replace=False).tolist()]]
        generator.shuffle(choices)
        prompt = f"The colour of {names()[fact]} is"
        answer = choices.index(" " + right)
        items.append({"id": f"k{k}", "prompt": prompt, "choices": choices, "answer": answer, "fact": f"f{fact}"})
    return items


def text_items() -> list[dict[str, Any]]:
    return [{"id": f"t{k}", "text": sentences()[k % FACTS]} for k in range(ITEMS)]


def facts_tokenizer() -> Tokenizer:
    return train_tokenizer(sentences(), 400, min_frequency=2)


def taught_model(tokenizer: Tokenizer, steps: int) -> LlamaForCausalLM:
    """Memorises the facts, more of them the more steps it has."""
    return learn_lines(llama(tokenizer), tokenizer, sentences(), steps)


def write_jsonl(path: Path, items: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


@dataclass(frozen=True)
class World:
    """A store with a bank and three checkpoints: `weak` and `good` by training, `broken` with a NaN."""

    root: Path
    store_url: str
    bank: str
    weak: str
    good: str

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def store(self) -> Store:
        return open_store(self.store_url, self.scratch)

    def context(self, **fields: Any) -> Context:
        """A context for one run, with a fresh store object (nothing counts as verified already)."""
        spec = RunSpec.model_validate(
            {"runUid": "test", "store": self.store_url, "inputDigest": "sha256:" + "0" * 64, **fields}
        )
        scratch = self.root / "scratch"
        scratch.mkdir(exist_ok=True)
        return Context(spec, self.store(), scratch, Progress(Board("test"), quiet=True))

    def inputs(self, checkpoint: str, start: int, end: int, **more: Any) -> EvaluationInputs:
        fields = {"checkpoint": checkpoint, "bank": self.bank, "axes": AXES, "part": "gate", "start": start, "end": end}
        return EvaluationInputs.model_validate(fields | more)

    def evaluate(self, checkpoint: str, start: int = 0, end: int = ITEMS, **more: Any) -> str:
        inputs = self.inputs(checkpoint, start, end, **more)
        outcome: Outcome = evaluate.run(
            self.context(verb="evaluate", evaluate=inputs.wire(), inputDigest=input_digest(inputs))
        )
        assert outcome.output_digest is not None
        return outcome.output_digest

    def means(self, evaluation: str) -> dict[str, float]:
        """Mean score by axis, from the stored samples."""
        found = {}
        for path in self.store().fetch(evaluation).glob("samples_*.jsonl"):
            scores = [json.loads(line)["score"] for line in path.read_text().splitlines()]
            found[path.stem.removeprefix("samples_")] = sum(scores) / len(scores)
        return found


def publish_bank(store: Store, folder: Path, choices: Sequence[dict[str, Any]], texts: Sequence[dict[str, Any]]) -> str:
    folder.mkdir(parents=True)
    for part in ("dev", "gate"):
        write_jsonl(folder / f"knowledge.{part}.jsonl", choices)
        write_jsonl(folder / f"generalLoss.{part}.jsonl", texts)
    return store.publish(folder, "bank", {"items": len(choices)})


def publish_checkpoint(store: Store, folder: Path, model: LlamaForCausalLM, tokenizer: Tokenizer) -> str:
    folder.mkdir(parents=True)
    save_checkpoint(folder, model, tokenizer)
    return store.publish(folder, "checkpoint", {"parameters": model.num_parameters()})


def build_world(root: Path) -> World:
    store = open_store(f"file://{root}/store", root / "scratch")
    tokenizer = facts_tokenizer()
    bank = publish_bank(store, root / "bank", multiple_choice_items(), text_items())
    weak = publish_checkpoint(store, root / "weak", taught_model(tokenizer, 15), tokenizer)
    good = publish_checkpoint(store, root / "good", taught_model(tokenizer, 400), tokenizer)
    return World(root, f"file://{root}/store", bank, weak, good)
