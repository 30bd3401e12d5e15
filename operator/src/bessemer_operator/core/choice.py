"""The choice between several candidates: which dev evaluations it needs, whom it chooses, and what it remembers.

Pure. Made once for the same candidates, gate and bank: `status.nomination` remembers it, so that a channel that moved
meanwhile (by this very promotion, say) does not let a second candidate see the gate. The rule itself is nominee.py's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bessemer_api.digest import canonical_json, input_digest, sha256_digest
from bessemer_api.v1alpha1.evaluation import Evaluation, EvaluationInputs
from bessemer_api.v1alpha1.gate import Gate
from bessemer_api.v1alpha1.promotion import CandidateSummary, NominationSummary
from bessemer_operator.core.gating import Contest, gate_digest, measurement
from bessemer_operator.core.lineage import ancestors
from bessemer_operator.core.nominee import Figures, best, figures, why
from bessemer_operator.core.view import Choice, Scene, View, bank_of, find_contest, find_gate, measures


@dataclass(frozen=True, slots=True)
class Entry:
    """One candidate: its checkpoint once it is made, or why there will be none, or what it waits for."""

    name: str
    digest: str = ""
    failed: str = ""
    waits: str = ""
    is_held: bool = False

    @property
    def row(self) -> CandidateSummary:
        """Its line in the status before anything was measured."""
        state = "Failed" if self.failed else "Waiting" if self.waits else "Held" if self.is_held else "Evaluating"
        message = (self.failed or self.waits)[:1024]
        return CandidateSummary.model_validate(
            {"name": self.name, "digest": self.digest or None, "state": state, "message": message}
        )


def choose(scene: Scene, view: View, gate: Gate) -> Choice:
    """The nominee among the candidates of the promotion."""
    names = scene.spec.promotion.candidates if scene.spec.promotion else []
    if len(names) == 1:
        node = view.nodes[names[0]]
        is_ready = node.output is not None and not node.held
        return Choice(node.name if is_ready else "", "" if is_ready else node.held or f"waits for {node.name}")
    entries = [_entry(scene, view, name) for name in names]
    rows, spared = tuple(entry.row for entry in entries), _spared(scene, view, entries)
    waiting = [entry.name for entry in entries if entry.waits]
    alive = [entry for entry in entries if entry.digest and not entry.failed]
    if waiting or not alive or not view.is_read:
        words = f"waits for {', '.join(waiting)}" if waiting else "no candidate can be judged"
        return Choice("", words[:1024], rows, spared=spared)
    basis = _basis(scene, view, gate, entries)
    known = scene.pipeline.status.nomination
    if known is not None and known.basis == basis:
        kept = _kept(scene, rows)
        figured = {row.name for row in kept if row.axes}
        wanted = tuple(
            item for entry in alive if entry.name in figured for item in _dev_of(scene, view, gate, entry)[:1]
        )
        return Choice(known.name, known.message, kept, known, wanted, spared)
    free = [entry for entry in alive if not entry.is_held] or alive[:1]
    if len(free) == 1:
        return _named(rows, free[0], basis, f"{free[0].name}: no other candidate can be judged", spared)
    return _measured(scene, view, gate, rows, free, (basis, spared))


def _measured(
    scene: Scene,
    view: View,
    gate: Gate,
    rows: tuple[CandidateSummary, ...],
    free: Sequence[Entry],
    known: tuple[str, frozenset[str]],
) -> Choice:
    """The choice by dev evaluations, as soon as all are there."""
    basis, spared = known
    wanted = {entry.name: _dev_of(scene, view, gate, entry) for entry in free}
    every = tuple({input_digest(item): item for items in wanted.values() for item in items}.values())
    if not all(wanted.values()):
        return Choice("", "waits for the baseline and the bank", rows, spared=spared)
    broken = [text for item in every if (text := _failure(scene.evaluations.get(input_digest(item))))]
    if broken:
        return Choice("", f"dev items: {broken[0]}"[:1024], rows, wanted=every, spared=spared, error=broken[0])
    if not all(_means(scene.evaluations, item) for item in every):
        return Choice("", "dev items: waits for evaluations", rows, wanted=every, spared=spared)
    try:
        found = [_figures(scene, gate, entry.name, wanted[entry.name]) for entry in free]
    except (KeyError, ValueError) as error:
        return Choice("", "", rows, wanted=every, spared=spared, error=f"dev items: no mean of {error}")
    chosen = best(found)
    digest = next(entry.digest for entry in free if entry.name == chosen.name)
    message = why(chosen, found)
    by_name = {item.name: item for item in found}
    return Choice(
        chosen.name,
        message,
        tuple(_with_figures(row, by_name.get(row.name), chosen.name) for row in rows),
        NominationSummary(name=chosen.name, digest=digest, basis=basis, message=message),
        every,
        spared,
    )


def _named(
    rows: tuple[CandidateSummary, ...], entry: Entry, basis: str, message: str, spared: frozenset[str]
) -> Choice:
    """The only one that is left: nothing has to be measured."""
    named = NominationSummary(name=entry.name, digest=entry.digest, basis=basis, message=message)
    marked = tuple(row.model_copy(update={"state": "Nominee"}) if row.name == entry.name else row for row in rows)
    return Choice(entry.name, message, marked, named, spared=spared)


def _kept(scene: Scene, rows: tuple[CandidateSummary, ...]) -> tuple[CandidateSummary, ...]:
    """The lines of the choice that was made, with the figures that it was made by."""
    before = {row.name: row for row in scene.pipeline.status.candidates}
    return tuple(before.get(row.name, row) for row in rows)


def _with_figures(row: CandidateSummary, found: Figures | None, chosen: str) -> CandidateSummary:
    if found is None:
        return row
    return row.model_copy(
        update={
            "state": "Nominee" if row.name == chosen else "NotChosen",
            "axes": list(found.axes),
            "wins": len(found.wins),
            "broken": list(found.broken),
            "score": round(found.score, 6),
        }
    )


# --- what is known of a candidate -------------------------------------------------------------------------------


def _entry(scene: Scene, view: View, name: str) -> Entry:
    node = view.nodes[name]
    failed = "" if not view.is_read else _why_never(scene, view, name)
    if failed:
        return Entry(name, node.output or "", failed=failed)
    if node.output is None or node.held:
        return Entry(name, waits=node.held or f"waits for {name}")
    channels = scene.spec.promotion.channels if scene.spec.promotion else []
    heads = [view.heads[channel.name] for channel in channels if channel.name in view.heads]
    return Entry(name, node.output, is_held=any(node.output in head.held for head in heads))


def _why_never(scene: Scene, view: View, name: str) -> str:
    """What failed for good, or which gate has refused, on the way to a candidate; empty while there is hope."""
    refused = {
        run.summary.name: run.summary
        for run in view.gates.values()
        if run.is_over and run.summary.verdict != "Passed" and find_gate(scene.spec, run.summary.name).mode == "enforce"
    }
    for item in sorted(ancestors(view.nodes, name)):
        node = view.nodes[item]
        if node.digest is not None and node.digest in scene.failed:
            return f"{item}: {scene.failed[node.digest]}"
        gate = node.stage.gate if node.stage is not None else None
        if node.held and gate in refused:
            return f"{item}: gate {gate}: {refused[gate].verdict}: {refused[gate].message}"
    return ""


def _spared(scene: Scene, view: View, entries: Iterable[Entry]) -> frozenset[str]:
    """Nodes that only failed candidates need: nobody waits for them, while another candidate goes on."""
    entries = list(entries)
    lost = [entry.name for entry in entries if entry.failed]
    going_on = [entry.name for entry in entries if not entry.failed]
    if not going_on:
        return frozenset()
    baselines = [part for gate in scene.spec.gates for part in (gate.baseline, gate.baseline.or_else) if part]
    others = [part.stage for part in baselines if part.stage]
    others += [name for gate in scene.spec.gates for name in gate.also_against]
    needed = {node for name in (*going_on, *others) if name in view.nodes for node in ancestors(view.nodes, name)}
    return frozenset(node for name in lost for node in ancestors(view.nodes, name)) - needed


def _basis(scene: Scene, view: View, gate: Gate, entries: Iterable[Entry]) -> str:
    """What the choice was made between, and by what: another basis is another choice."""
    bank = view.nodes[f"bank-{bank_of(scene.spec, gate)}"].output
    digests = [entry.digest if not entry.failed else "" for entry in entries]
    return sha256_digest(canonical_json([digests, gate_digest(gate, measures(scene.spec, gate)), bank]))


# --- dev evaluations --------------------------------------------------------------------------------------------


def _dev_of(scene: Scene, view: View, gate: Gate, entry: Entry) -> tuple[EvaluationInputs, ...]:
    """The measurements of a candidate and of the baseline on all dev items; none while something is missing."""
    contest = find_contest(scene.spec, view.heads, gate, (entry.name, entry.digest), view.nodes)
    items = next(bank.dev for bank in scene.spec.evaluation.banks if bank.name == bank_of(scene.spec, gate))
    if contest is None or not items:
        return ()
    return tuple(_dev(contest, checkpoint, items) for checkpoint in (entry.digest, contest.baseline))


def _dev(contest: Contest, checkpoint: str, items: int) -> EvaluationInputs:
    return measurement(contest, checkpoint, (0, items), "dev")


def _failure(evaluation: Evaluation | None) -> str:
    if evaluation is None or evaluation.status.phase != "Failed":
        return ""
    said = evaluation.status.conditions[0].message if evaluation.status.conditions else ""
    return f"evaluation {evaluation.metadata.name} failed: {said}"


def _means(evaluations: Mapping[str, Evaluation], item: EvaluationInputs) -> Mapping[str, float]:
    """Means by axis of a dev evaluation that is done; empty while it is not."""
    found = evaluations.get(input_digest(item))
    return found.status.metrics if found is not None and found.status.output_digest else {}


def _figures(scene: Scene, gate: Gate, name: str, pair: Sequence[EvaluationInputs]) -> Figures:
    ours, theirs = (_means(scene.evaluations, item) for item in pair)
    return figures(name, gate, measures(scene.spec, gate), ours, theirs, pair[0].end)
