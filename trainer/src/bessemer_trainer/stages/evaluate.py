"""evaluate: measure one checkpoint on one range of one part of a bank, and store the result of every item.

It compares nothing and decides nothing. Equal inputs give equal artifacts on one machine: one thread, deterministic
kernels, batches that depend on the items only. Settings that both arms of a comparison must share stand in the
manifest, so that `compare` can refuse arms that were measured differently.

Of gate items nothing is summed up here, neither in the report nor in the manifest: their numbers come from `compare`,
which registers the try first. Whoever may read the store can still read the results of the items.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bessemer_api.digest import canonical_json
from bessemer_api.v1alpha1.evaluation import Axis, EvaluationInputs
from bessemer_api.v1alpha1.tasks import TaskName
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import kind_of
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals import (
    bits_per_byte,
    distinct_valid_novel,
    exact_match,
    first_token_latency,
    handoff,
    json_answer,
    lm_eval_task,
    multiple_choice,
    session_cost,
    tool_call,
    verifiable_constraints,
    verified,
)
from bessemer_trainer.evals.common import Sample
from bessemer_trainer.evals.determinism import deterministic
from bessemer_trainer.evals.items import Item, parse_items, read_items
from bessemer_trainer.evals.subject import Measure, load_subject

RECIPE = 1
"""Version of this evaluator. It changes when the same inputs give another score."""

MEASURES: Mapping[TaskName, Measure] = {
    "multipleChoice": multiple_choice.measure,
    "bitsPerByte": bits_per_byte.measure,
    "exactMatch": exact_match.measure,
    "jsonAnswer": json_answer.measure,
    "reasoningGym": verified.measure,
    "verifiableConstraints": verifiable_constraints.measure,
    "distinctValidNovel": distinct_valid_novel.measure,
    "toolCall": tool_call.measure,
    "handoff": handoff.measure,
    "verified": verified.measure,
    "firstTokenLatency": first_token_latency.measure,
    "sessionCost": session_cost.measure,
    "lmEval": lm_eval_task.measure,
}


@dataclass(frozen=True, slots=True)
class Work:
    """One axis and its items."""

    axis: Axis
    items: Sequence[Item]


def run(context: Context) -> Outcome:
    """Publishes an artifact `evaluation` with `samples_<axis>.jsonl`. Raises PermanentError for unusable inputs."""
    inputs = context.spec.evaluate
    assert inputs is not None  # noqa: S101 - __main__ has checked that the field of the verb is set
    if inputs.recipe != RECIPE:
        raise PermanentError("UnknownRecipe", f"recipe is {inputs.recipe}; this evaluator is version {RECIPE}")
    work = _read_bank(context, inputs)
    with deterministic():
        samples = _measure_all(context, inputs, work)
    means = _means(inputs, samples)
    digest = context.store.publish(_write(context.scratch, samples), "evaluation", _meta(inputs, means))
    return Outcome(output_digest=digest, metrics=means)


def _means(inputs: EvaluationInputs, samples: Mapping[str, Sequence[Sample]]) -> dict[str, float]:
    """Mean by axis of dev items and regression cases. None of gate items: `compare` alone sums those up, and counts."""
    if inputs.part == "gate":
        return {}
    return {axis: sum(s.score for s in found) / len(found) for axis, found in samples.items()}


def _read_bank(context: Context, inputs: EvaluationInputs) -> list[Work]:
    folder = fetch(context, inputs.bank, "bank")
    work = []
    for axis in inputs.axes:
        path = folder / f"{axis.name}.{inputs.part}.jsonl"
        if not path.is_file():
            raise PermanentError(
                "NoItems",
                f"bank {inputs.bank} has no {inputs.part} items of axis {axis.name}; "
                "add a task of that name to evaluation.banks[].tasks",
            )
        whole = inputs.part == "all"
        items = parse_items(path)[inputs.start : inputs.end] if whole else read_items(path, inputs.start, inputs.end)
        work.append(Work(axis, items))
    return work


def fetch(context: Context, digest: str, kind: str) -> Path:
    """The verified files of an artifact of that kind."""
    found = context.store.manifest(digest).kind
    if found != kind:
        raise PermanentError("WrongKind", f"{digest} is an artifact of kind {found}; expected {kind}")
    return context.store.fetch(digest)


def _measure_all(context: Context, inputs: EvaluationInputs, work: Sequence[Work]) -> dict[str, list[Sample]]:
    checkpoint = fetch(context, inputs.checkpoint, "checkpoint")
    training = [
        (fetch(context, digest, "data") / "documents.jsonl", kind_of(context.store, digest))
        for digest in inputs.training_data or ()
    ]
    subject = load_subject(checkpoint, inputs.precision, inputs.seed, training)
    total = sum(len(part.items) for part in work)
    samples: dict[str, list[Sample]] = {}
    for part in work:
        before = sum(map(len, samples.values()))
        report = _reporter(context, before, total, part.axis.name)
        report(0)
        samples[part.axis.name] = MEASURES[part.axis.task](subject, part.items, part.axis, report)
    return samples


def _reporter(context: Context, before: int, total: int, axis: str) -> Callable[[int], None]:
    return lambda done: context.progress.update(before + done, total, f"axis {axis}")


def _write(scratch: Path, samples: Mapping[str, Sequence[Sample]]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="evaluation-", dir=scratch))
    for axis, found in samples.items():
        lines = b"".join(canonical_json(sample.line()) + b"\n" for sample in found)
        (folder / f"samples_{axis}.jsonl").write_bytes(lines)
    return folder


def _meta(inputs: EvaluationInputs, means: Mapping[str, float]) -> dict[str, Any]:
    """`settings` is everything that two arms must share; kernels of another device class round differently."""
    settings = inputs.wire()
    checkpoint = settings.pop("checkpoint")
    settings["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    return {"checkpoint": checkpoint, "settings": settings, **({"means": dict(means)} if means else {})}
