"""A tiny model that was really taught to answer: facts as cloze, JSON, tool calls, lists, hand-offs, chats and designs.

Trained with plain torch on the completions alone, on one thread. `taught` knows its material, `untaught` has the same
shape and tokenizer and saw one step. Nothing is mocked.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from bessemer_trainer.chat import NAMED
from bessemer_trainer.evals.subject import Subject, load_subject
from tests.trainer.evaluation.tiny import END, names, save_checkpoint

COLOURS = ["amber", "blue", "green", "ivory", "red", "silver"]
NAMES = names()[:12]
ADJECTIVES = ["light", "hard", "warm", "slow", "round", "flat"]
PARTS = ["gear", "spring", "lever", "wheel", "blade", "valve"]
STEPS = 500


def colour_of(name: str) -> str:
    return COLOURS[NAMES.index(name) * 5 % 7 % 6]


def json_of(name: str) -> str:
    return json.dumps({"colour": colour_of(name), "name": name})


def call_of(name: str) -> dict[str, Any]:
    return {"name": "paint", "arguments": {"item": name, "colour": colour_of(name)}}


def designs() -> list[str]:
    """What the designs of the training data say: a part of all that could be said."""
    random = np.random.Generator(np.random.PCG64(3))
    every = [
        f"A {a} {p} with a {b} {q}" for a in ADJECTIVES for p in PARTS for b in ADJECTIVES for q in PARTS if p != q
    ]
    return [every[i] for i in random.choice(len(every), 72, replace=False)]


def lessons() -> list[tuple[str, str]]:
    """Prompts with the completion that is learned."""
    rows = []
    for name in NAMES:
        colour = colour_of(name)
        rows += [
            (f"The colour of {name} is", f" {colour}"),
            (f"JSON of {name}:", f" {json_of(name)}"),
            (f"Call for {name}:", f" {json.dumps(call_of(name))}"),
            (f"List {name}:", f"\n- {colour}\n- {name}\nEnd"),
            (f"Note {name} {colour}.\n", "noted"),
            (f"Note {name} {colour}.\nnoted\nForm?\n", json_of(name)),
            (f"Question: colour of {name}?\nAnswer:", f" {colour}"),
        ]
    return rows + [("Design:", f" {design}") for design in designs()]


def train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([a + b for a, b in lessons()], trainer)
    return tokenizer


def train_model(tokenizer: Tokenizer, steps: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    encoded = [(tokenizer.encode(a).ids, [*tokenizer.encode(b).ids, 0]) for a, b in lessons()]
    encoded.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    batches = [encoded[i : i + 32] for i in range(0, len(encoded), 32)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, k / 20) * (1 - k / (steps + 1)))
    random = np.random.Generator(np.random.PCG64(1))
    for step in range(steps):
        if step % len(batches) == 0:
            order = random.permutation(len(batches))
        batch = batches[order[step % len(batches)]]
        width = max(len(a) + len(b) for a, b in batch)
        rows = torch.tensor([[*a, *b, *[0] * (width - len(a) - len(b))] for a, b in batch])
        labels = torch.tensor([[*[-100] * len(a), *b, *[-100] * (width - len(a) - len(b))] for a, b in batch])
        optimizer.zero_grad()
        model(input_ids=rows, labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@dataclass(frozen=True)
class Taught:
    """Two subjects of one shape, and the designs that the taught one was trained on, as prepared data."""

    folder: Path
    taught: Subject
    untaught: Subject


def build(folder: Path) -> Taught:
    tokenizer = train_tokenizer()
    rows = [{"id": str(i), "text": text} for i, text in enumerate(designs())]
    documents = folder / "documents.jsonl"
    documents.write_text("".join(json.dumps(row) + "\n" for row in rows))
    subjects = []
    for name, steps in (("taught", STEPS), ("untaught", 1)):
        (folder / name).mkdir()
        save_checkpoint(folder / name, train_model(tokenizer, steps), tokenizer)
        (folder / name / "chat_template.jinja").write_text(NAMED["roles"])
        subjects.append(load_subject(folder / name, "fp32", 5, [(documents, "text")]))
    return Taught(folder, *subjects)
