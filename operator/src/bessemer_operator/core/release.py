"""From candidates to channels: the nominee, its gate, the approval, one channel after the other.

Pure. One verdict serves all channels: the nominee is judged against what the channel of the gate's baseline holds. What
passes goes to the first channel, and on to the next after its soak, with the same evidence, while the one before still
holds it. When the head of a channel is another than the one that was seen, the world is read and judged again.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from bessemer_api.job import ChannelHead, Made, PromoteTask
from bessemer_api.v1alpha1.gate import Gate
from bessemer_api.v1alpha1.pipeline import GateSummary
from bessemer_api.v1alpha1.promotion import Channel, Promotion
from bessemer_operator.core import conditions as c
from bessemer_operator.core.approval import Approval, find_approval
from bessemer_operator.core.choice import choose
from bessemer_operator.core.conditions import timestamp
from bessemer_operator.core.durations import parse_duration
from bessemer_operator.core.gating import GateRun, pending
from bessemer_operator.core.known import known_run
from bessemer_operator.core.merging import merge_words, run_until_merged
from bessemer_operator.core.provenance import made_by
from bessemer_operator.core.rollback import is_open, rollback_summary
from bessemer_operator.core.view import Choice, Release, Scene, Step, View, find_gate, judge

TIMED_OUT = "ApprovalTimedOut"


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be promoted: a candidate with its evidence, and who said so."""

    candidate: str
    gate: str
    evidence: str
    wins: tuple[str, ...]
    by: str
    is_override: bool = False
    lineage: tuple[Made, ...] = ()
    """All that it was made by, for its card."""


def with_release(scene: Scene, view: View) -> View:
    """The view with everything about promotion; as it is for a pipeline that promotes nothing."""
    promotion = scene.spec.promotion
    if promotion is None:
        return view
    gate = find_gate(scene.spec, promotion.gate)
    choice = choose(scene, view, gate)
    candidate = view.nodes[choice.nominee].output if choice.nominee else None
    if candidate is None:
        return _and(view, gate, _not_chosen(gate, choice), Release(choice))
    heads = {channel.name: view.heads.get(channel.name, ChannelHead()) for channel in promotion.channels}
    held = next((name for name, head in heads.items() if head.digest != candidate and candidate in head.held), None)
    if held is not None:
        run = known_run(scene, gate, candidate) or GateRun(pending(gate, "Held", "not judged: it is held"))
        why = ("Held", f"a rollback of channel {held} left this checkpoint; it is not promoted again")
        return _and(view, gate, run, Release(choice, candidate, refused=why))
    run, offer, release = _judged(scene, view, (gate, promotion), Release(choice, candidate), heads)
    if offer is not None and not _goes_back(scene, view):
        if any(head.digest != candidate for head in heads.values()):
            offer = replace(offer, lineage=made_by(view.nodes, choice.nominee))
        release = _on_the_way(scene, promotion, heads, offer, release)
    return _and(view, gate, run, release)


def _and(view: View, gate: Gate, run: GateRun, release: Release) -> View:
    return replace(view, gates={**view.gates, gate.name: run}, release=release)


def _not_chosen(gate: Gate, choice: Choice) -> GateRun:
    if choice.error:
        summary = pending(gate, "MeasurementFailed", choice.error[:1024])
        return GateRun(summary.model_copy(update={"verdict": "Error"}))
    return GateRun(pending(gate, "Choosing" if choice.wanted else "Waiting", choice.message))


def _goes_back(scene: Scene, view: View) -> bool:
    """While a rollback is asked for and not done, nothing is promoted."""
    summary = rollback_summary(scene.rollback, view.undoing, scene.pipeline.status.rollback)
    return is_open(scene.rollback, summary)


# --- the verdict, and what a person says ------------------------------------------------------------------------


