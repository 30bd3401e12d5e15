"""The design beside its alternatives: approach, measured benefits, risks that showed, resources, where each suits.

Every sentence derives from something measured or recorded in this pipeline. What was measured on dev items says so.
"""

from collections.abc import Sequence
from typing import Any

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.reporting import data, dev
from bessemer_trainer.reporting.choices import outputs
from bessemer_trainer.reporting.facts import Facts, Work
from bessemer_trainer.reporting.lineage import digests_in
from bessemer_trainer.reporting.resources import seconds_of
from bessemer_trainer.reporting.verdict import release_gate
from bessemer_trainer.reporting.words import artifact_names, duration, interval, listed, short_number, signed


def view(facts: Facts) -> list[dict[str, Any]]:
    """A block for every candidate, in the order of the declaration."""
    names = facts.spec.promotion.candidates if facts.spec.promotion else []
    made = outputs(facts)
    blocks = [_block(name, made.get(name), facts) for name in names]
    return [{**block, "suits": _suits(block, blocks, facts)} for block in blocks]


def _block(name: str, digest: str | None, facts: Facts) -> dict[str, Any]:
    own = ancestry(digest, facts)
    seconds = sum(seconds_of(work.status.attempts) * work.nodes for work in own)
    tokens = sum(work.log[-1]["tokens"] for work in own if work.log)
    return {
        "name": name,
        "digest": digest,
        "works": own,
        "approach": _approach(own),
        "benefits": _benefits(digest, facts),
        "risks": _risks(name, digest, own, facts),
        "node_seconds": seconds,
        "tokens": tokens,
        "resources": f"{short_number(tokens)} tokens trained, {duration(seconds)} on nodes, with all steps before it",
        "seeds": sorted({work.inputs.seed for work in own}),
    }


def ancestry(digest: str | None, facts: Facts) -> list[Work]:
    """Everything that an artifact was made from, first things first, and what made it."""
    makers = {work.status.output_digest: work for work in facts.works if work.status.output_digest}
    found: dict[str, Work] = {}

    def visit(one: str, path: tuple[str, ...]) -> None:
        work = makers.get(one)
        if work is None or work.name in found or one in path:
            return
        for source in digests_in(work.inputs):
            visit(source, (*path, one))
        found[work.name] = work

    if digest:
        visit(digest, ())
    return list(found.values())


def _approach(works: Sequence[Work]) -> str:
    steps = [f"{work.name} ({_method(work)})" for work in works if _method(work) not in {"prepare", "bank", "mixture"}]
    return " → ".join(steps) or "nothing was made yet"


def _method(work: Work) -> str:
    return work.stage.method if work.stage else work.merge.method if work.merge else ""


def _benefits(digest: str | None, facts: Facts) -> list[str]:
    """Differences to the gate's baseline: of the nominee as the gate saw them, of others on dev items."""
    gate = release_gate(facts)
    if gate is None or digest is None:
        return []
    if gate.candidate == digest and gate.axes:
        return [
            f"{axis.name} {signed(axis.delta)} ({interval(*axis.interval)}; gate, {axis.n:,} items)"
            for axis in gate.axes
        ]
    found = [(axis, dev.paired(facts, digest, gate.baseline, axis)) for axis in dev.axes_of(facts)]
    return [f"{a.name} {signed(e.delta)} ({interval(e.low, e.high)}; dev, {e.n:,} items)" for a, e in found if e]


def _risks(name: str, digest: str | None, works: Sequence[Work], facts: Facts) -> list[str]:
    own = {work.name for work in works}
    risks = [
        f"{d.name} of {d.subject}: {d.message}" for d in facts.diagnostics if d.state == "Alarm" and d.subject in own
    ]
    gate = release_gate(facts)
    baseline = gate.baseline if gate else None
    for axis in dev.axes_of(facts):
        evidence = dev.paired(facts, digest, baseline, axis)
        if evidence is not None and evidence.high < 0:
            risks.append(f"{axis.name} is lower than the baseline's on dev items ({signed(evidence.delta)})")
    if gate is not None and gate.candidate == digest:
        risks += [f"{axis.name} is shown to be worse at the gate" for axis in gate.axes if axis.state == "Worse"]
    for mixture in data.mixtures(facts):
        if mixture["name"] in own and mixture["repeated"]:
            risks.append(
                f"{mixture['name']} repeats {listed(mixture['repeated'])} more than {data.MANY_PASSES:g} times"
            )
    failed = sum(attempt.outcome == "Failed" for work in works for attempt in work.status.attempts)
    return [*risks, *([f"{failed} attempts failed on the way"] if failed else [])]


def _suits(block: dict[str, Any], blocks: Sequence[dict[str, Any]], facts: Facts) -> list[str]:
    """Where this candidate is the one to take, among those that were made."""
    made = [other for other in blocks if other["digest"]]
    if block["digest"] is None:
        return ["can not be said: it was not made"]
    if len(made) < 2:
        return ["there is no other candidate to compare it with"]
    best = [axis.name for axis in dev.axes_of(facts) if _is_best(block, made, axis, facts)]
    found = [f"where {listed(best)} counts most: best of {len(made)} on dev items"] if best else []
    if block["node_seconds"] and block["node_seconds"] == min(other["node_seconds"] for other in made):
        found.append("where compute is short: it took the least")
    if block["risks"] == [] and any(other["risks"] for other in made):
        found.append("where surprises cost most: nothing spoke against it")
    return found or ["nothing measured speaks for it over the others"]


def _is_best(block: dict[str, Any], made: Sequence[dict[str, Any]], axis: Axis, facts: Facts) -> bool:
    sign = -1 if dev.is_loss(axis) else 1
    means = {other["name"]: dev.mean_of(facts, other["digest"], axis.name) for other in made}
    known = {name: sign * mean for name, mean in means.items() if mean is not None}
    return len(known) == len(made) and known[block["name"]] == max(known.values())


def seeds(facts: Facts) -> dict[str, Any]:
    """All seeds, by what they are the seed of."""
    names = artifact_names(facts)
    return {
        "pipeline": facts.spec.seed,
        "works": [(work.name, work.inputs.seed) for work in facts.works if work.name in set(names.values())],
        "banks": [(bank.name, bank.seed) for bank in facts.spec.evaluation.banks],
    }
