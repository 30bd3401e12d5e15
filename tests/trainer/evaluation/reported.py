"""A finished pipeline as the operator hands it to the report, over really measured checkpoints.

The training runs and data sets around them are written down, not run: only their manifests and loss logs are read.
The merge and its linear control are real: they are made from the trained weights by the published formulas.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bessemer_api.digest import input_digest, sha256_digest
from bessemer_api.job import Arm, CompareTask
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_trainer.stages import compare
from tests.trainer.evaluation.tiny import AXES, ITEMS, World, multiple_choice_items, text_items, write_jsonl

CHANNEL = "prod"
GATE = {
    "name": "release",
    "baseline": {"channel": CHANNEL, "orElse": {"stage": "general"}},
    "looks": [60, ITEMS],
    "compose": {"atLeast": 1},
    "axes": [
        {"name": "knowledge", "winBy": 0.0, "notWorseThan": 0.15},
        {"name": "generalLoss", "notWorseThan": 0.05},
    ],
    "vetoes": ["contamination", "nonFiniteWeights", "tokenizerEquality"],
}
TRAIN = {"learningRate": 0.003, "maxSteps": 500, "globalBatchTokens": 2048, "precision": "fp32"}
SHAPE = {"hiddenSize": 64, "intermediateSize": 128, "layers": 2, "heads": 4, "maxPositions": 64}


def publish(world: World, name: str, kind: str, meta: dict[str, Any]) -> str:
    folder = world.root / "made" / name
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "data":
        (folder / "documents.jsonl").write_bytes(b"")
    return world.store().publish(folder, kind, meta | {"made": name})


def write_losses(world: World, digest: str, steps: int, start: float, end: float) -> None:
    generator = np.random.Generator(np.random.PCG64(steps))
    noise = generator.standard_normal((steps, 2)).tolist()
    lines = [
        {
            "step": k + 1,
            "tokens": 2048 * (k + 1),
            "learningRate": 0.003 * min(1, (k + 1) / 60),
            "gradNorm": 1.5 + 0.2 * noise[k][0],
            "tokensPerSecond": 9000.0,
            "loss": end + (start - end) * math.exp(-k / (steps / 6)) + 0.06 * noise[k][1],
        }
        for k in range(steps)
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines) + "not a line\n"
    world.store().write(f"runs/{digest.removeprefix('sha256:')}/metrics.jsonl", data.encode())


def stage(name: str, inputs: dict[str, Any], output: str, metrics: dict[str, float]) -> dict[str, Any]:
    digest = input_digest(StageInputs.model_validate(inputs))
    return {
        "metadata": {"name": f"demo-{name}-{digest[7:17]}"},
        "spec": {"store": "file:///store", "inputs": inputs, "inputDigest": digest},
        "status": {"phase": "Succeeded", "outputDigest": output, "metrics": metrics,
                   "attempts": [{"name": "a", "number": 1, "outcome": "Succeeded",
                                 "startedAt": "2026-01-31T10:00:00Z", "finishedAt": "2026-01-31T10:07:30Z"}]},
    }  # fmt: skip


def mixed(world: World, name: str, spherical: bool) -> str:
    """A checkpoint halfway between the two trained ones, on the straight line or on the great circle."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = world.root / "made" / name
    if not folder.exists():
        shutil.copytree(world.store().fetch(world.weak), folder)
        (folder / "manifest.json").unlink(missing_ok=True)
        one, two = (load_file(world.store().fetch(d) / "model.safetensors") for d in (world.weak, world.good))

        def between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0).clamp(-1, 1)
            share = 0.5 / torch.cos(torch.acos(cosine) / 2) if spherical else 0.5
            return (share * (a + b)).contiguous()

        path = folder / "model.safetensors"
        save_file({key: between(one[key], two[key]) for key in one}, path, metadata={"format": "pt"})
    return world.store().publish(folder, "checkpoint", {"parameters": 1, "method": name})