def _judged(
    scene: Scene,
    view: View,
    rules: tuple[Gate, Promotion],
    release: Release,
    heads: dict[str, ChannelHead],
) -> tuple[GateRun, Offer | None, Release]:
    """The verdict, what may be promoted by it, and why not (yet)."""
    gate, candidate = rules[0], release.candidate or ""
    baseline = view.heads.get(gate.baseline.channel or "", ChannelHead())
    there = next((head for head in heads.values() if head.digest == candidate), None)
    is_settled = all(head.digest == candidate for head in heads.values()) or baseline.digest == candidate
    if is_settled and (found := there or baseline):
        run = known_run(scene, gate, candidate, found)
        assert run is not None  # noqa: S101 - a head is known
        return run, _offer_of(gate, run, found, candidate), release
    run = judge(scene, view.heads, gate, (release.choice.nominee, candidate), view.nodes)
    evidence = run.summary.evidence_digest
    if run.summary.verdict not in {"Passed", "Inconclusive"} or evidence is None:
        return run, None, release
    agreed = there if there is not None and there.evidence == evidence else _agreed_before(scene, rules[1], run.summary)
    if agreed is not None:
        return run, _offer_of(gate, run, agreed, candidate), release
    return _agreed(scene, rules, run, release, evidence)


def _agreed_before(scene: Scene, promotion: Promotion, summary: GateSummary) -> ChannelHead | None:
    """What this pipeline itself has promoted on this evidence: the annotation may have been taken away since."""
    status = scene.pipeline.status
    first = next((item for item in status.channels if item.name == promotion.channels[0].name), None)
    was_shown = any(gate.evidence_digest == summary.evidence_digest for gate in status.gates)
    if (
        first is None
        or not was_shown
        or first.digest != summary.candidate
        or first.kind not in {"promotion", "override"}
    ):
        return None
    fields = {"origin": first.kind, "kind": first.kind, "by": first.by, "evidence": summary.evidence_digest}
    return ChannelHead.model_validate(fields | {"digest": first.digest, "record": first.record, "at": first.at})


def _offer_of(gate: Gate, run: GateRun, head: ChannelHead, candidate: str) -> Offer:
    """What an earlier record of the candidate allows for the channels after."""
    is_override = head.origin == "override"
    wins = () if is_override else tuple(head.wins if head.wins is not None else run.wins)
    evidence = head.evidence or run.summary.evidence_digest or ""
    return Offer(candidate, head.gate or gate.name, evidence, wins, head.by or "bessemer", is_override)


def _agreed(
    scene: Scene, rules: tuple[Gate, Promotion], run: GateRun, release: Release, evidence: str
) -> tuple[GateRun, Offer | None, Release]:
    """Whether a person has to agree, and has."""
    gate, promotion = rules
    has_passed = run.summary.verdict == "Passed"
    candidate = release.candidate or ""
    if has_passed and not promotion.approval.required:
        return run, Offer(candidate, gate.name, evidence, run.wins, "bessemer"), release
    timeout = promotion.approval.timeout if has_passed else gate.on_inconclusive.timeout
    approval = _approval(scene, run, f"{candidate}/{evidence}", timeout)
    if approval.state == "Approved":
        wins = run.wins if has_passed else ()
        offer = Offer(candidate, gate.name, evidence, wins, approval.by, not has_passed)
        return run, offer, replace(release, is_override=not has_passed)
    if approval.state == "Waiting":
        return run, None, replace(release, waits=("WaitingForApproval", approval.message), requeue=approval.requeue)
    refused = ("Rejected" if approval.state == "Rejected" else TIMED_OUT, approval.message)
    if approval.state == "TimedOut" and not has_passed:
        message = f"{run.summary.message} {approval.message}."[:1024]
        late = {"verdict": "Failed", "reason": TIMED_OUT, "message": message}
        return replace(run, summary=run.summary.model_copy(update=late)), None, release
    return run, None, replace(release, refused=refused)


def _approval(scene: Scene, run: GateRun, wanted: str, timeout: str | None) -> Approval:
    """What the annotations say. The time runs from the end of the comparison that decided."""
    since = _parsed(run.judged_at)
    deadline = since + parse_duration(timeout) if since is not None and timeout is not None else None
    notes = scene.pipeline.metadata.annotations
    return find_approval(notes, wanted, deadline, scene.jobs.now, was_late=_was_late(scene, run.summary))


