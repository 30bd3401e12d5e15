"""The verdict of a candidate that was judged before: from the status, else from the reports of earlier comparisons.

Pure. Nothing is measured again for what a channel holds already; but what was shown then stays in sight, also after an
edit that was taken back.
"""

from collections.abc import Iterable
from dataclasses import replace

from bessemer_api.job import ChannelHead, RunReport
from bessemer_api.v1alpha1.gate import Gate
from bessemer_api.v1alpha1.pipeline import GateSummary
from bessemer_operator.core.gate import decide
from bessemer_operator.core.gating import GateRun
from bessemer_operator.core.podreport import kept_report, parse_report
from bessemer_operator.core.verdict import Asked
from bessemer_operator.core.view import Scene


def known_run(scene: Scene, gate: Gate, candidate: str, head: ChannelHead | None = None) -> GateRun | None:
    """The verdict on the candidate, with its numbers where they are known; with a head, at least that it was given."""
    for known in scene.pipeline.status.gates:
        is_it = known.name == gate.name and known.candidate == candidate and known.evidence_digest is not None
        if is_it and known.axes and (head is None or known.verdict == _verdict(head)):
            return GateRun(known)
    if head is None:
        return None
    found = _from_jobs(scene, gate, head)
    return found if found is not None else GateRun(_bare(gate, head))


def _verdict(head: ChannelHead) -> str:
    """What was promoted by override was never passed."""
    return "Inconclusive" if head.origin == "override" else "Passed"


def _bare(gate: Gate, head: ChannelHead) -> GateSummary:
    """Just that it was judged: the numbers are in the evidence that is named."""
    how = "by override" if head.origin == "override" else f"by gate {head.gate or gate.name}"
    message = f"the channel holds this checkpoint since record {head.record}, {how}"
    return GateSummary.model_validate(
        {
            "name": gate.name,
            "verdict": _verdict(head),
            "reason": "AlreadyPromoted",
            "message": message,
            "candidate": head.digest,
            "evidence_digest": head.evidence,
        }
    )


def _from_jobs(scene: Scene, gate: Gate, head: ChannelHead) -> GateRun | None:
    """The verdict of the comparison whose evidence the record names, while its Job is still there."""
    report = next((found for found in _comparisons(scene) if found.output_digest == head.evidence), None)
    if report is None or report.compare is None:
        return None
    evidence = report.compare
    also = {name: frozenset(item.name for item in found) for name, found in (evidence.also or {}).items()}
    anchors = frozenset(item.name for item in evidence.anchors)
    decision = decide(gate, report, Asked(report.input_digest, evidence.look, anchors, also))
    if decision.verdict != _verdict(head):
        return None
    summary = GateSummary(
        name=gate.name,
        verdict=decision.verdict,
        reason=decision.reason,
        message=decision.message,
        candidate=head.digest,
        look=decision.look,
        alpha_spent=decision.alpha_spent,
        tries=decision.tries,
        evidence_digest=head.evidence,
        axes=list(decision.axes),
    )
    return replace(GateRun(summary, wins=decision.wins), kept=(report,))


def _comparisons(scene: Scene) -> Iterable[RunReport]:
    """Reports of comparisons that the pipeline's own Jobs keep."""
    for job in scene.jobs.seen.jobs:
        found = parse_report(kept_report(job))
        if found is not None and found.verb == "compare":
            yield found