def merge_jobs(world: World) -> dict[str, dict[str, Any]]:
    """A slerp of the two trained models, and its linear control."""
    made = {}
    for name, method in (("slerp", "slerp"), ("slerp-linear", "linear")):
        inputs = MergeInputs.model_validate(
            {"method": method, "parents": [world.weak, world.good], "t": [{"value": [0.5]}]}
        )
        digest = input_digest(inputs)
        made[name] = {
            "metadata": {"name": f"demo-{name}-{digest[7:17]}"},
            "spec": {"store": "file:///store", "inputs": inputs.wire(), "inputDigest": digest},
            "status": {"phase": "Succeeded", "outputDigest": mixed(world, name, method == "slerp")},
        }
    return made


GATE_ONLY = "Nobody but the judge may read that the colour of this sentence is vermilion."


def dev_bank(world: World) -> str:
    """Dev items that differ from the gate's; its gate part holds a sentence that no report may show."""
    folder = world.root / "made" / "dev-bank"
    folder.mkdir(parents=True, exist_ok=True)
    choices = [item | {"id": f"dev-{item['id']}"} for item in multiple_choice_items()[::2]]
    texts = [item | {"id": f"dev-{item['id']}"} for item in text_items()[::2]]
    write_jsonl(folder / "knowledge.dev.jsonl", choices)
    write_jsonl(folder / "generalLoss.dev.jsonl", texts)
    write_jsonl(folder / "knowledge.gate.jsonl", [choices[0] | {"prompt": GATE_ONLY}])
    write_jsonl(folder / "generalLoss.gate.jsonl", [texts[0] | {"text": GATE_ONLY}])
    return world.store().publish(folder, "bank", {"items": len(choices)})