def _was_late(scene: Scene, summary: GateSummary) -> bool:
    """Whether the status says so for this generation: an approval that comes later must not undo it."""
    status = scene.pipeline.status
    if status.observed_generation != scene.pipeline.metadata.generation:
        return False
    known = next((gate for gate in status.gates if gate.name == summary.name), None)
    if known is None or known.evidence_digest != summary.evidence_digest:
        return False
    promoted = c.find(status.conditions, c.PROMOTED)
    return known.reason == TIMED_OUT or (promoted is not None and promoted.reason == TIMED_OUT)


# --- channel after channel --------------------------------------------------------------------------------------


def _on_the_way(
    scene: Scene, promotion: Promotion, heads: dict[str, ChannelHead], offer: Offer, release: Release
) -> Release:
    """As many steps as can be taken now."""
    steps: list[Step] = []
    for channel in promotion.channels:
        before = steps[-1] if steps else None
        steps.append(_step(scene, channel, heads[channel.name], offer, before))
        if not steps[-1].is_there:
            break
    release = replace(release, steps=tuple(steps), is_override=offer.is_override)
    last = steps[-1]
    if last.due is not None and last.state is None:
        message = f"channel {steps[-2].channel} holds it since {steps[-2].at}; {last.channel} follows at "
        wait = ("Soaking", f"{message}{timestamp(last.due)}")
        return replace(release, waits=wait, requeue=last.due - scene.jobs.now)
    if last.state is None and not last.is_there:
        message = f"the record of channel {steps[-2].channel if before else last.channel} names no evidence"
        return replace(release, refused=("EvidenceMissing", message))
    if last.merge is not None:
        return replace(release, waits=merge_words(last.merge), requeue=last.requeue)
    outcome = last.report.outcome if last.report else ""
    if outcome == "LeftBefore":
        message = f"channel {steps[-2].channel} no longer holds it, so {last.channel} does not follow"
        return replace(release, refused=("LeftBefore", message))
    if outcome == "Held":
        message = f"a rollback of channel {last.channel} left this checkpoint; it is not promoted again"
        return replace(release, refused=("Held", message))
    return release


def _step(scene: Scene, channel: Channel, head: ChannelHead, offer: Offer, before: Step | None) -> Step:
    if head.digest == offer.candidate:
        return Step(channel.name, True, head.record, head.at, kind=head.kind or "", by=head.by or "")
    since = _parsed(before.at) if before is not None else None
    if since is not None and channel.after is not None:
        due = since + parse_duration(channel.after.soak)
        if due > scene.jobs.now:
            return Step(channel.name, due=due)
    if not offer.evidence:
        return Step(channel.name)
    known = next((item.merge for item in scene.pipeline.status.channels if item.name == channel.name), None)
    merging = run_until_merged(scene.jobs, "promote", _task(scene, channel, head, offer, before), known)
    state = merging.state
    report = state.report.promote if state.report else None
    if report is not None and report.outcome in {"Promoted", "AlreadyPromoted"}:
        kind = "override" if offer.is_override else "promotion"
        return Step(channel.name, True, report.record, report.at, state=state, kind=kind, by=offer.by)
    return Step(channel.name, state=state, merge=merging.wait, requeue=merging.due)


def _task(scene: Scene, channel: Channel, head: ChannelHead, offer: Offer, before: Step | None) -> PromoteTask:
    metadata = scene.pipeline.metadata
    return PromoteTask(
        channel=channel.name,
        candidate=offer.candidate,
        record=head.record,
        gate=offer.gate,
        evidence=offer.evidence,
        wins=list(offer.wins),
        pipeline=f"{metadata.namespace}/{metadata.name}",
        pipeline_uid=metadata.uid,
        by=offer.by,
        override=True if offer.is_override else None,
        after=before.channel if before is not None else None,
        lineage=list(offer.lineage) or None,
        git=channel.git,
    )


def _parsed(text: str) -> datetime | None:
    """A time as pods and controllers write it; None for anything else."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
