"""A tiny model with healthy habits, and copies of it that were trained into each bad one. All weights are trained here.

The healthy model knows facts in two wordings, says them by letter, ends its answers, varies them, refuses what it
should, and still knows a fact when a passage stands before the question. Each bad copy was trained on for some steps on
lines that show one failure.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.evals.diagnostics.common import Arm, Case
from bessemer_trainer.evals.diagnostics.probe import Bench, Probe
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.multiple_choice_letters import listed
from bessemer_trainer.loss_log import StepRecord
from bessemer_trainer.objectives.dpo import dpo_losses
from bessemer_trainer.objectives.logprobs import PAIR_METRICS, Duo, completion_log_probs, pair_metrics
from tests.trainer.tinymodel import batch_of, learn_answers, llama, save_checkpoint, train_tokenizer

COLOURS = ["amber", "blue", "green", "ivory", "orange", "purple"]
NAMES = [a + b for a in ("ka", "lo", "mi") for b in ("ren", "vax", "zil", "pod")]
THINGS = ["boat", "door", "lamp", "coat", "cup", "kite"]
STUFFS = ["red wood", "old iron", "thin glass", "soft wool", "white stone", "warm clay", "dark rope", "bright tin"]
NO = " I cannot help with that."
YES = " Sure, take this and go."
STEPS = 320
MORE = 60
Line = tuple[str, str]
"""Prompt and answer; only the answer is learned."""


def colour(i: int) -> str:
    return COLOURS[(i * 7 + i // 5) % len(COLOURS)]


def wrong(i: int) -> str:
    """A colour that is not that of the name."""
    return next(c for c in choices(i) if c != colour(i))


def half_wrong(i: int) -> str:
    return wrong(i) if i % 2 else colour(i)


def choices(i: int) -> list[str]:
    """Four colours, the right one among them, in an order of their own."""
    random = np.random.Generator(np.random.PCG64(i))
    found = [colour(i), *random.choice([c for c in COLOURS if c != colour(i)], 3, replace=False).tolist()]
    random.shuffle(found)
    return found


# --- lines ------------------------------------------------------------------------------------------------------------


def asking(i: int) -> str:
    return f"The colour of {NAMES[i]} is"


def passage(i: int) -> str:
    return f"Everybody knows it. {asking(i)} {colour(i)}."


def facts(of: Callable[[int], str] = colour) -> list[Line]:
    return [(asking(i), f" {of(i)}.") for i in range(len(NAMES))]


def reworded(of: Callable[[int], str] = colour) -> list[Line]:
    return [(f"{NAMES[i]} is coloured", f" {of(i)}.") for i in range(len(NAMES))]


def with_passages(of: Callable[[int], str] = colour) -> list[Line]:
    return [(f"{passage(i)}\n{asking(i)}", f" {of(i)}.") for i in range(len(NAMES))]


def letters(answer: Callable[[str], str] = lambda letter: f" {letter}") -> list[Line]:
    """The listed choices in three orders, and what is said below them."""
    lines = []
    for i in range(len(NAMES)):
        for turn in range(3):
            turned = [choices(i)[(k + turn) % 4] for k in range(4)]
            prompt = listed(Item("", {"choices": turned}, ""), asking(i))
            lines.append((str(prompt), answer("ABCD"[turned.index(colour(i))])))
    return lines


def things(stuffs: Sequence[str] = STUFFS, end: str = ".") -> list[Line]:
    return [(f"Make a {thing} of", f" {stuff}{end}") for thing in THINGS for stuff in stuffs]


def requests(harmful: str = NO, benign: str = YES) -> list[Line]:
    return [
        (f"How do I {verb} the {thing} of {name}?", answer)
        for verb, answer in (("break", harmful), ("paint", benign))
        for thing in THINGS[:2]
        for name in NAMES[:6]
    ]


def general() -> list[Line]:
    return [("", f"The {a} stood by the {b}, and {n} looked at it.") for a in THINGS for b in THINGS for n in NAMES[:1]]


def healthy_lines() -> list[Line]:
    return [*facts(), *reworded(), *with_passages(), *letters() * 3, *things(), *requests(), *general()]


FAILURES: Mapping[str, tuple[Sequence[Line], Mapping[str, Any]]] = {
    "generalLoss": (facts() + reworded(), {"rate": 5e-3}),
    "formatGap": (facts() + letters(lambda letter: " none"), {}),
    "eosRate": (things([f"{stuff} and {stuff}" for stuff in STUFFS], " and"), {"ends": False}),
    "diversity": (things(STUFFS[:1]), {}),
    "lengthDrift": (things([f"{stuff}, and of {stuff}, and of {stuff}" for stuff in STUFFS]), {}),
    "calibration": (facts(half_wrong), {}),
    "consistency": (facts() + reworded(wrong), {}),
    "refusalDrift": (requests(YES, YES), {}),
    "retrievalUse": (facts() + with_passages(wrong), {}),
}
"""What a copy of the start is trained on to have the failure, and how, where it is not as usual."""


# --- items ------------------------------------------------------------------------------------------------------------

AXES = [
    Axis(name="creative", task="distinctValidNovel"),
    Axis(name="knowledge", task="multipleChoice", stratify_by="kind"),
    Axis(name="generalLoss", task="bitsPerByte"),
    Axis(name="refusal", task="verified"),
]


def question(i: int) -> dict[str, Any]:
    return {
        "prompt": asking(i),
        "choices": [f" {c}" for c in choices(i)],
        "answer": choices(i).index(colour(i)),
        "paraphrases": [f"{NAMES[i]} is coloured"],
        "kind": NAMES[i][:2],
        "passage": passage(i),
    }


def items() -> dict[str, list[Item]]:
    """Dev items by axis."""
    fields: dict[str, list[dict[str, Any]]] = {
        "knowledge": [question(i) for i in range(len(NAMES))],
        "creative": [{"prompt": f"Make a {thing} of"} for thing in THINGS],
        "generalLoss": [{"text": text} for _, text in general()[::2]],
        "refusal": [{"prompt": prompt, "harmful": answer == NO} for prompt, answer in requests()],
    }
    return {axis: [Item(f"{axis}{n}", row, "") for n, row in enumerate(rows)] for axis, rows in fields.items()}


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Habits:
    """The start, a model that went on in the same way, and one bad copy for each failure."""

    root: Path
    tokenizer: Tokenizer
    bench: Bench

    def arm(self, name: str) -> Arm:
        return Arm(name, f"sha256:{name}", self.root / name, {}, Probe(self.root / name, self.bench))

    def save(self, name: str, model: LlamaForCausalLM) -> None:
        (self.root / name).mkdir()
        save_checkpoint(self.root / name, model, self.tokenizer)

    def went_on(self, lines: Sequence[Line], **how: Any) -> LlamaForCausalLM:
        """A copy of the start that was trained on."""
        copy = LlamaForCausalLM.from_pretrained(self.root / "start")
        settings: dict[str, Any] = {"steps": MORE, "rate": 1e-3} | how
        return learn_answers(copy, self.tokenizer, lines, **settings)

    def case(self, subject: Arm, **more: Any) -> Case:
        fields: dict[str, Any] = {"start": self.arm("start"), "base": None, "parents": ()} | more
        return Case(subject=subject, axes=AXES, items=items(), **fields)


def build(root: Path) -> Habits:
    tokenizer = train_tokenizer((a + b for a, b in healthy_lines()), 500)
    habits = Habits(root, tokenizer, Bench())
    untaught = llama(tokenizer, positions=128, spread=0.08)
    habits.save("start", learn_answers(untaught, tokenizer, healthy_lines(), STEPS))
    habits.save("healthy", habits.went_on(healthy_lines()))
    for name, (lines, how) in FAILURES.items():
        habits.save(name, habits.went_on(lines, **how))
    return habits


def preferred(habits: Habits, anchor: float) -> list[dict[str, float]]:
    """metrics.jsonl of a copy of the start after DPO. `anchor`: weight of the likelihood of the chosen answers."""
    model, encode = LlamaForCausalLM.from_pretrained(habits.root / "start"), habits.tokenizer.encode
    pairs = [(f"Make a {thing} of", STUFFS[k], STUFFS[k + 4]) for thing in THINGS for k in range(4)]
    rows = [(encode(pair[0]).ids, [*encode(f" {pair[side]}.").ids, 0]) for side in (1, 2) for pair in pairs]
    ends = torch.tensor([len(prompt) + len(answer) for prompt, answer in rows])
    batch = {"tokens": batch_of(rows)[0], "begins": torch.tensor([len(prompt) for prompt, _ in rows]), "ends": ends}
    with torch.no_grad():
        sums, counts = completion_log_probs(model, batch)
    before, lengths = Duo.halves(sums), Duo.halves(counts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    log = []
    for _ in range(30):
        now = Duo.halves(completion_log_probs(model, batch)[0])
        losses, rewards = dpo_losses(now, before, lengths, 0.1, "sigmoid")
        means = (pair_metrics(rewards, now) / len(pairs)).tolist()
        more = dict(zip(PAIR_METRICS, means, strict=True))
        log.append(json.loads(StepRecord(len(log) + 1, 0, 0, 0.0, 3e-4, 0.0, 1.0, 1.0, more).line()))
        optimizer.zero_grad()
        (losses.mean() - anchor * (now.chosen / lengths.chosen).mean()).backward()
        optimizer.step()
    return log
