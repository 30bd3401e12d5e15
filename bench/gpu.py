# ruff: noqa: PLC0415 - the pod and the peer import only what they need, when they need it
"""The trainer on a GPU against a plain torch loop, in one run: speed, equal losses, and resuming after a stop.

    python bench/gpu.py --out build/gpu.json                     # one GPU; about three minutes on an H100
    python bench/gpu.py --out build/gpu.json --shape tiny        # the same on a CPU, to try the script itself

The text is the source of Python's own standard library, read from this interpreter: nothing has to be fetched. Both
sides train the same Llama from the same weights on the same packed sequences with the same AdamW in bf16; the plain
loop is autocast over fp32 weights, as many write it, and knows no checkpoints and no report. MFU counts 6 FLOPs a
parameter and token and the attention's 12 x layers x width x length (Chowdhery et al., PaLM, 2022, appendix B).
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

SHAPES: Mapping[str, dict[str, Any]] = {
    "tiny": {"hiddenSize": 64, "intermediateSize": 128, "layers": 2, "heads": 2, "maxPositions": 128},
    "0.6B": {"hiddenSize": 1536, "intermediateSize": 4096, "layers": 20, "heads": 12, "maxPositions": 2048},
}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s from the vendor's data sheets."""


def main() -> int:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="bessemer-bench-"))
    size = SIZES[options.shape]
    digests = prepare(folder, size)
    spec = run_spec(folder, options.shape, digests)
    result: dict[str, Any] = {"versions": versions(), "shape": options.shape, **size}
    result["ours"] = ours(folder, spec, "whole")
    result["peer"] = peer(folder, spec, size["steps"])
    result["compared"] = compare(result["ours"]["losses"], result["peer"]["losses"])
    result["resumed"] = resumed(folder, spec, result["ours"]["losses"])
    result["mfu"] = {who: mfu(options.shape, size, result[who]) for who in ("ours", "peer")}
    text = json.dumps(result, indent=1)
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    Path(options.out).write_text(text)
    print(json.dumps({**result, "ours": brief(result["ours"]), "peer": brief(result["peer"])}, indent=1))
    return 0


