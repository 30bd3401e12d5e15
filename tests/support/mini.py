"""A tiny but real pipeline: tokenizer, pretraining, continued pretraining, evaluation, gate, channel.

For tests that need a whole pipeline in seconds of training. The text is a chain of words in which each word has a few
likely followers, so that a few steps of training show on held-out text. It must not start anything.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from ruamel.yaml import YAML

from tests.api.documents import Document, edited

NAME = "mini"
CHANNEL = "prod"
DOCUMENTS = 300
ITEMS = 120
STEPS = 16
TRAIN = {"maxSteps": STEPS, "globalBatchTokens": 512, "precision": "fp32"}
TRAIN_PROFILE = "gpu-2"
"""Two ranks a node on the test cluster; a local run has one profile under every name, which has two as well."""
# Both ranks hold parts of everything, and documents share sequences.
RANKS = {"zeroStage": 3, "microBatchSize": 4}
TEXT = (
    "cat dog house tree river mountain blue green old young runs jumps sleeps eats finds sees the a on under near with"
    " of iron carbon nickel alloy heat melt cast roll steel slag ore blast furnace converter"
)
WORDS = TEXT.split()

LEARNING_RATE = "spec.stages.2.train.learningRate"
"""Where the learning rate of the continued pretraining stands."""
WORSE_RATE = 1e-5
"""With this one the candidate learns next to nothing more, so it can not win against one that did."""


@dataclass(frozen=True, slots=True)
class Mini:
    """A folder with the data of a mini pipeline, and its file."""

    folder: Path

    @property
    def file(self) -> Path:
        """The pipeline, as a user would apply it."""
        return self.folder / "pipeline.yaml"

    @property
    def store(self) -> Path:
        """Where the pipeline keeps its artifacts, unless another store was asked for."""
        return self.folder / "store"

    def build(self) -> Document:
        """The pipeline, before any edit."""
        return build_pipeline(self.folder)

    def write(self, edits: Mapping[str, Any] | None = None, file: str = "pipeline.yaml") -> Path:
        """Write the pipeline with these edits, by dotted path, into a file of the folder; the file.

        Keys stay in their order, as in a file that a person writes; an API server sorts them.
        """
        target = self.folder / file
        yaml = YAML(typ="safe")
        yaml.sort_base_mapping_type_on_output = False
        with target.open("w") as stream:
            yaml.dump(edited(self.build(), edits or {}), stream)
        return target


def write_mini(folder: Path, edits: Mapping[str, Any] | None = None, items: int = ITEMS) -> Mini:
    """Write data and pipeline.yaml into a folder; the same files for the same arguments, always."""
    mini = Mini(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "texts.jsonl", [{"id": f"text-{n}", "text": text} for n, text in enumerate(texts(DOCUMENTS))])
    held = [{"id": f"item-{n}", "text": text} for n, text in enumerate(texts(items, seed=1))]
    write_rows(folder / "held.jsonl", held)
    mini.write(edits)
    return mini


def build_pipeline(folder: Path) -> Document:
    """The pipeline over the data in `folder`. Its gate passes: the candidate trained on, on the same kind of text."""
    shape = {"hiddenSize": 32, "intermediateSize": 64, "layers": 2, "heads": 2, "maxPositions": 64}
    data = {"mixture": [{"ref": "texts"}], "sequenceLength": 64}
    common = {"data": data, "deepspeed": RANKS, "checkpoint": {"everySteps": 4}}
    stages = [
        {"name": "words", "method": "tokenizer", "tokenizer": {"vocabularySize": 300}, "data": data},
        {"name": "pre", "method": "pretrain", "model": shape, "train": {"learningRate": 0.01, **TRAIN}, **common},
        {"name": "cpt", "method": "cpt", "train": {"learningRate": 0.01, **TRAIN}, **common},
    ]
    bank = {"name": "bank", "dev": 20, "gate": 100, "tasks": {"generalLoss": {"uri": f"file://{folder}/held.jsonl"}}}
    gate = {
        "name": "release",
        "baseline": {"channel": CHANNEL, "orElse": {"stage": "pre"}},
        "looks": [100],
        "axes": [{"name": "generalLoss", "winBy": 0, "notWorseThan": 0.1}],
    }
    prepare = {"decontaminate": {"against": ["bank"]}}
    spec = {
        "store": f"file://{folder}/store",
        "profiles": {"train": TRAIN_PROFILE},
        "seed": 3,
        "data": {"texts": {"sources": [{"uri": f"file://{folder}/texts.jsonl"}], "prepare": prepare}},
        "stages": stages,
        "evaluation": {"banks": [bank], "axes": [{"name": "generalLoss", "task": "bitsPerByte"}]},
        "gates": [gate],
        "promotion": {"candidates": ["cpt"], "gate": "release", "channels": [{"name": CHANNEL}]},
    }
    document = {"apiVersion": "bessemer.dev/v1alpha1", "kind": "AdaptationPipeline", "metadata": {"name": NAME}}
    return {**document, "spec": spec}


def texts(count: int, seed: int = 0) -> list[str]:
    """Documents of 20 to 60 words; the followers of a word are the same for every seed."""
    followers = {word: Random(word).sample(WORDS, 4) for word in WORDS}
    random = Random(seed)
    documents = []
    for _ in range(count):
        words = [random.choice(WORDS)]
        while len(words) < 20 or (len(words) < 60 and random.random() < 0.95):
            words.append(random.choice(followers[words[-1]]))
        documents.append(" ".join(words) + ".")
    return documents


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
