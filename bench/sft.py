# ruff: noqa: PLC0415 - each side runs in a process of its own and imports only what it needs
"""sft against transformers' Trainer and TRL with packing, in one run: real tokens a CPU second, and equal losses.

    python bench/sft.py --out build/sft.json                    # a model of 12.6 million parameters; half an hour
    python bench/sft.py --out build/sft.json --size small       # some minutes

The text is the source of Python's own standard library: nothing has to be fetched. Every side trains the same Llama
from the same weights in fp32 with AdamW, in a process of its own on one thread. Each is run for a few steps and for
more, and the difference of their CPU seconds is what the steps between took: imports, start and the last save are in
neither. transformers' Trainer is given our packed sequences with their positions, in our order, so its losses must be
ours. TRL packs the examples itself (best fit), with the settings that it needs on a CPU: fp32, no recomputation.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu import corpus

SIZES: Mapping[str, dict[str, Any]] = {
    "small": {
        "model": {"hiddenSize": 128, "intermediateSize": 344, "layers": 4, "heads": 4, "maxPositions": 512},
        "vocabulary": 2048,
        "length": 256,
        "batch": 4,
        "steps": [2, 8],
        "bytes": 400_000,
    },
    "12.6M": {
        "model": {"hiddenSize": 320, "intermediateSize": 864, "layers": 8, "heads": 5, "maxPositions": 512},
        "vocabulary": 8192,
        "length": 512,
        "batch": 8,
        "steps": [2, 12],
        "bytes": 3_000_000,
    },
}
RATE = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--size", choices=SIZES, default="12.6M")
    parser.add_argument("--side", help="for the processes of this script")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    size = SIZES[options.size]
    if options.side:
        result = SIDES[options.side](options.folder, size, options.steps)
        Path(options.out).write_text(json.dumps(result))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="bessemer-bench-"))
    run("prepare", options.size, folder, 0)
    sides = {side: compared(side, options.size, folder, size["steps"]) for side in ("ours", "transformers", "trl")}
    pairs = zip(sides["ours"]["losses"], sides["transformers"]["losses"], strict=True)
    result = {
        "versions": versions(),
        "size": {"name": options.size, **size},
        "sides": sides,
        "largest difference of losses, ours and transformers": max(abs(one - other) for one, other in pairs),
    }
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


def versions() -> dict[str, str]:
    names = ("torch", "transformers", "trl", "deepspeed")
    return {**{name: version(name) for name in names}, "python": platform.python_version(), "cpu": cpu()}


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def run(side: str, size: str, folder: Path, steps: int) -> tuple[dict[str, Any], float]:
    """What a side tells, and the CPU seconds of its process."""
    out = folder / f"{side}-{steps}.json"
    command = [sys.executable, "-W", "ignore", __file__, "--side", side, "--size", size, "--out", str(out)]
    command += ["--steps", str(steps), "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(out.read_text()), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compared(side: str, size: str, folder: Path, steps: list[int]) -> dict[str, Any]:
    (few, started), (more, ended) = (run(side, size, folder, count) for count in steps)
    tokens = more["tokens"] - few["tokens"]
    return {
        "real tokens": tokens,
        "CPU seconds": round(ended - started, 2),
        "real tokens a CPU second": round(tokens / (ended - started), 1),
        "CPU seconds of the shorter run": round(started, 2),
        "losses": more["losses"],
    }


# --- the sides --------------------------------------------------------------------------------------------------


def prepare(folder: Path, size: Mapping[str, Any], _steps: int) -> dict[str, Any]:
    """Tokenizer, start weights and a mixture of examples: pieces of source whose last two thirds are learned."""
    import torch

    from bessemer_api.v1alpha1.train import ModelShape, TokenizerTraining
    from bessemer_trainer.artifacts import copy_tokenizer, write_checkpoint
    from bessemer_trainer.model import fresh_model
    from bessemer_trainer.stages import tokenizer

    texts = list(corpus(size["bytes"]))
    words, start = folder / "tokenizer", folder / "start"
    words.mkdir()
    start.mkdir()
    options = TokenizerTraining.model_validate({"vocabularySize": size["vocabulary"]})
    tokenizer.save(tokenizer.train(iter(texts[:300]), options), words)
    model = fresh_model(ModelShape.model_validate(size["model"]), words, 1)
    write_checkpoint(start, model, dict(model.named_parameters()), torch.float32)
    copy_tokenizer(words, start)
    rows = list(examples(texts, size["length"]))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = store_of(folder)
    digest = store.publish(start, "checkpoint", {})
    (folder / "digests.json").write_text(json.dumps([digest, mixture(store, folder, size, digest, rows)]))
    return {}


def examples(texts: list[str], length: int) -> Iterator[dict[str, str]]:
    """Pieces of 120 characters to about as many as fit in a sequence."""
    import random

    dice = random.Random(1)
    for text in texts:
        place = 0
        while place + 120 < len(text):
            piece = text[place : place + dice.randint(120, 2 * length)]
            yield {"prompt": piece[: len(piece) // 3], "completion": piece[len(piece) // 3 :]}
            place += len(piece)


def store_of(folder: Path) -> Any:
    from bessemer_trainer.store import open_store

    return open_store(f"file://{folder}/store", folder / "scratch")


def mixture(store: Any, folder: Path, size: Mapping[str, Any], start: str, rows: list[dict[str, str]]) -> str:
    from bessemer_trainer.stages.mixture import run as make

    target = folder / "data"
    target.mkdir()
    lines = [json.dumps({"id": str(number), **row}) + "\n" for number, row in enumerate(rows)]
    (target / "documents.jsonl").write_text("".join(lines))
    (target / "holdout.jsonl").write_text("")
    data = store.publish(target, "data", {"documents": len(rows), "kind": "promptCompletion"})
    inputs = {
        "parts": [{"name": "code", "digest": data}],
        "sequenceLength": size["length"],
        "tokenizer": start,
        "format": "examples",
    }
    return str(make(context(folder, {"method": "mixture", "mixture": inputs}, "mixture")).output_digest)


def context(folder: Path, stage: dict[str, Any], name: str) -> Any:
    from bessemer_api.job import RunSpec
    from bessemer_trainer.context import Context, Progress
    from bessemer_trainer.metrics import Board

    spec = {
        "runUid": name,
        "verb": "stage",
        "store": f"file://{folder}/store",
        "inputDigest": digest_of(name),
        "stage": stage,
        "deepspeed": {"zeroStage": 0, "microBatchSize": 4},
        "checkpoint": {"everySteps": 1_000_000, "keepLast": 1},
    }
    return Context(
        RunSpec.model_validate(spec), store_of(folder), folder / "scratch", Progress(Board(name), quiet=True)
    )


def digest_of(name: str) -> str:
    import hashlib

    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def hyper(size: Mapping[str, Any], steps: int) -> dict[str, Any]:
    return {
        "learningRate": RATE,
        "schedule": "constant",
        "warmupRatio": 0,
        "maxSteps": steps,
        "globalBatchTokens": size["batch"] * size["length"],
        "precision": "fp32",
    }


def ours(folder: Path, size: Mapping[str, Any], steps: int) -> dict[str, Any]:
    from bessemer_trainer.stages.sft import run as sft

    start, data = json.loads((folder / "digests.json").read_text())
    name = f"ours-{steps}"
    sft(context(folder, {"method": "sft", "train": hyper(size, steps), "startFrom": start, "data": data}, name))
    lines = (folder / "store/runs" / digest_of(name)[7:] / "metrics.jsonl").read_text().splitlines()
    return {"losses": [json.loads(line)["loss"] for line in lines], "tokens": real_tokens(folder, size, steps)}


def packed_rows(folder: Path, size: Mapping[str, Any], steps: int) -> Iterator[Any]:
    """Our sequences in the order in which our steps take them."""
    from bessemer_api.v1alpha1.train import Train
    from bessemer_trainer.schedule import global_batch, plan_run
    from bessemer_trainer.shards import open_shards

    _, data = json.loads((folder / "digests.json").read_text())
    shards = open_shards(store_of(folder).fetch(data), size["length"])
    plan = plan_run(Train.model_validate(hyper(size, steps)), shards.sequences, size["length"], 1, 4, 0)
    for step in range(steps):
        for row in global_batch(plan, step):
            yield {name: value[0] for name, value in shards.rows(row[None]).items()}


def real_tokens(folder: Path, size: Mapping[str, Any], steps: int) -> int:
    return sum(int((row["documents"] != 0).sum()) for row in packed_rows(folder, size, steps))


def arguments(folder: Path, size: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """The same mathematics for both peers."""
    return {
        "output_dir": str(folder / "peer"),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": size["batch"] // 4,
        "max_steps": steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.1,
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "disable_tqdm": True,
    }


def peer_model(folder: Path) -> Any:
    from bessemer_trainer.model import load_model

    return load_model(folder / "start")


def transformers(folder: Path, size: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Transformers' Trainer on our packed sequences."""
    import torch
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainingArguments

    from bessemer_trainer.objectives.likelihood import IGNORE, positions_of

    rows = []
    for row in packed_rows(folder, size, steps):
        tokens, documents = torch.from_numpy(row["tokens"]), torch.from_numpy(row["documents"])
        labels = torch.where(torch.from_numpy(row["targets"]) != 0, tokens, IGNORE)
        rows.append({"input_ids": tokens, "labels": labels, "position_ids": positions_of(documents[None])[0]})

    class InOrder(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(dataset or self.train_dataset)

    given = TrainingArguments(**arguments(folder, size, steps))
    trainer = InOrder(model=peer_model(folder), args=given, train_dataset=rows)
    trainer.train()
    return {"losses": logged(trainer), "tokens": real_tokens(folder, size, steps)}


def trl(folder: Path, size: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """TRL on the examples, packed by its default strategy."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    given = SFTConfig(
        **arguments(folder, size, steps), packing=True, max_length=size["length"], completion_only_loss=True
    )
    trainer = SFTTrainer(
        model=peer_model(folder),
        args=given,
        train_dataset=Dataset.from_list(rows[: steps * size["batch"] * 8]),
        processing_class=AutoTokenizer.from_pretrained(folder / "start"),
    )
    trainer.train()
    return {"losses": logged(trainer), "tokens": int(trainer.state.num_input_tokens_seen or seen(trainer))}


def seen(trainer: Any) -> int:
    """Tokens that TRL says it trained on."""
    return int(next(line["num_tokens"] for line in reversed(trainer.state.log_history) if "num_tokens" in line))


def logged(trainer: Any) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


SIDES = {"prepare": prepare, "ours": ours, "transformers": transformers, "trl": trl}

if __name__ == "__main__":
    sys.exit(main())