SIZES: Mapping[str, dict[str, Any]] = {
    "tiny": {"length": 128, "micro": 4, "batch": 8, "steps": 12, "vocabulary": 512, "bytes": 400_000},
    "0.6B": {"length": 2048, "micro": 8, "batch": 16, "steps": 60, "vocabulary": 8192, "bytes": 12_000_000},
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--shape", choices=SHAPES, default="0.6B")
    return parser.parse_args()


def versions() -> dict[str, str]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
    names = ("torch", "transformers", "deepspeed")
    return {**{name: version(name) for name in names}, "python": platform.python_version(), "device": device}


def corpus(limit: int) -> Iterator[str]:
    """Source files of the standard library, in order of their names, until `limit` bytes."""
    read = 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or read >= limit:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")[:20_000]
        read += len(text)
        if text.strip():
            yield text


def prepare(folder: Path, size: Mapping[str, Any]) -> dict[str, str]:
    """Tokenizer and mixture artifacts of the corpus."""
    from bessemer_api.v1alpha1.train import TokenizerTraining
    from bessemer_trainer.packing import SequenceWriter
    from bessemer_trainer.stages.tokenizer import save, train
    from bessemer_trainer.store import open_store
    from bessemer_trainer.token_cache import load_vocabulary, tokenise

    store = open_store(f"file://{folder}/store", folder / "scratch")
    texts = list(corpus(size["bytes"]))
    target = folder / "tokenizer"
    target.mkdir()
    save(train(iter(texts[:400]), TokenizerTraining(vocabulary_size=size["vocabulary"])), target)
    tokenizer = store.publish(target, "tokenizer", {"vocabularySize": size["vocabulary"]})
    vocabulary = load_vocabulary(store.fetch(tokenizer))
    data = folder / "mixture"
    data.mkdir()
    part = tokenise(iter(texts), vocabulary, folder / "tokens", lambda _done: None)
    with SequenceWriter(
        data, size["length"], largest_token=vocabulary.largest, padding=vocabulary.padding, packing=True
    ) as writer:
        for number in range(len(part.lengths)):
            writer.add(part.document(number))
    (data / "holdout.jsonl").write_text("")
    mixture = store.publish(data, "mixture", {"tokenizer": tokenizer, "sequenceLength": size["length"]})
    return {"tokenizer": tokenizer, "mixture": mixture}


def run_spec(folder: Path, shape: str, digests: Mapping[str, str]) -> dict[str, Any]:
    size = SIZES[shape]
    train = {
        "learningRate": 3e-4,
        "maxSteps": size["steps"],
        "globalBatchTokens": size["batch"] * size["length"],
        "precision": "bf16",
        "warmupRatio": 0.2,
    }
    stage = {"method": "pretrain", "model": SHAPES[shape], "train": train, "seed": 1}
    return {
        "verb": "stage",
        "store": f"file://{folder}/store",
        "stage": {**stage, "startFrom": digests["tokenizer"], "data": digests["mixture"]},
        "deepspeed": {"zeroStage": 1, "microBatchSize": size["micro"]},
        "checkpoint": {"everySteps": 1_000_000, "keepLast": 1},
    }


PORT = 9402


class Pod:
    """The trainer as a pod starts it."""

    def __init__(self, folder: Path, spec: Mapping[str, Any], name: str) -> None:
        import hashlib

        self.name, self.store = name, folder / "store"
        self.digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
        self.folder = folder / name
        self.folder.mkdir(exist_ok=True)
        document = {**spec, "runUid": name, "inputDigest": self.digest}
        (self.folder / "run.json").write_text(json.dumps(document))

    def start(self) -> "subprocess.Popen[bytes]":
        world = {
            "BESSEMER_RUN_SPEC": "run.json",
            "BESSEMER_TERMINATION_LOG": "report.json",
            "BESSEMER_SCRATCH": "scratch",
        }
        environment = {name: str(self.folder / file) for name, file in world.items()}
        environment["BESSEMER_METRICS_PORT"] = str(PORT)
        gang = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "1", "PET_NODE_RANK": "0"}
        command = [sys.executable, "-m", "bessemer_trainer.launch"]
        return subprocess.Popen(command, env={**os.environ, **environment, **gang})

    def lines(self) -> list[dict[str, Any]]:
        path = self.store / "runs" / self.digest.removeprefix("sha256:") / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def progress(self) -> int:
        """Percent done, as the operator would ask; 0 while the pod does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/progress", timeout=2) as answer:
                return int(json.load(answer).get("progressPercentage", 0))
        except (OSError, ValueError):
            return 0

    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "report.json").read_text()))


def ours(folder: Path, spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One run from start to published checkpoint."""
    pod = Pod(folder, spec, name)
    began = time.monotonic()
    code = pod.start().wait()
    if code:
        raise SystemExit(f"the trainer ended with exit code {code}: {pod.report().get('error')}")
    lines = pod.lines()
    rates = sorted(line["tokensPerSecond"] for line in lines[len(lines) // 3 :])
    tokens = lines[0]["tokens"]
    return {
        "seconds": time.monotonic() - began,
        "stepSeconds": tokens / rates[len(rates) // 2],
        "losses": [line["loss"] for line in lines],
        "parameters": pod.report()["metrics"]["parameters"],
    }


def peer(folder: Path, spec: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """The same training as a plain loop: autocast, fp32 weights, fused AdamW where there is one."""
    import torch
    from torch.nn.utils import clip_grad_norm_

    from bessemer_api.v1alpha1.train import ModelShape, Train
    from bessemer_trainer.model import fresh_model, parameter_groups, positions_of, targets_of
    from bessemer_trainer.schedule import learning_rate, micro_batch, plan_run
    from bessemer_trainer.shards import open_shards
    from bessemer_trainer.store import open_store

    store = open_store(spec["store"], folder / "scratch")
    stage = spec["stage"]
    train = Train.model_validate(stage["train"])
    data = store.fetch(stage["data"])
    shards = open_shards(data, int(store.manifest(stage["data"]).meta["sequenceLength"]))
    micro = spec["deepspeed"]["microBatchSize"]
    plan = plan_run(train, shards.sequences, shards.sequence_length, 1, micro, stage["seed"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = ModelShape.model_validate(stage["model"])
    model: Any = fresh_model(shape, store.fetch(stage["startFrom"]), stage["seed"]).to(device)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, train.weight_decay), lr=1e-4, betas=(0.9, 0.95), fused=device == "cuda"
    )
    losses, seconds = [], []
    for step in range(steps):
        began = time.monotonic()
        pieces = [shards.rows(micro_batch(plan, step, 0, index)) for index in range(plan.accumulation)]
        batches = [tuple(torch.from_numpy(part.copy()).to(device) for part in piece) for piece in pieces]
        count = sum(int((targets_of(*batch) != -100).sum()) for batch in batches)
        total = 0.0
        for tokens, documents in batches:
            with torch.autocast(device, dtype=torch.bfloat16):
                logits = model(input_ids=tokens, position_ids=positions_of(documents), use_cache=False).logits
            targets = targets_of(tokens, documents).flatten()
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets, reduction="sum")
            (loss / count).backward()
            total += float(loss)
        clip_grad_norm_(model.parameters(), train.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train, step, steps)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total / count)
        seconds.append(time.monotonic() - began)
    late = sorted(seconds[len(seconds) // 3 :])
    return {"stepSeconds": late[len(late) // 2], "losses": losses}


def compare(one: list[float], other: list[float]) -> dict[str, float]:
    """Both start from the same weights; bf16 weights and autocast round differently."""
    gaps = [abs(a - b) for a, b in zip(one, other, strict=True)]
    return {"firstLossGap": gaps[0], "meanLossGap": sum(gaps) / len(gaps), "lastLosses": [one[-1], other[-1]]}  # type: ignore[dict-item]


def resumed(folder: Path, spec: Mapping[str, Any], whole: list[float]) -> dict[str, Any]:
    """Stopped by SIGTERM in the middle, then run again: exit codes, stall of the save, and the losses' largest gap."""
    pod = Pod(folder, spec, "stopped")
    process = pod.start()
    while process.poll() is None and pod.progress() < 40:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code = process.wait()
    at = len(pod.lines())
    began = time.monotonic()
    again = pod.start().wait()
    losses = [line["loss"] for line in pod.lines()]
    gap = max(abs(a - b) for a, b in zip(losses, whole, strict=True)) if len(losses) == len(whole) else None
    found = {
        "exitCodes": [code, again],
        "stoppedAt": at,
        "secondsOfSecondRun": time.monotonic() - began,
    }
    return {**found, "largestLossGap": gap}


def mfu(shape: str, size: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, float]:
    """Tokens a second, and the share of the card's dense bf16 peak (absent for a card that the table lacks)."""
    import torch

    dims = SHAPES[shape]
    width, layers = dims["hiddenSize"], dims["layers"]
    body = layers * (4 * width * width + 3 * width * dims["intermediateSize"]) + size["vocabulary"] * width
    flops = 6 * body + 12 * layers * width * size["length"]
    speed = size["batch"] * size["length"] / result["stepSeconds"]
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = next((value for card, value in PEAK.items() if card in name), None)
    return {"tokensPerSecond": speed, **({"mfu": speed * flops / peak} if peak else {})}


def brief(result: Mapping[str, Any]) -> dict[str, Any]:
    losses = result["losses"]
    return {**result, "losses": [losses[0], losses[len(losses) // 2], losses[-1]]}


if __name__ == "__main__":
    sys.exit(main())
