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
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from bessemer_api.digest import input_digest
from bessemer_api.job import RunSpec
from bessemer_api.v1alpha1.evaluation import EvaluationInputs
from bessemer_trainer.context import Context, Outcome, Progress
from bessemer_trainer.metrics import Board
from bessemer_trainer.stages import evaluate
from bessemer_trainer.store import Store, open_store

COLOURS = ["amber", "blue", "crimson", "green", "ivory", "orange", "purple", "silver"]
FACTS = 60
END = "<|endoftext|>"
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


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[END], initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    return tokenizer


def train_model(tokenizer: Tokenizer, steps: int) -> LlamaForCausalLM:
    """Memorises the facts, more of them the more steps it has."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    encoded = [[*tokenizer.encode(line).ids, 0] for line in sentences()]
    width = max(map(len, encoded))
    rows = torch.tensor([e + [0] * (width - len(e)) for e in encoded])
    labels = torch.tensor([e + [-100] * (width - len(e)) for e in encoded])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=rows, labels=labels).loss.backward()
        optimizer.step()
    return model.eval()


def save_checkpoint(folder: Path, model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


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

    def store(self) -> Store:
        return open_store(self.store_url, self.root / "scratch")

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
    tokenizer = train_tokenizer()
    bank = publish_bank(store, root / "bank", multiple_choice_items(), text_items())
    weak = publish_checkpoint(store, root / "weak", train_model(tokenizer, 15), tokenizer)
    good = publish_checkpoint(store, root / "good", train_model(tokenizer, 400), tokenizer)
    return World(root, f"file://{root}/store", bank, weak, good)
