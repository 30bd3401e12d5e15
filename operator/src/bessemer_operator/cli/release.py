"""Commands of a release owner: approve, reject, rollback. They name exactly what they are about, and who asks.

The verbs are annotations, as docs/contract.md says; what they mean is decided by reconcile.
"""

import getpass
import re

from bessemer_api.fields import DIGEST_PATTERN
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, GateSummary
from bessemer_operator.cli.problems import EXIT_NOT_FOUND, EXIT_USAGE, UserError, printable
from bessemer_operator.cli.story import gate_line, outcome
from bessemer_operator.cli.target import Target, as_pipeline, opened
from bessemer_operator.cli.verbs import new_token
from bessemer_operator.cluster.kube import KubeCluster
from bessemer_operator.cluster.protocol import Cluster
from bessemer_operator.core import conditions as c
from bessemer_operator.core import naming


async def approve(target: Target, candidate: str, by: str) -> None:
    """Agree to the promotion of what waits for it, on the evidence that is there."""
    await _decide(target, candidate, by, naming.ANNOTATION_APPROVE, naming.ANNOTATION_APPROVED_BY)


async def reject(target: Target, candidate: str, by: str) -> None:
    """Refuse the promotion of what waits for an approval."""
    await _decide(target, candidate, by, naming.ANNOTATION_REJECT, naming.ANNOTATION_REJECTED_BY)


async def _decide(target: Target, candidate: str, by: str, verb: str, who: str) -> None:
    async with opened(target) as cluster:
        pipeline = as_pipeline(await cluster.get(target.ref))
        gate = find_waiting(pipeline)
        _require_meant(gate, candidate)
        name = await _name_of(cluster, by)
        value = f"{gate.candidate}/{gate.evidence_digest}"
        await cluster.patch_annotations(target.ref, {verb: value, who: name})
    print(gate_line(gate))
    done = "approved" if verb == naming.ANNOTATION_APPROVE else "rejected"
    print(printable(f"{target.ref.name}: {gate.candidate} is {done} by {name}{_then(target)}"))


def find_waiting(pipeline: AdaptationPipeline) -> GateSummary:
    """The verdict that waits for a person. Raises UserError when none does."""
    promoted = c.find(pipeline.status.conditions, c.PROMOTED)
    name = pipeline.spec.promotion.gate if pipeline.spec.promotion else None
    gate = next((gate for gate in pipeline.status.gates if gate.name == name), None)
    is_current = pipeline.status.observed_generation == pipeline.metadata.generation
    is_waiting = is_current and promoted is not None and promoted.reason == "WaitingForApproval"
    if not is_waiting or gate is None or gate.candidate is None or gate.evidence_digest is None:
        message = f"{pipeline.metadata.name}: nothing waits for an approval. {outcome(pipeline).sentence}"
        raise UserError(message, EXIT_NOT_FOUND)
    return gate


def _require_meant(gate: GateSummary, candidate: str) -> None:
    """The digest that the user gave, if any, must be that of what waits."""
    given = candidate.removeprefix("sha256:")
    if given and not (len(given) >= 8 and (gate.candidate or "").removeprefix("sha256:").startswith(given)):
        message = f"{printable(candidate)} does not wait for an approval; what waits is {gate.candidate}"
        raise UserError(message, EXIT_USAGE)


async def rollback(target: Target, digest: str, channel: str, by: str) -> None:
    """Let a channel hold an earlier digest again; without one, what it held before."""
    async with opened(target) as cluster:
        pipeline = as_pipeline(await cluster.get(target.ref))
        place = find_channel(pipeline, channel)
        back_to = digest or _previous(pipeline, place)
        if not re.fullmatch(DIGEST_PATTERN, back_to):
            raise UserError(f"{printable(back_to)} is no digest (sha256: and 64 hexadecimal digits)", EXIT_USAGE)
        name = await _name_of(cluster, by)
        request = f"{place}/{back_to}/{new_token()}"
        notes = {naming.ANNOTATION_ROLLBACK: request, naming.ANNOTATION_ROLLBACK_BY: name}
        await cluster.patch_annotations(target.ref, notes)
    print(printable(f"{target.ref.name}: channel {place} goes back to {back_to}, asked for by {name}{_then(target)}"))


def find_channel(pipeline: AdaptationPipeline, channel: str) -> str:
    """The channel that is meant. Raises UserError when it is not there, or not clear."""
    names = [item.name for item in pipeline.spec.promotion.channels] if pipeline.spec.promotion else []
    known = ", ".join(names) or "none"
    if channel and channel not in names:
        raise UserError(
            f"{pipeline.metadata.name} has no channel {printable(channel)}; its channels: {known}", EXIT_USAGE
        )
    if not channel and len(names) != 1:
        raise UserError(f"{pipeline.metadata.name}: which channel? Its channels: {known}; say --channel", EXIT_USAGE)
    return channel or names[0]


def _previous(pipeline: AdaptationPipeline, channel: str) -> str:
    found = next((item for item in pipeline.status.channels if item.name == channel), None)
    if found is None or found.previous is None:
        message = f"it is not known what channel {channel} held before; name the digest to go back to"
        raise UserError(message, EXIT_NOT_FOUND)
    return found.previous


async def _name_of(cluster: Cluster, by: str) -> str:
    """Who asks: as the API server knows the user; in a local run, as this machine does."""
    if by.strip():
        return by.strip()
    if isinstance(cluster, KubeCluster):
        return await cluster.who_am_i()
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise UserError("this machine has no name for you; say who you are with --by", EXIT_USAGE) from None


def _then(target: Target) -> str:
    return f"; continue with: bessemer run {target.file}" if target.file else ""
