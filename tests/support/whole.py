"""The mini pipeline grown to everything that the demo does: sft, orpo and dpo as branches, a merge with its control,
two axes, a nominee chosen on dev items, a gate, a channel.

As small as it can be while each part does real work. It must not start anything.
"""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from tests.api.documents import Document
from tests.support.mini import WORDS, Mini, build_pipeline, texts, write_rows

ROWS = 120
DEV, GATE = 40, 100
ITEMS = DEV + GATE + 10
BRANCHES = ("orpo", "dpo")
PAIRS = {"maxSteps": 6, "globalBatchExamples": 16, "precision": "fp32"}
SMALL = {"zeroStage": 0, "microBatchSize": 4}
"""Two ranks, as every profile has here and every local run; `cpt` keeps the ZeRO-3 of the mini pipeline."""
RETRAINED = "spec.stages.4"
"""The stage `orpo`, which the edit trains again."""
EDITS: Mapping[str, Any] = {
    f"{RETRAINED}.train.learningRate": 1e-7,
    "spec.merges": [],
    "spec.promotion.candidates": ["orpo"],
}
"""With this rate `orpo` stays what sft was, so it can not win against what was promoted."""


def write_whole(folder: Path, edits: Mapping[str, Any] | None = None) -> Mini:
    """Write data and pipeline.yaml into a folder; the same files for the same folder, always."""
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(2)
    write_rows(folder / "texts.jsonl", [{"id": f"text-{n}", "text": text} for n, text in enumerate(texts(300))])
    write_rows(folder / "notes.jsonl", [note(f"note-{n}", text) for n, text in enumerate(texts(ROWS, seed=3))])
    tastes = [taste(f"taste-{n}", text, random) for n, text in enumerate(texts(ROWS, seed=4))]
    write_rows(folder / "tastes.jsonl", tastes)
    held = [{"id": f"held-{n}", "text": text} for n, text in enumerate(texts(ITEMS, seed=1))]
    write_rows(folder / "held.jsonl", held)
    write_rows(folder / "next.jsonl", [choice(f"next-{n}", text, random) for n, text in enumerate(texts(ITEMS, 5))])
    whole = Whole(folder)
    whole.write(edits)
    return whole


class Whole(Mini):
    """A folder with the data of the whole pipeline, and its file."""

    __slots__ = ()

    def build(self) -> Document:
        return build_whole(self.folder)


def note(name: str, text: str) -> dict[str, Any]:
    """An example: the first words ask for the others."""
    prompt, rest = halves(text, 6)
    return {"id": name, "prompt": prompt, "completion": rest}


def taste(name: str, text: str, random: Random) -> dict[str, Any]:
    """A pair: how a text goes on is preferred to words in any order."""
    prompt, rest = halves(text, 6)
    noise = " ".join(random.choice(WORDS) for _ in rest.split())
    return {"id": name, "prompt": prompt, "chosen": rest, "rejected": f" {noise}."}


def choice(name: str, text: str, random: Random) -> dict[str, Any]:
    """An item: which of four words follows? One does; the others never do."""
    prompt, rest = halves(text, 15)
    last, right = prompt.split()[-1], rest.split()[0].strip(".")
    wrong = random.sample(sorted(set(WORDS) - {*Random(last).sample(WORDS, 4), right}), 3)
    choices = [right, *wrong]
    random.shuffle(choices)
    return {"id": name, "prompt": prompt, "choices": [f" {word}" for word in choices], "answer": choices.index(right)}


def halves(text: str, words: int) -> tuple[str, str]:
    """The first words, and the rest with the space before it."""
    parts = text.split(" ")
    return " ".join(parts[:words]), " " + " ".join(parts[words:])


def build_whole(folder: Path) -> Document:
    """The pipeline over the data in `folder`: it promotes one of three candidates."""
    document = build_pipeline(folder)
    spec = document["spec"]
    rules = spec["data"]["texts"]["prepare"]
    for name, kind in (("notes", "promptCompletion"), ("tastes", "preference")):
        spec["data"][name] = {"kind": kind, "sources": [{"uri": f"file://{folder}/{name}.jsonl"}], "prepare": rules}
    words, pre, cpt = spec["stages"]
    sft = {**stage("sft", "cpt", "notes"), "train": {**pre["train"], "learningRate": 0.003, "maxSteps": 8}}
    branches = [{**stage(name, "sft", "tastes"), "train": {"learningRate": 0.001, **PAIRS}} for name in BRANCHES]
    spec["stages"] = [words, {**pre, "deepspeed": SMALL}, cpt, sft, *branches]
    merge = {
        "name": "slerp",
        "method": "slerp",
        "parents": [{"stage": name} for name in BRANCHES],
        "t": [{"value": [0.5]}],
    }
    spec["merges"] = [{**merge, "controls": ["linear"]}]
    tasks = {
        axis: {"uri": f"file://{folder}/{file}.jsonl"} for axis, file in (("generalLoss", "held"), ("next", "next"))
    }
    bank = {"name": "bank", "dev": DEV, "gate": GATE, "tasks": tasks}
    axes = [{"name": "generalLoss", "task": "bitsPerByte"}, {"name": "next", "task": "multipleChoice"}]
    spec["evaluation"] = {"banks": [bank], "axes": axes}
    [gate] = spec["gates"]
    gate["axes"].append({"name": "next", "notWorseThan": 0.12})
    gate["compose"] = {"atLeast": 1}
    gate["vetoes"] = ["contamination", "nonFiniteWeights"]
    spec["promotion"]["candidates"] = ["slerp", *BRANCHES]
    return document


def stage(name: str, origin: str, data: str) -> dict[str, Any]:
    """A stage of alignment."""
    return {
        "name": name, "method": name, "from": origin, "chatTemplate": "none",
        "data": {"mixture": [{"ref": data}], "sequenceLength": 64}, "deepspeed": SMALL,
    }  # fmt: skip
