"""Every task family on one tiny model that was taught to answer it: items, and the same items with shuffled gold.

What the tests of integrity run on. The store, the bank and the evaluations are real; nothing is mocked.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bessemer_trainer.evals import harness
from bessemer_trainer.store import open_store
from tests.trainer.evaluation.taught import (
    ADJECTIVES,
    BRIEF,
    CHAT,
    CHOICES,
    CLOZE,
    HANDOFFS,
    JSON,
    LISTS,
    NAMES,
    PARTS,
    TOOLS,
    Taught,
    designs,
    spelled,
)  # fmt: skip
from tests.trainer.evaluation.tiny import World, write_jsonl

Items = list[dict[str, Any]]
COUNT = len(NAMES)
TASK = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc}]
"""


def rotated(*fields: str) -> Callable[[Items], Items]:
    """Give each item what is right for another one."""

    def shuffle(items: Items) -> Items:
        return [{**item, **{name: items[(k + 1) % COUNT][name] for name in fields}} for k, item in enumerate(items)]

    return shuffle


def words_mixed(items: Items) -> Items:
    """A text's gold is the order of its words."""
    random = np.random.Generator(np.random.PCG64(3))
    return [{**item, "text": " ".join(random.permutation(item["text"].split()))} for item in items]


def table_mixed(items: Items) -> Items:
    """The gold of a brief is the table of what fits: its columns, exchanged for others."""
    rows = [list(pair) for pair in zip(ADJECTIVES, PARTS, strict=True)]
    return [{**item, "verifier": {**item["verifier"], "rows": rows}} for item in items]


@dataclass(frozen=True)
class Family:
    """A task with its items. `shuffle` is absent where there is no right answer: seconds and tokens are counted."""

    task: str
    items: Items
    fields: Mapping[str, Any] = field(default_factory=dict)
    shuffle: Callable[[Items], Items] | None = None
    chance: float = 0.0
    smaller_is_better: bool = False


def lm_eval_items(folder: Path) -> Items:
    (folder / "colours.yaml").write_text(TASK)
    write_jsonl(folder / "colours.jsonl", [{"id": f"i{k}", **item} for k, item in enumerate(CHOICES)])
    return list(harness.bank_items(folder, "colours"))


def answers_rotated(items: Items) -> Items:
    """The same in an item of the harness, which keeps its document."""
    docs = rotated("answer")([item["doc"] for item in items])
    return [{**item, "doc": doc} for item, doc in zip(items, docs, strict=True)]


def families(folder: Path) -> dict[str, Family]:
    """By axis, whose names are those of the tasks, where it has one family."""
    verified = [
        {"prompt": item["prompt"], "verifier": {"kind": "contains", "answers": item["answers"]}} for item in CLOZE
    ]
    texts = [{"text": f"Design: {design}"} for design in designs()[:COUNT]]
    sessions = [{"turns": item["turns"]} for item in HANDOFFS]
    return {
        "multipleChoice": Family("multipleChoice", CHOICES, {}, rotated("answer"), 1 / 6),
        "bitsPerByte": Family("bitsPerByte", texts, {}, words_mixed, smaller_is_better=True),
        "exactMatch": Family("exactMatch", CLOZE, {}, rotated("answers"), 1 / 6),
        "chat": Family("exactMatch", CHAT, {"prompt": "chat"}, rotated("answers"), 1 / 6),
        "jsonAnswer": Family("jsonAnswer", JSON, {"maxNewTokens": 64}, rotated("answer")),
        "reasoningGym": Family("reasoningGym", spelled(), {"maxNewTokens": 16}, rotated("verifier")),
        "constraints": Family("verifiableConstraints", LISTS, {"maxNewTokens": 40}, rotated("constraints"), 1 / 6),
        "designs": Family("distinctValidNovel", [BRIEF] * COUNT, {"maxNewTokens": 24, "samples": 4}, table_mixed),
        "toolCall": Family("toolCall", TOOLS, {"maxNewTokens": 64, "metric": "call"}, rotated("tool")),
        "handoff": Family("handoff", HANDOFFS, {"maxNewTokens": 40}, rotated("payload")),
        "verified": Family("verified", verified, {"maxNewTokens": 8}, rotated("verifier"), 1 / 6),
        "latency": Family("firstTokenLatency", [{"prompt": item["prompt"]} for item in CLOZE]),
        "cost": Family("sessionCost", sessions, {"maxNewTokens": 40}, smaller_is_better=True),
        "lmEval": Family("lmEval", lm_eval_items(folder), {"metric": "acc"}, answers_rotated, 1 / 6),
    }


@dataclass(frozen=True)
class Arena:
    """A store with the taught model, the untaught one, what they score, and what the first scores on shuffled gold."""

    world: World
    families: Mapping[str, Family]
    taught: str
    untaught: str
    shuffled_bank: str
    shuffled: str

    def axes(self, names: Sequence[str]) -> list[dict[str, Any]]:
        return axes_of({name: self.families[name] for name in names})

    def samples(self, evaluation: str, axis: str) -> Items:
        path = self.world.store().fetch(evaluation) / f"samples_{axis}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def mean(self, evaluation: str, axis: str) -> float:
        return float(np.mean([sample["score"] for sample in self.samples(evaluation, axis)]))


def axes_of(found: Mapping[str, Family]) -> list[dict[str, Any]]:
    return [{"name": name, "task": family.task, **family.fields} for name, family in found.items()]


def build(taught: Taught, root: Path) -> Arena:
    """Publish both models and both banks, and measure."""
    url = f"file://{root}/store"
    store = open_store(url, root / "scratch")
    models = {}
    for name in ("taught", "untaught"):
        shutil.copytree(taught.folder / name, root / name)
        models[name] = store.publish(root / name, "checkpoint", {"name": name})
    (root / "data").mkdir()
    shutil.copy(taught.folder / "documents.jsonl", root / "data")
    data = store.publish(root / "data", "data", {"kind": "text"})
    made = families(root)
    shuffles = {name: family for name, family in made.items() if family.shuffle is not None}
    for folder, items in (
        ("bank", {name: family.items for name, family in made.items()}),
        ("mixed", {name: family.shuffle(family.items) for name, family in shuffles.items() if family.shuffle}),
    ):
        (root / folder).mkdir()
        for name, rows in items.items():
            write_jsonl(root / folder / f"{name}.gate.jsonl", [{**row, "id": f"i{k}"} for k, row in enumerate(rows)])
    bank, mixed = (store.publish(root / folder, "bank", {"name": folder}) for folder in ("bank", "mixed"))
    world = World(root, url, bank, models["untaught"], models["taught"])
    fields = {"training_data": [data]}
    results = [world.evaluate(models[name], 0, COUNT, axes=axes_of(made), **fields) for name in ("taught", "untaught")]
    shuffled = world.evaluate(models["taught"], 0, COUNT, axes=axes_of(shuffles), bank=mixed, **fields)
    return Arena(world, made, *results, mixed, shuffled)
