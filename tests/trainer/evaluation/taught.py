"""A tiny model that was really taught to answer: facts as cloze, JSON, tool calls, lists, hand-offs, chats and designs.

Trained with plain torch on the completions alone, on one thread. `taught` knows its material, `untaught` has the same
shape and tokenizer and saw one step. Nothing is mocked.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from bessemer_trainer.chat import NAMED
from bessemer_trainer.evals import gym
from bessemer_trainer.evals.subject import Subject, load_subject
from tests.trainer.evaluation.tiny import names
from tests.trainer.tinymodel import learn_answers, llama, save_checkpoint, train_tokenizer

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
    rows += [(item["prompt"], f" {item['answer']}") for item in spelled()]
    return rows + [("Design:", f" {design}") for design in designs()]


def train_model(tokenizer: Tokenizer, steps: int) -> LlamaForCausalLM:
    return learn_answers(llama(tokenizer, positions=128), tokenizer, lessons(), steps)


# --- items about what was taught --------------------------------------------------------------------------------

CLOZE = [{"prompt": f"The colour of {name} is", "answers": [colour_of(name)]} for name in NAMES]
CHAT = [{"prompt": f"colour of {name}?", "answers": [colour_of(name)]} for name in NAMES]
JSON = [{"prompt": f"JSON of {n}:", "answer": {"colour": colour_of(n), "name": n}} for n in NAMES]
TOOLS = [{"prompt": f"Call for {name}:", "tool": call_of(name)} for name in NAMES]
LISTS = [
    {
        "prompt": f"List {name}:",
        "constraints": [
            {"type": "bullets", "min": 2, "max": 2},
            {"type": "keywords", "words": [colour_of(name)]},
            {"type": "endsWith", "text": "End"},
        ],
    }
    for name in NAMES
]
HANDOFFS = [
    {"turns": [f"Note {n} {colour_of(n)}.", "Form?"], "payload": {"colour": colour_of(n), "name": n}} for n in NAMES
]
CHOICES = [
    {
        "prompt": f"The colour of {name} is",
        "choices": [f" {colour}" for colour in COLOURS],
        "answer": COLOURS.index(colour_of(name)),
    }
    for name in NAMES
]
BRIEF = {
    "prompt": "Design:",
    "constraints": [{"type": "length", "unit": "words", "min": 6, "max": 8}],
    "verifier": {
        "kind": "relation",
        "pattern": r"A (\w+) \w+ with a (\w+) \w+",
        "rows": [list(pair) for pair in itertools.product(ADJECTIVES, repeat=2)],
    },
}


def spelled() -> list[dict[str, Any]]:
    """Items of reasoning-gym: words to be spelled backward."""
    return list(
        gym.items(["spell_backward"], {"spell_backward": {"min_word_len": 3, "max_word_len": 4}}, 5, len(NAMES))
    )


@dataclass(frozen=True)
class Taught:
    """Two subjects of one shape, and the designs that the taught one was trained on, as prepared data."""

    folder: Path
    taught: Subject
    untaught: Subject


def build(folder: Path) -> Taught:
    tokenizer = train_tokenizer((a + b for a, b in lessons()), 420)
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
