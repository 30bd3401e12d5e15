"""The rows of docs/conditions.md, and how a pipeline comes to each: played by the real reconcile in a World.

Tests compare what the page says of a situation with the conditions that are then there.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from bessemer_api.job import EXIT_PERMANENT, PromoteTask, RunSpec
from tests.api.documents import ABSENT, PIPELINE, edited
from tests.support.world import Ending, Script, World, failure

PAGE = Path(__file__).parents[2] / "docs/conditions.md"
Edits = dict[str, Any]
ASKED: Edits = {"spec.promotion.approval": {"required": True, "timeout": "2h"}}
OVERRIDE: Edits = {"spec.gates.1.onInconclusive": {"then": "requireApproval", "timeout": "2h"}}
SOAKED: Edits = {"spec.promotion.channels": [{"name": "early"}, {"name": "prod", "after": {"soak": "72h"}}]}
PROPOSED: Edits = {
    "spec.promotion.channels": [
        {
            "name": "prod",
            "git": {
                "repository": "https://git.example.com/org/deploy.git",
                "path": "service.yaml",
                "key": "spec.uri",
                "mode": "pullRequest",
                "provider": "gitea",
                "pollEvery": "2h",
            },
        }
    ]
}
OTHER_RATE: Edits = {"spec.stages.2.train.learningRate": 0.003}
UNCLEAR = {("release", 1): "unclear", ("release", 2): "unclear"}


@dataclass(frozen=True)
class Expected:
    """What a cell of the table says of one condition: its status, and any of these reasons (none: any)."""

    status: str
    reasons: frozenset[str]

    def is_met_by(self, condition: dict[str, Any] | None) -> bool:
        if condition is None:
            return False
        return condition["status"] == self.status and (not self.reasons or condition["reason"] in self.reasons)


def table() -> dict[str, dict[str, Expected]]:
    """The page: by situation, what it says of each condition. Cells like "as known" say nothing."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    kinds = [cell.strip() for cell in lines[0].strip("|").split("|")][1:]
    found = {}
    for line in lines[2:]:
        situation, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        said = {kind: _expected(cell) for kind, cell in zip(kinds, cells, strict=False)}
        found[situation] = {kind: item for kind, item in said.items() if item is not None}
    return found


def _expected(cell: str) -> Expected | None:
    word = re.match(r"(True|False|Unknown)\b", cell)
    named = cell.partition("for example")[0]
    return Expected(word[1], frozenset(re.findall(r"`([A-Z]\w+)`", named))) if word else None


async def _applied(world: World, edits: Edits | None = None, script: Script | None = None) -> None:
    if script is not None:
        world.node.script = script
    await world.apply(edited(PIPELINE, edits or {}))
    await world.settle()


def _when(verb: str, ending: Callable[[RunSpec], Ending | str]) -> Script:
    """Runs of this verb, or stages of this method, end so."""
    return lambda spec, name: ending(spec) if (spec.stage.method if spec.stage else spec.verb) == verb else None


def _hang(_: RunSpec) -> str:
    return "hang"


def _comparing(spec: RunSpec, name: str) -> str | None:
    """The comparison of the release gate goes on and on."""
    return "hang" if spec.compare is not None and spec.compare.gate == "release" else None


def _bad(spec: RunSpec) -> Ending:
    return failure(spec, EXIT_PERMANENT, "BadData", "line 7: text is missing")


async def _waiting_for(world: World) -> str:
    gates = (await world.pipeline())["status"]["gates"]
    gate = next(gate for gate in gates if gate["name"] == "release")
    return f"{gate['candidate']}/{gate['evidenceDigest']}"


async def _approved(world: World, edits: Edits) -> None:
    await _applied(world, edits)
    await world.annotate("poems", approve=await _waiting_for(world), approved_by="ana")
    await world.settle()


async def _later(world: World, edits: Edits, hours: float) -> None:
    await _applied(world, edits)
    world.now += timedelta(hours=hours)
    await world.settle()


async def _retraining(world: World) -> None:
    await _applied(world)
    await _applied(world, OTHER_RATE, _when("cpt", _hang))


async def _no_room(world: World) -> None:
    """What the scheduler writes is written here; time passes its profile's pendingDeadline."""
    await _applied(world, None, _when("cpt", _hang))
    [pod] = [pod for pod in await world.all("Pod") if (pod.get("status") or {}).get("phase") == "Running"]
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient memory"}
    condition = {**waits, "lastTransitionTime": world.cluster._now()}
    await world.node._status(pod, {"phase": "Pending", "conditions": [condition]})
    world.now += timedelta(minutes=11)
    await world.settle()


