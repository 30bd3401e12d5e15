"""A store, sources and runs of data stages for the tests of this folder. Everything is real; nothing is mocked."""

import importlib
import json
import random
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from bessemer_api.job import RunSpec
from bessemer_trainer.context import Context, Outcome, Progress
from bessemer_trainer.metrics import Board
from bessemer_trainer.store import open_store

_NOUNS = (
    "river",
    "copper",
    "engine",
    "garden",
    "senate",
    "rainfall",
    "protein",
    "harbour",
    "window",
    "theorem",
    "market",
    "glacier",
    "novel",
    "bridge",
)
_VERBS = (
    "shapes",
    "follows",
    "limits",
    "explains",
    "divides",
    "supports",
    "replaces",
    "measures",
    "crosses",
    "repairs",
)
_PLACES = ("valley", "laboratory", "village", "archive", "coast", "factory", "library", "mountain", "court", "station")


class World:
    """A folder with sources, a store and scratch space."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"file://{root}/store"
        self._runs = 0

    def write(self, name: str, rows: Iterable[dict[str, Any] | str]) -> str:
        """A JSON Lines file; strings are written as they are. Its URI."""
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        return self.write_bytes(name, "".join(line + "\n" for line in lines).encode())

    def write_bytes(self, name: str, data: bytes) -> str:
        path = self.root / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    def run(self, verb: str, module: str, seed: int = 0, **task: Any) -> Outcome:
        """Run a stage in scratch space of its own."""
        self._runs += 1
        scratch = self.root / f"scratch-{self._runs}"
        body = {"stage": {"method": module, "seed": seed, **task}} if verb == "stage" else {verb: task}
        spec = RunSpec.model_validate(
            {"runUid": "test", "verb": verb, "store": self.url, "inputDigest": "sha256:" + "0" * 64, **body}
        )
        context = Context(spec, open_store(self.url, scratch), scratch, Progress(Board(module), quiet=True))
        outcome = importlib.import_module(f"bessemer_trainer.stages.{module}").run(context)
        assert isinstance(outcome, Outcome)
        return outcome

    def resolve(self, **task: Any) -> Any:
        return self.run("resolve", "resolve", **task).resolve

    def prepare(self, uris: list[str], rules: dict[str, Any] | None = None, **inputs: Any) -> "Data":
        """Resolve and prepare one data set."""
        sources = [{"uri": uri} for uri in uris]
        content = self.resolve(data={"set": sources}).contents["data/set"]
        task = {"sources": sources, "content": content, "rules": rules or {}, **inputs}
        outcome = self.run("stage", "prepare", prepare=task)
        return Data(self.folder(outcome), outcome)

    def bank(self, uri: str, dev: int, gate: int, seed: int = 0, **inputs: Any) -> Outcome:
        """Resolve and make a bank with the one axis `knowledge`."""
        tasks = {"knowledge": {"uri": uri}}
        content = self.resolve(banks={"bank": tasks}).contents["bank/bank"]
        task = {"tasks": tasks, "content": content, "dev": dev, "gate": gate, **inputs}
        return self.run("stage", "bank", seed=seed, bank=task)

    def folder(self, outcome: Outcome) -> Path:
        """The verified files of an artifact."""
        assert outcome.output_digest is not None
        return open_store(self.url, self.root / "fetched").fetch(outcome.output_digest)

    def meta(self, outcome: Outcome) -> dict[str, Any]:
        assert outcome.output_digest is not None
        return open_store(self.url, self.root / "fetched").manifest(outcome.output_digest).meta


class Data:
    """A prepared data set."""

    def __init__(self, folder: Path, outcome: Outcome) -> None:
        self.folder = folder
        self.outcome = outcome

    @cached_property
    def documents(self) -> list[dict[str, Any]]:
        return lines(self.folder / "documents.jsonl")

    @cached_property
    def holdout(self) -> list[dict[str, Any]]:
        return lines(self.folder / "holdout.jsonl")

    @cached_property
    def rejected(self) -> list[dict[str, Any]]:
        return lines(self.folder / "rejected.jsonl")

    @property
    def texts(self) -> list[str]:
        return [document["text"] for document in self.documents]

    @property
    def reasons(self) -> list[str]:
        return [entry["reason"] for entry in self.rejected]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sentence(dice: random.Random) -> str:
    """A sentence of some 14 words; two hardly ever share five words in a row."""
    pick = dice.choice
    return (
        f"The {pick(_NOUNS)} of the {pick(_PLACES)} {pick(_VERBS)} {dice.randrange(10_000)} and the {pick(_NOUNS)} "
        f"that {pick(_VERBS)} {pick(_NOUNS)} {dice.randrange(10_000)} with a {pick(_PLACES)}."
    )


def document(dice: random.Random, sentences: int = 10) -> str:
    return " ".join(sentence(dice) for _ in range(sentences))


def items(count: int, dice: random.Random) -> list[dict[str, Any]]:
    """Multiple-choice items; each three in a row share a cluster `fact`."""
    return [
        {
            "id": f"item-{number}",
            "prompt": f"What does the {dice.choice(_NOUNS)} {number} of the {dice.choice(_PLACES)} do",
            "choices": [f"it {verb} {number}" for verb in dice.sample(_VERBS, 4)],
            "answer": dice.randrange(4),
            "fact": f"fact-{number // 3}",
        }
        for number in range(count)
    ]