def dev_evaluations(world: World, checkpoints: list[str]) -> list[dict[str, Any]]:
    bank = dev_bank(world)
    found = []
    for checkpoint in checkpoints:
        more = {"bank": bank, "part": "dev"}
        output = world.evaluate(checkpoint, 0, ITEMS // 2, **more)
        found.append({
            "metadata": {"name": "e"}, "spec": {"inputs": world.inputs(checkpoint, 0, ITEMS // 2, **more).wire()},
            "status": {"phase": "Succeeded", "outputDigest": output, "metrics": world.means(output)},
        })  # fmt: skip
    return found


def stages(world: World) -> dict[str, dict[str, Any]]:
    """Bank, two data sets, tokenizer, mixtures, pretraining and continued pretraining, as a pipeline makes them."""
    nothing = sha256_digest(b"")
    papers = publish(world, "papers", "data", {
        "documents": 11804, "holdout": 231, "rejected": 342, "bytes": 9_412_345,
        "rules": {"exactDuplicate": 209, "decontaminated": 88, "gopherQuality.meanWordLength": 31, "minCharacters": 14},
        "reported": {"c4.curlyBracket": 12},
    })  # fmt: skip
    replay = publish(world, "replay", "data", {
        "documents": 300, "holdout": 0, "rejected": 0, "bytes": 40_112, "rules": {}, "reported": {},
    })  # fmt: skip
    tokenizer = publish(world, "tokenizer", "tokenizer", {"vocabularySize": 400})

    def mixture(name: str, parts: list[tuple[str, str, float]]) -> str:
        described = [
            {"name": n, "digest": d, "weight": s, "rows": 900, "tokens": int(1_024_000 * s), "repeats": 1.5, "share": s}
            for n, d, s in parts
        ]
        meta = {"sequences": 8000, "sequenceLength": 128, "tokens": 1_024_000, "padding": 12, "parts": described}
        return publish(world, name, "mixture", meta)

    general_data = mixture("general-data", [("papers", papers, 1.0)])
    facts_data = mixture("facts-data", [("papers", papers, 0.5), ("replay", replay, 0.5)])
    source = {"uri": "data/papers.jsonl"}

    def mixing(parts: list[str], tokenizer: str | None) -> dict[str, Any]:
        inputs: dict[str, Any] = {"parts": [{"name": "papers", "digest": part} for part in parts]}
        return inputs | ({"tokenizer": tokenizer} if tokenizer else {})

    made = {
        "release-bank": stage("bank", {"method": "bank", "bank": {
            "tasks": {"knowledge": {"uri": "bank/knowledge.jsonl"}}, "content": nothing, "dev": 0, "gate": ITEMS,
        }}, world.bank, {}),
        "papers": stage("papers", {"method": "prepare", "prepare": {
            "sources": [source], "content": nothing, "rules": {}, "banks": [world.bank], "holdout": 0.02,
        }}, papers, {}),
        "replay": stage("replay", {"method": "prepare", "prepare": {
            "sources": [{"uri": "data/replay.jsonl"}], "content": nothing, "rules": {}, "banks": [world.bank],
        }}, replay, {}),
        "tokenizer": stage("tokenizer", {"method": "tokenizer", "tokenizer": {"vocabularySize": 400},
                                         "mixture": mixing([papers], None)}, tokenizer, {}),
        "general-data": stage("gd", {"method": "mixture", "mixture": mixing([papers], tokenizer)}, general_data, {}),
        "general": stage("general", {"method": "pretrain", "model": SHAPE, "train": TRAIN, "startFrom": tokenizer,
                                     "data": general_data, "seed": 17}, world.weak, {"holdoutLoss": 4.61, "loss": 4.5}),
        "facts-data": stage("fd", {"method": "mixture", "mixture": mixing([papers, replay], world.weak)},
                            facts_data, {}),
        "facts": stage("facts", {"method": "cpt", "train": TRAIN | {"learningRate": 0.001}, "startFrom": world.weak,
                                 "data": facts_data, "seed": 17}, world.good, {"holdoutLoss": 4.58, "loss": 1.2}),
    }  # fmt: skip
    made["papers"]["status"]["reused"] = True
    write_losses(world, made["general"]["spec"]["inputDigest"], 600, 6.0, 4.5)
    write_losses(world, made["facts"]["spec"]["inputDigest"], 500, 4.4, 1.2)
    return made


def compare_looks(world: World, candidate: str, baseline: str, data: list[str]) -> list[dict[str, Any]]:
    """Both looks of the gate, really compared; RunReports as the operator hands them on."""
    from bessemer_api.v1alpha1.evaluation import Axis
    from bessemer_api.v1alpha1.gate import Gate
    from bessemer_operator.core.gating import gate_digest

    ranges = [(0, 60), (60, ITEMS)]
    digest = gate_digest(Gate.model_validate(GATE), [Axis.model_validate(axis) for axis in AXES])
    found = []
    for look in (1, 2):

        def arm(checkpoint: str, count: int = look) -> Arm:
            results = [world.evaluate(checkpoint, *span) for span in ranges[:count]]
            return Arm(checkpoint=checkpoint, results=results)

        fields = {
            "gate": GATE["name"], "gate_digest": digest, "axes": GATE["axes"], "measures": AXES,
            "looks": GATE["looks"], "look": look,
            "candidate": arm(candidate), "baseline": arm(baseline), "bank": world.bank, "channel": CHANNEL,
            "vetoes": GATE["vetoes"], "training_data": data,
        }  # fmt: skip
        task = CompareTask.model_validate(fields)
        outcome = compare.run(world.context(verb="compare", compare=task.wire()))
        assert outcome.compare is not None
        found.append({"outputDigest": outcome.output_digest, "compare": outcome.compare.wire()})
    return found


def pipeline(
    world: World, made: dict[str, dict[str, Any]], candidate: str, gate: dict[str, Any], promoted: bool
) -> dict[str, Any]:
    """`made`: stages and merges by their names."""
    rows = [
        {"name": name, "method": item["spec"]["inputs"]["method"], "object": item["metadata"]["name"],
         "phase": "Succeeded", "attempt": 1, "outputDigest": item["status"]["outputDigest"]}
        for name, item in made.items()
    ]  # fmt: skip
    mixture = {"mixture": [{"ref": "papers"}], "sequenceLength": 128}
    spec = {
        "store": world.store_url,
        "seed": 17,
        "data": {"papers": {"sources": [{"uri": "data/papers.jsonl"}]}},
        "stages": [
            {"name": "tokenizer", "method": "tokenizer", "data": mixture, "tokenizer": {"vocabularySize": 400}},
            {"name": "general", "method": "pretrain", "data": mixture, "model": SHAPE, "train": TRAIN},
            {"name": "facts", "method": "cpt", "data": mixture, "train": TRAIN, "from": "general"},
        ],
        "evaluation": {"axes": AXES},
        "gates": [GATE],
        "merges": [
            {
                "name": "slerp",
                "method": "slerp",
                "parents": [{"stage": "general"}, {"stage": "facts"}],
                "t": [{"value": [0.5]}],
                "controls": ["linear"],
            }
        ],
        "promotion": {"candidates": ["facts", "slerp"], "gate": "release", "channels": [{"name": CHANNEL}]},
    }
    message = "facts is record 1 of channel prod" if promoted else "gate release refused the candidate"
    conditions = [
        {"type": "GatePassed", "status": str(promoted), "reason": gate["reason"], "message": gate["message"]},
        {"type": "Promoted", "status": str(promoted), "reason": "Promoted" if promoted else "GateFailed",
         "message": message},
    ]  # fmt: skip
    channels = [{"name": CHANNEL, "digest": candidate, "record": 1, "at": "2026-01-31T12:00:00Z"}] if promoted else []
    alarm = {"name": "generalLoss", "subject": "facts", "state": "Alarm", "value": 0.21, "limit": 0.05,
             "message": "general text costs 0.21 bits per byte more than before the stage"}  # fmt: skip
    diagnostics = [alarm, alarm | {"name": "calibration", "state": "Quiet", "value": 0.01, "message": ""}]
    status = {"stages": rows, "gates": [gate], "channels": channels, "conditions": conditions,
              "diagnostics": diagnostics}  # fmt: skip
    return {"metadata": {"name": "demo", "namespace": "ml-team"}, "spec": spec, "status": status}


def report_task(world: World, *, swap: bool = False) -> dict[str, Any]:
    """The whole ReportTask; `swap`: the worse model is the candidate, and the gate fails."""
    made = stages(world)
    if swap:
        made["facts"]["status"]["outputDigest"], made["general"]["status"]["outputDigest"] = world.weak, world.good
    candidate, baseline = (world.weak, world.good) if swap else (world.good, world.weak)
    data = [made["papers"]["status"]["outputDigest"], made["replay"]["status"]["outputDigest"]]
    looks = compare_looks(world, candidate, baseline, data)
    evaluations = [
        {"metadata": {"name": "e"}, "spec": {"inputs": world.inputs(c, *span).wire()},
         "status": {"phase": "Succeeded", "outputDigest": world.evaluate(c, *span), "metrics": {}}}
        for c in (candidate, baseline) for span in ((0, 60), (60, ITEMS))
    ]  # fmt: skip
    merges = merge_jobs(world)
    merged = [item["status"]["outputDigest"] for item in merges.values()]
    evaluations += dev_evaluations(world, [candidate, baseline, *merged])
    gate = judged(looks, candidate, baseline)
    document = pipeline(world, {**made, **merges}, candidate, gate, promoted=gate["verdict"] == "Passed")
    return {
        "pipeline": document,
        "stages": list(made.values()),
        "merges": list(merges.values()),
        "evaluations": evaluations,
        "comparisons": looks,
    }


def judged(looks: list[dict[str, Any]], candidate: str, baseline: str) -> dict[str, Any]:
    """The summary of the gate, by the operator's own gate."""
    from bessemer_api.job import CompareReport
    from bessemer_api.v1alpha1.gate import Gate
    from bessemer_operator.core.gate import Asked, judge

    report = CompareReport.model_validate(looks[-1]["compare"])
    decision = judge(Gate.model_validate(GATE), report, Asked("", report.look))
    return {
        "name": GATE["name"], "verdict": decision.verdict, "reason": decision.reason, "message": decision.message,
        "candidate": candidate, "baseline": baseline, "look": report.look, "tries": report.tries,
        "evidenceDigest": looks[-1]["outputDigest"], "axes": [axis.wire() for axis in decision.axes],
    }  # fmt: skip


def write_page(world: World, path: Path, *, swap: bool = False) -> str:
    from bessemer_trainer.stages import report

    outcome = report.run(world.context(verb="report", report=report_task(world, swap=swap)))
    key = outcome.url.removeprefix(world.store_url + "/")
    page = world.store().read(key)
    assert page is not None
    path.write_bytes(page)
    return outcome.url