async def _rejected(world: World) -> None:
    await _applied(world, ASKED)
    await world.annotate("poems", reject=await _waiting_for(world), rejected_by="bo")
    await world.settle()


async def _unclear(world: World, then: Callable[[World], Awaitable[None]]) -> None:
    world.store.verdicts |= UNCLEAR
    await then(world)


async def _verdict(world: World, verdict: str) -> None:
    world.store.verdicts[("release", 1)] = verdict
    await _applied(world)


async def _proposed(world: World) -> None:
    world.store.unmerged = {"prod"}
    await _applied(world, PROPOSED)


async def _left_before(world: World) -> None:
    await _applied(world, SOAKED)
    [first] = world.store.channels["early"]
    rival: PromoteTask = first.model_copy(update={"candidate": f"sha256:{'9' * 64}"})
    world.store.channels["early"].append(rival)
    world.now += timedelta(hours=73)
    await world.settle()


async def _two_releases(world: World) -> str:
    await _applied(world)
    await _applied(world, OTHER_RATE)
    return str(world.store.channels["prod"][0].candidate)


async def _rolled_back(world: World, script: Script | None = None) -> None:
    first = await _two_releases(world)
    world.node.script = script or world.node.script
    await world.annotate("poems", rollback=f"{first}/1", rollback_by="ana")
    await world.settle()


async def _annotated(world: World, **notes: str) -> None:
    await _applied(world)
    await world.annotate("poems", **notes)
    await world.settle()


SITUATIONS: Mapping[str, Callable[[World], Awaitable[None]]] = {
    "first run, data or stages under way": lambda w: _applied(w, {}, _when("pretrain", _hang)),
    "retraining beside a live incumbent": _retraining,
    "evaluations or comparison under way": lambda w: _applied(w, {}, _comparing),
    "promoted": _applied,
    "passed, a person must agree": lambda w: _applied(w, ASKED),
    "inconclusive, a person may agree": lambda w: _unclear(w, lambda w: _applied(w, OVERRIDE)),
    "promoted by override": lambda w: _unclear(w, lambda w: _approved(w, OVERRIDE)),
    "rejected": _rejected,
    "passed, nobody agreed in time": lambda w: _later(w, ASKED, 3),
    "inconclusive, nobody agreed in time": lambda w: _unclear(w, lambda w: _later(w, OVERRIDE, 3)),
    "the channel's change is proposed in git, a person must merge it": _proposed,
    "an earlier channel holds it, the next follows later": lambda w: _applied(w, SOAKED),
    "the earlier channel left it during the soak": _left_before,
    "a rollback is under way": lambda w: _rolled_back(w, _when("rollback", _hang)),
    "held after a rollback": _rolled_back,
    "a rollback was refused": lambda w: _rolled_back(w, _when("rollback", _bad)),
    "gate refused": lambda w: _verdict(w, "worse"),
    "gate can not judge": lambda w: _verdict(w, "invalid"),
    "measuring broke": lambda w: _applied(w, {"spec.stages.2.gate": ABSENT}, _when("evaluate", _bad)),
    "a pod waits for longer than its profile's `pendingDeadline`": _no_room,
    "a stage failed for good": lambda w: _applied(w, {}, _when("cpt", _bad)),
    "the promotion Job failed": lambda w: _applied(w, {}, _when("promote", _bad)),
    "suspended (`spec.suspend` or the annotation)": lambda w: _applied(w, {"spec.suspend": True}),
    "the declaration is invalid": lambda w: _applied(w, {"spec.stages.2.data.mixture.0.ref": "nothing"}),
    "an annotation is malformed": lambda w: _annotated(w, retry="two words"),
}
ELSEWHERE = {
    "candidates are measured on dev items": "tests/operator/reconcile/test_release.py",
    "one of several candidates failed": "tests/operator/reconcile/test_release.py",
    "an unchanged pipeline reads the world again": "tests/operator/reconcile/test_pipeline.py",
    "the channel moved on while judging": "tests/operator/reconcile/test_pipeline.py",
    "what is still to run costs more than `budget.gpuHours` by estimate": "tests/operator/core/test_budget.py",
}
"""Rows that need more than one pipeline and its nodes, or say nothing of conditions: where they are tested."""
