"""The verb `resolve`: look at the world once, so that everything after it works on pinned content.

Pins the content of the base model, every data set and every bank, and reads the heads of the channels. Reads only.
Where keys are given, what a channel holds, and every anchor, must be signed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from bessemer_api.job import ChannelHead, ResolveReport, ResolveTask
from bessemer_trainer.channels import newest_record, read_record, record_key
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.data import pin_bank, pin_sources
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.release import require_trusted
from bessemer_trainer.sources import MODEL_SUFFIXES, pin
from bessemer_trainer.store import Store

MAX_HELD = 8
"""Held digests that a report tells, the newest; `promote` looks at all of them."""


def run(context: Context) -> Outcome:
    """The ResolveReport. Raises PermanentError(Source... | ChannelCorrupt), TransientError(SourceFailed)."""
    task = context.spec.resolve
    if task is None:
        raise PermanentError("SpecInvalid", "resolve: missing; the verb resolve needs it")
    contents = _contents(context, task)
    axes = {axis for tasks in task.banks.values() for axis in tasks}
    heads = {name: _read_head(context.store, name, axes) for name in task.channels}
    return Outcome(resolve=ResolveReport(contents=contents, channels=heads))


def _contents(context: Context, task: ResolveTask) -> dict[str, str]:
    total = len(task.data) + len(task.banks) + 1
    contents: dict[str, str] = {}
    if task.base is not None:
        context.progress.update(0, total, "reading the base model")
        contents["base"] = pin(task.base.uri, task.base.sha256, MODEL_SUFFIXES)
    for name, sources in task.data.items():
        context.progress.update(len(contents), total, f"reading data set {name}")
        contents[f"data/{name}"] = pin_sources(sources)
    for name, tasks in task.banks.items():
        context.progress.update(len(contents), total, f"reading bank {name}")
        contents[f"bank/{name}"] = pin_bank(tasks)
    return contents


def _read_head(store: Store, channel: str, axes: set[str]) -> ChannelHead:
    records = [read_record(store, channel, number) for number in range(1, newest_record(store, channel) + 1)]
    try:
        found = head(records, axes)
        for digest in {found.digest, *found.anchors.values()} - {None}:
            require_trusted(store, next(record for record in reversed(records) if record["digest"] == digest))
        return found
    except (ValidationError, TypeError, KeyError) as error:
        where = store.url(record_key(channel, 1)).rpartition("/")[0]
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise PermanentError("ChannelCorrupt", f"{where}: a record is no channel record: {detail}") from None


def head(records: Sequence[Mapping[str, Any]], axes: set[str]) -> ChannelHead:
    """The newest of a channel's records, with an anchor for each of `axes` and each axis that was ever won.

    An anchor is the last release that won on the axis, else the first release; what a rollback left is none.
    """
    if not records:
        return ChannelHead.model_validate({})
    newest = records[-1]
    releases = [
        record for record in records if record["kind"] == "promotion" and record["digest"] not in newest["held"]
    ]
    won = {axis for record in releases for axis in record["wins"]}
    anchors = {axis: _anchor(releases, axis) for axis in sorted(axes | won)} if releases else {}
    fields = {name: newest[name] for name in ("record", "digest", "at")} | {
        "commit": _commit(newest),
        "release": newest.get("release"),
    }
    return ChannelHead.model_validate(
        fields | {"anchors": anchors, "held": newest["held"][-MAX_HELD:], **_story(records, newest)}
    )


def _commit(record: Mapping[str, Any]) -> str | None:
    return (record.get("git") or {}).get("commit")


def _story(records: Sequence[Mapping[str, Any]], newest: Mapping[str, Any]) -> dict[str, Any]:
    """How the newest digest came there, and by which evidence: that of the record that first brought it, or again."""
    brought = [record for record in records if record["kind"] != "rollback" and record["digest"] == newest["digest"]]
    origin: Mapping[str, Any] = brought[-1] if brought else {}
    fields = {"kind": newest["kind"], "by": newest.get("by"), "previous": newest.get("previous")}
    return fields | {
        "origin": origin.get("kind"),
        "gate": origin.get("gate"),
        "evidence": origin.get("evidence"),
        "wins": origin.get("wins"),
    }


def _anchor(releases: Sequence[Mapping[str, Any]], axis: str) -> str:
    winners = [record for record in releases if axis in record["wins"]] or releases[:1]
    return str(winners[-1]["digest"])
