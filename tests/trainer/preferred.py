"""A tiny language with a taste: what the tests of preference methods and of grpo train on.

Sentences go up or down an alphabet of words, both equally often, so that a pretrained model has no taste of its own.
People prefer up. Nothing in a prompt tells which way the answer goes: only training on preferences can.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bessemer_trainer.store import Store
from bessemer_trainer.token_cache import Vocabulary, load_vocabulary
from tests.trainer.support import (
    WORDS,
    Inputs,
    MixtureOptions,
    Pair,
    Pod,
    make_mixture,
    make_tokenizer,
    run_digest,
    store_in,
    training_spec,
    write_pairs,
)
from tests.trainer.zygote import Zygote

LENGTH = 48


def sentence(start: int, step: int, words: int) -> str:
    return " ".join(WORDS[(start + step * n) % len(WORDS)] for n in range(words))


def documents(count: int) -> list[str]:
    """Half of them go up, half go down; a comma stands where a prompt ends."""
    random = np.random.default_rng(0)
    made = []
    for n in range(count):
        prompt = sentence(int(random.integers(14)), int(random.choice([-1, 1])), int(random.integers(2, 6)))
        answer = sentence(int(random.integers(14)), 1 if n % 2 else -1, int(random.integers(3, 8)))
        made.append(f"{prompt}, {answer}")
    return made


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Preferences: the chosen answer goes up, the rejected one down; their lengths say nothing."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        prompt = sentence(int(random.integers(14)), int(random.choice([-1, 1])), int(random.integers(2, 6))) + ","
        start, lengths = int(random.integers(14)), random.integers(3, 8, size=2)
        chosen, rejected = (" " + sentence(start, way, int(words)) for way, words in zip((1, -1), lengths, strict=True))
        made.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return made


def encoded(row: Mapping[str, str], vocabulary: Vocabulary) -> Pair:
    prompt, *answers = (vocabulary.tokenizer.encode(row[part]).ids for part in ("prompt", "chosen", "rejected"))
    return prompt, [*answers[0], vocabulary.end], [*answers[1], vocabulary.end]


def make_pairs(store: Store, folder: Path, tokenizer: str, parts: Sequence[Sequence[Pair]]) -> str:
    """Digest of a mixture of pairs: those that are trained on, and those that are held out."""
    folder.mkdir(parents=True)
    for held_out, pairs in enumerate(parts):
        write_pairs(folder, pairs, held_out=bool(held_out))
    return store.publish(folder, "mixture", {"tokenizer": tokenizer, "sequenceLength": LENGTH, "format": "pairs"})


def make_prompts(store: Store, folder: Path, tokenizer: str, parts: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Digest of a mixture of prompts: rows with their tokens, and held-out ones."""
    folder.mkdir(parents=True)
    for name, lines in zip(("prompts", "holdout-prompts"), parts, strict=True):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return store.publish(folder, "mixture", {"tokenizer": tokenizer, "sequenceLength": LENGTH, "format": "prompts"})


@dataclass(frozen=True)
class World:
    """A pretrained model without a taste, and the preferences of people."""

    inputs: Inputs
    folder: Path
    base: str
    pairs: str
    vocabulary: Vocabulary
    zygote: Zygote

    def prompts(self, count: int, seed: int, **fields: Any) -> list[dict[str, Any]]:
        return [
            {
                "id": str(number),
                "prompt": row["prompt"],
                "tokens": self.vocabulary.tokenizer.encode(row["prompt"]).ids,
                **fields,
            }
            for number, row in enumerate(rows(count, seed))
        ]

    def spec(self, name: str, method: str, train: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
        document = training_spec(self.inputs, name, **spec)
        stage = {"method": method, "startFrom": self.base, "data": self.pairs, "seed": 3, **spec.get("stage", {})}
        # A constant rate: the first steps of a short run are those of a long one.
        fixed = {"schedule": "constant", "warmupRatio": 0.0, "precision": "fp32"}
        hyper = {"maxSteps": 20, "globalBatchExamples": 8, **fixed, **train}
        return {**document, "stage": {**stage, "train": hyper}}

    def pod(self, name: str, method: str, train: Mapping[str, Any], ranks: int = 1, **spec: Any) -> Pod:
        document = self.spec(name, method, train, worldSize=ranks, **{"deepspeed": {"microBatchSize": 4}, **spec})
        return Pod(self.folder / name, document, ranks)

    def trained(self, name: str, method: str, train: Mapping[str, Any], ranks: int = 1, **spec: Any) -> Pod:
        """A pod that has ended well."""
        pod = self.pod(name, method, train, ranks, **spec)
        code, stderr = pod.run(self.zygote)
        assert code == 0, stderr
        return pod

    def run_folder(self, name: str) -> Path:
        return Path(self.inputs.url.removeprefix("file://")) / "runs" / run_digest(name)[7:]


def make_world(folder: Path, zygote: Zygote) -> World:
    store = store_in(folder)
    tokenizer = make_tokenizer(store, folder)
    mixture = make_mixture(store, folder, tokenizer, documents(600), MixtureOptions(length=LENGTH, packing=False))
    inputs = Inputs(store, f"file://{folder}/store", tokenizer, mixture)
    spec = training_spec(
        inputs, "base", {"maxSteps": 60, "globalBatchTokens": 16 * LENGTH, "learningRate": 1e-2},
        deepspeed={"microBatchSize": 16},
    )  # fmt: skip
    pod = Pod(folder / "base", spec, 1)
    code, stderr = pod.run(zygote)
    assert code == 0, stderr
    vocabulary = load_vocabulary(store.fetch(tokenizer))
    parts = [[encoded(row, vocabulary) for row in rows(*size)] for size in ((96, 1), (60, 2))]
    pairs = make_pairs(store, folder / "pairs", tokenizer, parts)
    return World(inputs, folder, str(pod.report().output_digest), pairs, vocabulary, zygote)
