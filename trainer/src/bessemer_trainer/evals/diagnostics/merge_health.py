"""mergeHealth: is there a loss barrier between the parents, and do merge and parents agree in tokenizer and template?

The barrier is the largest excess of the loss on the way from the first parent to the second over the straight line
between their losses (Frankle et al. 2020), in nats a token. Where the merge has measured it itself, that is taken;
else it is measured here on dev texts. Angles and linear fallbacks are those that the merge reported.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from bessemer_api.v1alpha1.diagnostic import Diagnostic
from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.artifacts import TOKENIZER_FILES
from bessemer_trainer.evals import bits_per_byte
from bessemer_trainer.evals.diagnostics.common import Arm, Case, Finding, NotThereError, items_for, table
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import load_subject

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Factors of the straight line at which the loss is measured."""

_TEXT_FILES = (*TOKENIZER_FILES, "chat_template.jinja")


def detect(case: Case, diagnostic: Diagnostic) -> Finding:
    """Barrier, equality and finiteness of a merge."""
    if len(case.parents) < 2:
        raise NotThereError("it is no merge")
    broken = [*_unequal(case.subject, case.parents), *_not_finite(case.subject)]
    measured = _barrier(case, diagnostic)
    height = float(measured["barrier"])
    is_alarm = height > diagnostic.level or bool(broken)
    words = f"loss barrier {height:.3f} nats a token" + (f"; {'; '.join(broken)}" if broken else "")
    rows = list(zip(measured["points"], measured["losses"], strict=True))
    figures = {"barrier": table("Loss along t", ["t", "nats a token"], rows)}
    return Finding("Alarm" if is_alarm else "Quiet", words, height, diagnostic.level, figures=figures)


def _barrier(case: Case, diagnostic: Diagnostic) -> Mapping[str, Any]:
    told = case.subject.meta.get("barrier")
    if isinstance(told, Mapping) and {"points", "losses", "barrier"} <= told.keys():
        return told
    axis, items = items_for(case, diagnostic, ["bitsPerByte"])
    losses = _losses(case.parents[0].folder, case.parents[1].folder, items, axis)
    excess = [loss - ((1 - t) * losses[0] + t * losses[-1]) for t, loss in zip(POINTS, losses, strict=True)]
    return {"points": list(POINTS), "losses": losses, "barrier": max(0.0, *excess)}


def _losses(first: Path, second: Path, items: Sequence[Item], axis: Axis) -> list[float]:
    """Loss in nats a token at each point of the straight line from the first parent to the second."""
    subject = load_subject(first, "fp32")
    model: Any = subject.model
    ends = [model.state_dict() for model in (load_subject(folder, "fp32").model for folder in (first, second))]
    tokens = sum(len(subject.encoder.encode(item.fields["text"])) - 1 for item in items)
    losses = []
    for t in POINTS:
        model.load_state_dict({name: torch.lerp(value, ends[1][name], t) for name, value in ends[0].items()})
        samples = bits_per_byte.measure(subject, items, axis, lambda done: None)
        losses.append(math.fsum(float(sample.detail["nats"]) for sample in samples) / tokens)
    return losses


def _unequal(subject: Arm, parents: Sequence[Arm]) -> list[str]:
    """Files of the tokenizer and its template that differ between the merge and a parent, and other ends of text."""
    found = [
        f"{name} differs from that of {parent.name}"
        for parent in parents
        for name in _TEXT_FILES
        if _bytes(subject.folder / name) != _bytes(parent.folder / name)
    ]
    ends = [parent.name for parent in parents if _end(parent.folder) != _end(subject.folder)]
    return [*found, *(f"its end of text is not that of {name}" for name in ends)]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _end(folder: Path) -> Any:  # noqa: ANN401 - a number, a list of numbers or nothing
    return json.loads((folder / "config.json").read_bytes()).get("eos_token_id")


def _not_finite(subject: Arm) -> list[str]:
    for path in sorted(subject.folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                if not bool(torch.isfinite(tensors.get_tensor(name)).all()):
                    return [f"{name} holds NaN or infinity"]
    return []
