"""rollback: a channel holds an earlier digest of its own again; what it held until now goes on its list of held ones.

A record like any other, created only if absent: of two writers one wins, and the other looks again. A request is done
once: run again, or by a pipeline that was applied anew, it gives the outcome of the first time, whatever was promoted
since. What is damaged, or was never in the channel, is refused, and the channel stays as it is.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bessemer_api.digest import canonical_json
from bessemer_api.job import RollbackReport, RollbackTask
from bessemer_trainer.channels import newest_record, read_record, record_key
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.deploy import Change, HandedOver, evidence_of, git_entry, hand_over
from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.release import require_trusted
from bessemer_trainer.store import Store, artifact_key

_RACES = 100
"""Lost races after which it is tried again later; each means that something else was promoted meanwhile."""


def run(context: Context) -> Outcome:
    """Outcome as in RollbackReport. Raises PermanentError(NotInChannel | Artifact... | Git...), TransientError."""
    task = context.spec.rollback
    assert task is not None  # noqa: S101 - __main__ has checked that the field of the verb is set
    now = datetime.now(UTC)  # noqa: TID251 - this is the shell, and the record says when it was written
    report = roll_back(context.store, task, now.strftime("%Y-%m-%dT%H:%M:%SZ"), context.scratch)
    return Outcome(output_digest=report.digest, rollback=report)


def roll_back(store: Store, task: RollbackTask, at: str, scratch: Path) -> RollbackReport:
    """Do it at time `at`."""
    records: list[dict[str, Any]] = []
    for _ in range(_RACES):
        last = newest_record(store, task.channel)
        records += [read_record(store, task.channel, n) for n in range(len(records) + 1, last + 1)]
        done = next((record for record in records if _is_this(record, task)), None)
        if done is not None:
            return _report("RolledBack", done)
        if records and records[-1]["digest"] == task.digest:
            return _report("AlreadyThere", records[-1])
        _require_sound(store, task, records)
        there = _in_git(store, task, records, scratch)
        if there is not None and not there.commit:
            return RollbackReport(outcome="WaitingForMerge", record=0, digest=task.digest, url=there.url)
        record = _record(task, records, at) | git_entry(task.git, there)
        if store.create(record_key(task.channel, record["record"]), canonical_json(record)):
            return _report("RolledBack", record)
    raise TransientError("ChannelContended", f"channel {task.channel}: {_RACES} other records were written meanwhile")


def _is_this(record: Mapping[str, Any], task: RollbackTask) -> bool:
    asked = ("rollback", task.request, task.pipeline, task.digest)
    return (record.get("kind"), record.get("request"), record.get("pipeline"), record.get("digest")) == asked


def _require_sound(store: Store, task: RollbackTask, records: Sequence[Mapping[str, Any]]) -> None:
    """The channel held it once, and every file of it is there as it was published."""
    if task.digest not in {record["digest"] for record in records}:
        where = f"channel {task.channel} ({len(records)} records)"
        raise PermanentError("NotInChannel", f"{where} never held {task.digest}; nothing was changed")
    found = store.manifest(task.digest).kind
    if found != "checkpoint":
        raise PermanentError("WrongKind", f"{task.digest} is an artifact of kind {found}; expected checkpoint")
    target = _target(task, records)
    require_trusted(store, target)
    for digest in {task.digest, target.get("release") or task.digest}:
        store.fetch(digest)


def _target(task: RollbackTask, records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The last record of what the channel shall hold again."""
    return next(record for record in reversed(records) if record["digest"] == task.digest)


def _record(task: RollbackTask, records: Sequence[Mapping[str, Any]], at: str) -> dict[str, Any]:
    """The next record. Going back to a held digest takes it off the list: a person has decided so."""
    head = records[-1]
    target = _target(task, records)
    held = [digest for digest in head.get("held") or [] if digest not in {head["digest"], task.digest}]
    return {
        "schema": 1,
        "record": len(records) + 1,
        "channel": task.channel,
        "digest": task.digest,
        "kind": "rollback",
        "previous": head["digest"],
        "gate": target.get("gate"),
        "evidence": target.get("evidence"),
        "wins": [],
        "held": [*held, head["digest"]],
        "pipeline": task.pipeline,
        "by": task.by,
        "at": at,
        "request": task.request,
    } | ({"release": target["release"]} if target.get("release") else {})


def _in_git(store: Store, task: RollbackTask, records: Sequence[Mapping[str, Any]], scratch: Path) -> HandedOver | None:
    """The same way through git as a promotion takes, to the earlier digest."""
    if task.git is None:
        return None
    record = _record(task, records, "")
    change = Change(
        target=task.git,
        value=store.url(artifact_key(record.get("release") or task.digest)),
        subject=f"Roll {task.channel} back to {task.digest.removeprefix('sha256:')[:12]}",
        evidence=evidence_of(store, record["evidence"]) | record,
    )
    return hand_over(change, scratch)


def _report(outcome: str, record: Mapping[str, Any]) -> RollbackReport:
    left = record.get("previous") if outcome == "RolledBack" else None
    return RollbackReport.model_validate(
        {
            "outcome": outcome,
            "record": record["record"],
            "digest": record["digest"],
            "left": left,
            "at": record.get("at", ""),
            "release": record.get("release"),
            "commit": (record.get("git") or {}).get("commit"),
        }
    )
