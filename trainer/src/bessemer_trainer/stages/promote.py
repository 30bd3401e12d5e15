"""promote: write the channel's next record, if its head is still the one that the gate compared with.

What is handed over is the release: the checkpoint with its model card (release.py), published before anything says that
it is promoted. Where the channel has a git target, git must have the change first: until a person has merged it the
outcome is WaitingForMerge, and the operator runs this again. The record is created only if it is absent, so that of two
promotions one wins and the other sees that the baseline moved. Nothing is promoted that is held after a rollback, that
is damaged, or whose evidence is about something else.
It gives no verdict: the operator asks for a promotion only after its gate has passed, or a named person has decided to
promote all the same (a record of kind `override`, which is never an anchor and starts no new count of tries).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bessemer_api.digest import canonical_json
from bessemer_api.job import PromoteReport, PromoteTask
from bessemer_trainer.channels import newest_record, read_record, record_key
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.deploy import Change, HandedOver, evidence_of, git_entry, hand_over
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.release import publish_release
from bessemer_trainer.store import Store, artifact_key


def run(context: Context) -> Outcome:
    """Outcome as in PromoteReport. PermanentError for a damaged artifact and for what only a person can mend in git."""
    task = context.spec.promote
    assert task is not None  # noqa: S101 - __main__ has checked that the field of the verb is set
    now = datetime.now(UTC)  # noqa: TID251 - this is the shell, and the record says when it was written
    report = promote(context.store, task, now.strftime("%Y-%m-%dT%H:%M:%SZ"), context.scratch)
    return Outcome(output_digest=report.digest, promote=report)


def promote(store: Store, task: PromoteTask, at: str, scratch: Path) -> PromoteReport:
    """Do it at time `at`. Running it again gives the outcome of the first run, whatever was promoted since."""
    number = newest_record(store, task.channel)
    if number > task.record:
        next_one = read_record(store, task.channel, task.record + 1)
        if _is_ours(next_one, task):
            return _report("Promoted", next_one)
    head = read_record(store, task.channel, number) if number else {}
    if head.get("digest") == task.candidate:
        return _report("AlreadyPromoted", head)
    if number != task.record:
        return _report("BaselineMoved", head)
    if task.candidate in head.get("held", []):
        return _report("Held", head)
    if task.after is not None and _digest_of(store, task.after) != task.candidate:
        return _report("LeftBefore", head)
    _require_sound(store, task)
    release = publish_release(store, task, scratch)
    there = _in_git(store, task, (head, release), scratch)
    if there is not None and not there.commit:
        return PromoteReport(outcome="WaitingForMerge", record=number, digest=head.get("digest"), url=there.url)
    record = _record(task, head, at) | {"release": release} | git_entry(task.git, there)
    if not store.create(record_key(task.channel, task.record + 1), canonical_json(record)):
        winner = read_record(store, task.channel, task.record + 1)
        return _report("Promoted" if _is_ours(winner, task) else "BaselineMoved", winner)
    return _report("Promoted", record)


def _digest_of(store: Store, channel: str) -> str | None:
    """What a channel holds now."""
    number = newest_record(store, channel)
    return str(read_record(store, channel, number)["digest"]) if number else None


def _is_ours(record: Mapping[str, Any], task: PromoteTask) -> bool:
    """Whether an earlier attempt of this very promotion wrote the record; when, and what came of it, may differ."""
    written = _record(task, {"digest": record.get("previous"), "held": record.get("held")}, str(record.get("at")))
    return {name: value for name, value in record.items() if name not in {"git", "release"}} == written


def _in_git(store: Store, task: PromoteTask, what: tuple[Mapping[str, Any], str], scratch: Path) -> HandedOver | None:
    """Let git say so first, where the channel has a git target. `what`: the channel's head, and the release."""
    if task.git is None:
        return None
    head, release = what
    change = Change(
        target=task.git,
        value=store.url(artifact_key(release)),
        subject=f"Promote {task.candidate.removeprefix('sha256:')[:12]} to {task.channel}",
        evidence=evidence_of(store, task.evidence) | _record(task, head, ""),
    )
    return hand_over(change, scratch)


def _record(task: PromoteTask, head: Mapping[str, Any], at: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "record": task.record + 1,
        "channel": task.channel,
        "digest": task.candidate,
        "kind": "override" if task.override else "promotion",
        "previous": head.get("digest"),
        "gate": task.gate,
        "evidence": task.evidence,
        "wins": list(task.wins),
        "held": list(head.get("held") or []),
        "pipeline": task.pipeline,
        "by": task.by,
        "at": at,
    }


def _require_sound(store: Store, task: PromoteTask) -> None:
    """The candidate is a checkpoint with every file as published; the evidence is of this gate about it."""
    for digest, kind in ((task.candidate, "checkpoint"), (task.evidence, "comparison")):
        found = store.manifest(digest).kind
        if found != kind:
            raise PermanentError("WrongKind", f"{digest} is an artifact of kind {found}; expected {kind}")
        store.fetch(digest)
    evidence = store.manifest(task.evidence).meta
    about = (evidence.get("gate"), evidence.get("candidate"))
    if about != (task.gate, task.candidate):
        raise PermanentError(
            "EvidenceMismatch",
            f"{task.evidence} is evidence of gate {about[0]} about {about[1]}; "
            f"expected gate {task.gate} about {task.candidate}",
        )


def _report(outcome: str, record: Mapping[str, Any]) -> PromoteReport:
    return PromoteReport.model_validate(
        {
            "outcome": outcome,
            "record": record.get("record", 0),
            "digest": record.get("digest"),
            "at": record.get("at", ""),
            "release": record.get("release"),
            "commit": (record.get("git") or {}).get("commit"),
        }
    )
