"""A tiny world for tests of methods that start from a checkpoint: a pretrained model, and questions with answers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from bessemer_trainer.store import Store
from tests.trainer.data.world import World
from tests.trainer.support import (
    WORDS,
    Inputs,
    MixtureOptions,
    Pod,
    make_inputs,
    run_digest,
    store_in,
    texts,
    training_spec,
)
from tests.trainer.zygote import Zygote

LENGTH = 32
QUESTIONS = [
    {"messages": [{"role": "user", "content": word}, {"role": "assistant", "content": after}]}
    for word, after in pairwise(WORDS)
]
"""Each word is answered by the one that follows it: a tiny model learns that by heart."""


@dataclass
class Talk:
    """A store with a pretrained checkpoint, and data, mixtures and runs that start from it."""

    folder: Path
    zygote: Zygote
    inputs: Inputs
    start: str

    @cached_property
    def world(self) -> World:
        return World(self.folder)

    @property
    def store(self) -> Store:
        return self.inputs.store

    def data(self, name: str, rows: Iterable[Mapping[str, Any]], kind: str, held: Iterable[Any] = ()) -> str:
        """A data artifact as `prepare` leaves it."""
        target = self.folder / "data" / name
        target.mkdir(parents=True)
        count = 0
        for file, lines in (("documents.jsonl", rows), ("holdout.jsonl", held)):
            numbered = [json.dumps({"id": f"{file[0]}{n}", **row}) + "\n" for n, row in enumerate(lines)]
            (target / file).write_text("".join(numbered))
            count = count or len(numbered)
        return self.store.publish(target, "data", {"documents": count, "kind": kind})

    def examples(self, name: str, start: str = "", **mixture: Any) -> str:
        """A mixture of the questions, every fourth of which is held out too."""
        data = self.data(name, QUESTIONS, "messages", QUESTIONS[::4])
        inputs = {
            "parts": [{"name": "qa", "digest": data}],
            "sequenceLength": LENGTH,
            "tokenizer": start or self.start,
            "format": "examples",
            "chatTemplate": "roles",
            **mixture,
        }
        outcome = self.world.run("stage", "mixture", mixture=inputs)
        return str(outcome.output_digest)

    def pod(self, name: str, method: str, data: str, ranks: int = 1, **changes: Any) -> Pod:
        """A training run; `train` and other fields of a RunSpec in `changes`."""
        train = {"learningRate": 5e-3, "maxSteps": 6, "globalBatchTokens": 4 * LENGTH, **changes.pop("train", {})}
        stage = {"method": method, "model": None, "startFrom": self.start, "data": data, **changes.pop("stage", {})}
        spec = training_spec(self.inputs, name, train=train, stage=stage, worldSize=ranks, **changes)
        return Pod(self.folder / name, spec, ranks)

    def run(self, name: str, method: str, data: str, ranks: int = 1, **changes: Any) -> Pod:
        pod = self.pod(name, method, data, ranks, **changes)
        code, stderr = pod.run(self.zygote)
        assert code == 0, stderr
        return pod

    def runs(self, name: str) -> Path:
        return Path(self.inputs.url.removeprefix("file://")) / "runs" / run_digest(name)[7:]


def make_talk(folder: Path, zygote: Zygote, **shape: Any) -> Talk:
    """A model that saw a little text; `shape` changes what it is made of."""
    inputs = make_inputs(folder, options=MixtureOptions(holdout=texts(3, seed=9)))
    spec = training_spec(inputs, "start", train={"maxSteps": 4})
    spec["stage"]["model"] = {**spec["stage"]["model"], **shape}
    pod = Pod(folder / "start", spec)
    code, stderr = pod.run(zygote)
    assert code == 0, stderr
    return Talk(
        folder,
        zygote,
        Inputs(store_in(folder), inputs.url, inputs.tokenizer, inputs.mixture),
        str(pod.report().output_digest),
    )
