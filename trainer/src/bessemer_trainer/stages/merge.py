"""merge: several verified checkpoints become one, by mergekit in a process of its own.

First everything is asked that mergekit does not ask (merging/parents.py), then mergekit runs, then the result is
checked (merging/result.py) and tried (merging/probe.py). What is published is a checkpoint like any other: the weights,
the configuration and the tokenizer of the first parent, and `merge.json` with what was measured on the way. Equal
inputs give equal bytes.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bessemer_api.digest import canonical_json
from bessemer_api.job import MergeTask
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_trainer.backends import disk_errors
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.merging import geometry, parents, result
from bessemer_trainer.merging.document import BASE, PARENT, build_document
from bessemer_trainer.merging.engine import OUT, RESULT, Job, write_job
from bessemer_trainer.merging.faults import find_fault

RECIPE = 1
"""Version of this code. It changes when the same inputs give another merge."""
MEASURES = "merge.json"
ENGINE = "bessemer_trainer.merging.engine"
_ROUND_LATE = frozenset({"linear", "slerp"})
"""Methods that keep the number format of every tensor."""


def run(context: Context) -> Outcome:
    """Publishes an artifact `checkpoint`. Raises PermanentError(ParentRefused | MergeBroken | MergeFailed)."""
    task = context.spec.merge
    assert task is not None  # noqa: S101 - __main__ has checked that the field of the verb is set
    if task.inputs.recipe != RECIPE:
        raise PermanentError(
            "UnknownRecipe", f"recipe is {task.inputs.recipe}; this trainer merges by version {RECIPE}"
        )
    found, base = _open(context, task)
    rows = geometry.measure(task.inputs, found, base, lambda done: _tell(context, done, "measuring the parents"))
    scratch = context.scratch / "merge"
    with disk_errors(str(scratch)):
        tried = _merge(context, task.inputs, found, base, scratch)
        folder = result.complete(scratch / OUT, scratch / "checkpoint", found[0])
        parameters = result.require_whole(folder, found[0])
        measures = _measures(task.inputs, rows, tried)
        (folder / MEASURES).write_bytes(canonical_json(measures))
        digest = context.store.publish(folder, "checkpoint", _meta(task.inputs, parameters, measures))
        shutil.rmtree(scratch)
    return Outcome(digest, metrics=_metrics(parameters, measures, tried))


def _tell(context: Context, done: int, message: str) -> None:
    context.progress.update(done, 0, message)


def _open(context: Context, task: MergeTask) -> tuple[list[parents.Parent], parents.Parent | None]:
    """The parents and the ancestor, all of which can be merged with the first."""
    inputs = task.inputs
    digests = [*inputs.parents, *([inputs.base] if inputs.base else [])]
    names = task.names if len(task.names) == len(digests) else digests
    found: list[parents.Parent] = []
    for name, digest in zip(names, digests, strict=True):
        _tell(context, len(found), f"verifying {name}")
        found.append(parents.open_parent(context.store, name, digest))
    for other in found[1:]:
        parents.require_mergeable(found[0], other)
    if inputs.method not in _ROUND_LATE or inputs.space == "taskVectors":
        parents.require_one_format(found)
    count = len(inputs.parents)
    return found[:count], found[count] if inputs.base else None


def _merge(
    context: Context, inputs: MergeInputs, found: list[parents.Parent], base: parents.Parent | None, scratch: Path
) -> Mapping[str, Any]:
    """Run mergekit over folders of links, so that one checkpoint twice has two names; figures of the trial."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    names = [PARENT.format(index) for index in range(len(found))]
    for name, parent in [*zip(names, found, strict=True), *([(BASE, base)] if base else [])]:
        _link(parent.folder, scratch / name)
    texts = _held_out(context, inputs)
    job = Job(
        document=build_document(inputs, found[0].layers, found[0].dtype),
        parents=names,
        method=inputs.method,
        seed=inputs.seed,
        base=BASE if base else None,
        texts=str(texts) if texts else None,
    )
    _run_engine(context, write_job(scratch, job), inputs.method)
    tried: dict[str, Any] = json.loads((scratch / RESULT).read_bytes())
    fault = find_fault(tried["probe"])
    if fault:
        raise result.broken(f"the merge does not work: {fault}")
    return tried


def _link(source: Path, target: Path) -> None:
    """Links to the files of a parent; mergekit reads a configuration that the engine completes."""
    target.mkdir()
    for path in source.iterdir():
        if path.name == "config.json":
            shutil.copyfile(path, target / path.name)
        elif path.is_file():
            (target / path.name).symlink_to(path)


def _held_out(context: Context, inputs: MergeInputs) -> Path | None:
    if inputs.held_out is None:
        return None
    path = context.store.fetch(inputs.held_out) / "holdout.jsonl"
    if not path.is_file() or not path.stat().st_size:
        raise PermanentError("NothingHeldOut", f"{inputs.held_out} has no held-out documents; raise its holdout")
    return path


def _run_engine(context: Context, job: Path, method: str) -> None:
    """Wait for the process, which ends with this one; its last words are the error."""
    log = job.parent / "engine.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", ENGINE, str(job)], stdout=stream, stderr=stream, env=_environment()
        )
    begun = time.monotonic()
    try:
        while process.poll() is None:
            _tell(context, int(time.monotonic() - begun), f"seconds of merging by {method}")
            time.sleep(0.2)
    finally:
        if process.poll() is None:  # told to stop, or something broke here
            process.kill()
            process.wait()
    if process.returncode:
        raise _failure(process.returncode, log)


def _failure(code: int, log: Path) -> PermanentError:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    sys.stderr.write("\n".join(lines[-40:]) + "\n")
    return PermanentError("MergeFailed", f"mergekit ended with {code}: {lines[-1] if lines else 'it said nothing'}")


def _environment() -> dict[str, str]:
    """One thread and a fixed order of hashes, in which mergekit draws random numbers; no look at any hub."""
    fixed = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return {**os.environ, **fixed}


def _measures(inputs: MergeInputs, rows: list[geometry.Row], tried: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in merge.json: all of it follows from the inputs."""
    found: dict[str, Any] = {
        "schema": 1,
        "inputs": inputs.wire(),
        "summary": geometry.summary(rows),
        "tensors": [row.wire() for row in rows],
        "probe": _rounded(tried["probe"]),
    }
    return found | ({"barrier": _rounded(tried["barrier"])} if "barrier" in tried else {})


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON document
    """Six digits: what is behind them differs between machines."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _meta(inputs: MergeInputs, parameters: int, measures: Mapping[str, Any]) -> dict[str, Any]:
    barrier = measures.get("barrier")
    kept = ("method", "space", "t", "weights", "density", "lambda", "granularity", "parents", "base")
    document = {key: value for key, value in inputs.wire().items() if key in kept}
    return {
        "merge": document,
        "parameters": parameters,
        "geometry": measures["summary"],
        **({"barrier": barrier["barrier"]} if barrier else {}),
    }


def _metrics(parameters: int, measures: Mapping[str, Any], tried: Mapping[str, Any]) -> dict[str, float]:
    """Figures for the status: what was measured, and the memory that it took."""
    probe = measures["probe"]
    found = {
        "parameters": float(parameters),
        **measures["summary"],
        "probeLoss": probe["merge"]["loss"],
        "probeLossWorstParent": max(parent["loss"] for parent in probe["parents"]),
        "peakBytes": float(tried["peakBytes"]),
    }
    return found | ({"barrier": measures["barrier"]["barrier"]} if "barrier" in measures else {})
