"""Rollback: what the annotation asks for, and where it stands. Pure.

A request is done once, by a Job that writes the channel's next record; the annotation may stay. While a request is not
done, nothing is promoted; a request that was refused says so until it is corrected or taken away.
"""

import re
from collections.abc import Mapping

from bessemer_api.job import RollbackTask
from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineSpec
from bessemer_api.v1alpha1.promotion import RollbackSummary
from bessemer_operator.core.attempts import WorkState
from bessemer_operator.core.merging import Merging, merge_words
from bessemer_operator.core.naming import ANNOTATION_ROLLBACK, ANNOTATION_ROLLBACK_BY

_REQUEST = re.compile(
    r"(?:(?P<channel>[a-z0-9][-a-z0-9]{0,39})/)?(?P<digest>sha256:[0-9a-f]{64})(?:/(?P<word>[A-Za-z0-9._:-]{1,64}))?"
)
_WHO = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


def bad_rollback(notes: Mapping[str, str], spec: PipelineSpec) -> str | None:
    """What is wrong with the annotations; None when nothing is, or none is there."""
    if ANNOTATION_ROLLBACK not in notes:
        return None
    match = _REQUEST.fullmatch(notes[ANNOTATION_ROLLBACK])
    if match is None:
        return f"{ANNOTATION_ROLLBACK}: expected [<channel>/]<digest>[/<word>]"
    channels = [channel.name for channel in spec.promotion.channels] if spec.promotion else []
    if match["channel"] is None and len(channels) != 1:
        return f"{ANNOTATION_ROLLBACK}: expected <channel>/<digest>; the channels are {', '.join(channels) or 'none'}"
    if match["channel"] is not None and match["channel"] not in channels:
        known = ", ".join(channels) or "none"
        return f"{ANNOTATION_ROLLBACK}: there is no channel {match['channel']!r}; the channels are {known}"
    if not _WHO.fullmatch(notes.get(ANNOTATION_ROLLBACK_BY, "").strip()):
        return f"{ANNOTATION_ROLLBACK_BY}: expected who asks for the rollback, 1 to 256 printable characters"
    return None


def rollback_task(pipeline: AdaptationPipeline) -> RollbackTask | None:
    """What the annotation asks for; None when there is none. Its form has been checked."""
    notes, metadata = pipeline.metadata.annotations, pipeline.metadata
    match = _REQUEST.fullmatch(notes.get(ANNOTATION_ROLLBACK, ""))
    if match is None or pipeline.spec.promotion is None:
        return None
    channel = match["channel"] or pipeline.spec.promotion.channels[0].name
    return RollbackTask(
        channel=channel,
        digest=match["digest"],
        request=match[0],
        git=next((item.git for item in pipeline.spec.promotion.channels if item.name == channel), None),
        pipeline=f"{metadata.namespace}/{metadata.name}",
        pipeline_uid=metadata.uid,
        by=notes[ANNOTATION_ROLLBACK_BY].strip(),
    )


def rollback_summary(
    task: RollbackTask | None, undoing: Merging | None, before: RollbackSummary | None
) -> RollbackSummary | None:
    """The last rollback: the one that is asked for, else the one that was."""
    if task is None:
        return before
    if before is not None and before.request == task.request and before.record:
        return before
    state = undoing.state if undoing is not None else None
    report = state.report.rollback if state is not None and state.report else None
    asked = RollbackSummary(request=task.request, channel=task.channel, digest=task.digest, by=task.by)
    if report is None or not report.record:
        return asked.model_copy(update={"merge": undoing.wait if undoing is not None else None})
    found = {"left": report.left, "record": report.record, "at": report.at, "commit": report.commit}
    found |= {"release": report.release}
    return asked.model_copy(update=found)


def is_open(task: RollbackTask | None, summary: RollbackSummary | None) -> bool:
    """Whether a request is there that is not done."""
    return task is not None and not (summary is not None and summary.request == task.request and summary.record)


def rollback_words(state: WorkState | None, summary: RollbackSummary) -> tuple[bool | None, str, str]:
    """The condition RolledBack: whether it is done, reason, message."""
    if summary.record:
        done = f"record {summary.record} of channel {summary.channel}, by {summary.by}"
        left = f"; {summary.left} is held" if summary.left else ""
        return True, "RolledBack", f"{summary.digest} is {done}{left}"
    if state is not None and state.phase == "Failed":
        return False, "RollbackFailed", f"{state.reason}: {state.message}"
    if summary.merge is not None:
        return None, *merge_words(summary.merge)
    return None, "RollingBack", f"to {summary.digest} in channel {summary.channel}"
