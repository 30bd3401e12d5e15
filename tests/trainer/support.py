"""Tiny artifacts and RunSpecs for tests of the trainer, and a way to run it as a pod runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bessemer_api.job import METRICS_PORT_ENV, REPORT_ENV, SPEC_ENV, RunReport
from bessemer_trainer.launch import rank_environments, wait_for
from bessemer_trainer.packing import SequenceWriter
from bessemer_trainer.store import Store, open_store
from bessemer_trainer.token_cache import load_vocabulary, tokenise
from tests.trainer.zygote import Rank, Zygote

WORDS = tuple(b"the alloy of iron and nickel is hard because carbon atoms pin its dislocations".decode().split(" "))
SHAPE = {"hiddenSize": 32, "intermediateSize": 64, "layers": 2, "heads": 2, "maxPositions": 64}


def texts(count: int, seed: int = 0) -> list[str]:
    """Documents of 3 to 40 words that a small model can learn: each word is often followed by the same next one."""
    random = np.random.Generator(np.random.PCG64(seed))
    documents = []
    for _ in range(count):
        place = int(random.integers(len(WORDS)))
        words = []
        for _ in range(int(random.integers(3, 40))):
            place = (place + 1 if random.random() < 0.8 else int(random.integers(len(WORDS)))) % len(WORDS)
            words.append(WORDS[place])
        documents.append(" ".join(words))
    return documents


def store_in(folder: Path) -> Store:
    return open_store(f"file://{folder}/store", folder / "scratch")


def make_tokenizer(store: Store, folder: Path, size: int = 300) -> str:
    """Digest of a byte-level BPE tokenizer artifact of about `size` tokens."""
    from bessemer_api.v1alpha1.train import TokenizerTraining
    from bessemer_trainer.stages.tokenizer import save, train

    target = folder / "tokenizer"
    target.mkdir(parents=True, exist_ok=True)
    save(train(iter(texts(50)), TokenizerTraining(vocabulary_size=size)), target)
    return store.publish(target, "tokenizer", {"vocabularySize": size})


@dataclass(frozen=True)
class MixtureOptions:
    """How a test's mixture differs."""

    length: int = 32
    packing: bool = True
    holdout: Sequence[str] = ()
    name: str = "mixture"


def make_mixture(
    store: Store, folder: Path, tokenizer: str, documents: Iterable[str], options: MixtureOptions | None = None
) -> str:
    """Digest of a mixture artifact of `documents`."""
    options = options or MixtureOptions()
    vocabulary = load_vocabulary(store.fetch(tokenizer))
    target = folder / options.name
    target.mkdir(parents=True, exist_ok=True)
    part = tokenise(documents, vocabulary, folder / f"{options.name}.tokens", lambda _done: None)
    with SequenceWriter(
        target, options.length, largest_token=vocabulary.largest, padding=vocabulary.padding, packing=options.packing
    ) as writer:
        for number in range(len(part.lengths)):
            writer.add(part.document(number))
    lines = [json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(options.holdout)]
    (target / "holdout.jsonl").write_text("".join(lines))
    return store.publish(target, "mixture", {"tokenizer": tokenizer, "sequenceLength": options.length})


@dataclass(frozen=True)
class Inputs:
    """A store with a tokenizer and a mixture in it."""

    store: Store
    url: str
    tokenizer: str
    mixture: str


def make_inputs(folder: Path, documents: int = 120, options: MixtureOptions | None = None) -> Inputs:
    store = store_in(folder)
    tokenizer = make_tokenizer(store, folder)
    mixture = make_mixture(store, folder, tokenizer, texts(documents), options)
    return Inputs(store, f"file://{folder}/store", tokenizer, mixture)


def training_spec(inputs: Inputs, name: str, train: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A RunSpec document of a pretrain stage; `name` makes the run folder, `train` and `spec` change defaults."""
    hyper = {"learningRate": 3e-3, "maxSteps": 6, "globalBatchTokens": 128, "precision": "fp32", **(train or {})}
    stage = {
        "method": "pretrain",
        "model": SHAPE,
        "train": hyper,
        "startFrom": inputs.tokenizer,
        "data": inputs.mixture,
        **spec.pop("stage", {}),
    }
    return {
        "runUid": name,
        "verb": "stage",
        "store": inputs.url,
        "inputDigest": run_digest(name),
        "stage": stage,
        "checkpoint": {"everySteps": 1000},
        **spec,
    }


def run_digest(name: str) -> str:
    """The input digest that `training_spec` gives to a run of that name."""
    import hashlib

    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


@dataclass
class Pod:
    """A pod as the operator starts it: its environment, and where its report goes."""

    folder: Path
    document: dict[str, Any]
    ranks: int = 1
    environment: dict[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "bessemer_trainer.launch"]

    def variables(self) -> dict[str, str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        spec = self.folder / "run.json"
        spec.write_text(json.dumps(self.document))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PET_", "BESSEMER_"))}
        return {
            **kept,
            SPEC_ENV: str(spec),
            REPORT_ENV: str(self.folder / "report.json"),
            "BESSEMER_SCRATCH": str(self.folder / "scratch"),
            METRICS_PORT_ENV: "",
            "PET_NNODES": "1",
            "PET_NPROC_PER_NODE": str(self.ranks),
            "PET_NODE_RANK": "0",
            "OMP_NUM_THREADS": "1",
            **self.environment,
        }

    def start(self, zygote: Zygote) -> list[Rank]:
        """Fork the ranks that the launcher would start."""
        return [zygote.fork(environment, self.folder / "stderr") for environment in rank_environments(self.variables())]

    def finish(self, ranks: list[Rank]) -> tuple[int, str]:
        """Exit code, as the launcher finds it, and stderr."""
        return wait_for(ranks), (self.folder / "stderr").read_text(errors="replace")

    def run(self, zygote: Zygote) -> tuple[int, str]:
        """Exit code and stderr of all ranks."""
        return self.finish(self.start(zygote))

    def launch(self) -> subprocess.Popen[str]:
        """The real command in a process of its own: seconds of imports a rank."""
        return subprocess.Popen(self.command(), env=self.variables(), stderr=subprocess.PIPE, text=True)

    def report(self) -> RunReport:
        return RunReport.model_validate_json((self.folder / "report.json").read_bytes())


def weights_of(store: Store, digest: str) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint artifact, in single precision."""
    from safetensors.torch import load_file

    return {name: value.float().numpy() for name, value in load_file(store.fetch(digest) / "model.safetensors").items()}


def lines_of(store: Store, name: str) -> Iterator[dict[str, Any]]:
    """metrics.jsonl of the run `name`."""
    data = store.read(f"runs/{run_digest(name).removeprefix('sha256:')}/metrics.jsonl") or b""
    return (json.loads(line) for line in data.decode().splitlines())


Pair = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Tokens of prompt, chosen and rejected."""


def write_pairs(folder: Path, pairs: Sequence[Pair], held_out: bool = False) -> None:
    """The files of a mixture of the format `pairs`."""
    prefix = "holdout-" if held_out else ""
    offset, index, tokens = 0, [], []
    for pair in pairs:
        index.append([offset, *map(len, pair)])
        offset += sum(map(len, pair))
        tokens += [token for part in pair for token in part]
    np.array(tokens, "<u2").tofile(folder / f"{prefix}tokens.u16")
    np.array(index, "<u4").tofile(folder / f"{prefix}index.u32")
