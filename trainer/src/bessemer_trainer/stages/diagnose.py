"""diagnose: look for known failure modes of one checkpoint, and store what was found of every item.

It gives no verdict: an alarm is told, and a gate that names a veto reads it from the artifact. Only dev items are read.
A diagnostic that lacks what it needs says so (NotMeasured); a model that can not be run is an error.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bessemer_api.digest import canonical_json
from bessemer_api.job import DiagnoseReport, DiagnoseTask, DiagnosticFinding
from bessemer_trainer.context import Context, Outcome
from bessemer_trainer.evals.determinism import deterministic
from bessemer_trainer.evals.diagnostics import DETECTORS
from bessemer_trainer.evals.diagnostics.common import Arm, Case, Finding, NotThereError
from bessemer_trainer.evals.diagnostics.probe import Bench, Probe
from bessemer_trainer.evals.items import Item, parse_items
from bessemer_trainer.store import Store, run_key

_TOLD = 160
"""Characters of a message in the pod's report, in which eleven findings must have room; the artifact has it whole."""


def run(context: Context) -> Outcome:
    """Publishes an artifact `diagnosis`: `diagnosis.json`, and `items_<diagnostic>.jsonl` where there are items."""
    task = context.spec.diagnose
    assert task is not None  # noqa: S101 - __main__ has checked that the field of the verb is set
    case = build_case(context.store, task)
    findings: dict[str, Finding] = {}
    with deterministic():
        for number, diagnostic in enumerate(task.diagnostics):
            context.progress.update(number, len(task.diagnostics), diagnostic.name)
            try:
                findings[diagnostic.name] = DETECTORS[diagnostic.name](case, diagnostic)
            except NotThereError as gap:
                findings[diagnostic.name] = Finding("NotMeasured", str(gap))
    digest = context.store.publish(_write(context.scratch, task, findings), "diagnosis", _meta(task, findings))
    told = [
        DiagnosticFinding(name=d.name, state=f.state, value=f.value, limit=f.limit, message=f.message[:_TOLD])
        for d in task.diagnostics
        for f in (findings[d.name],)
    ]
    return Outcome(output_digest=digest, diagnose=DiagnoseReport(findings=told))


def build_case(store: Store, task: DiagnoseTask) -> Case:
    """The checkpoints of the task, not loaded yet, and the dev items of its bank."""
    bench = Bench()
    made: dict[str, Arm] = {}

    def arm(digest: str, name: str) -> Arm:
        if digest not in made:
            folder = store.fetch(digest)
            made[digest] = Arm(name, digest, folder, store.manifest(digest).meta, Probe(folder, bench))
        return made[digest]

    return Case(
        subject=arm(task.checkpoint, task.subject),
        start=arm(task.start, "its start") if task.start else None,
        base=arm(task.base, "the base") if task.base else None,
        parents=[arm(digest, f"parent {k + 1}") for k, digest in enumerate(task.parents)],
        axes=task.axes,
        items=_items(store, task),
        log=_log(store, task.run),
    )


def _items(store: Store, task: DiagnoseTask) -> dict[str, Sequence[Item]]:
    if task.bank is None:
        return {}
    paths = {axis.name: store.fetch(task.bank) / f"{axis.name}.dev.jsonl" for axis in task.axes}
    return {name: parse_items(path) for name, path in paths.items() if path.is_file()}


def _log(store: Store, run: str | None) -> list[dict[str, float]]:
    data = store.read(f"{run_key(run)}/metrics.jsonl") if run else None
    found = []
    for line in (data or b"").splitlines():
        try:
            found.append({key: float(value) for key, value in json.loads(line).items()})
        except (ValueError, TypeError, AttributeError):
            continue  # a line that was cut off when an attempt was killed
    return found


def _write(scratch: Path, task: DiagnoseTask, findings: Mapping[str, Finding]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="diagnosis-", dir=scratch))
    for name, finding in findings.items():
        if finding.items:
            lines = b"".join(canonical_json(dict(item)) + b"\n" for item in finding.items)
            (folder / f"items_{name}.jsonl").write_bytes(lines)
    document = {
        "schema": 1,
        "task": task.wire(),
        "findings": {name: _told(finding) for name, finding in findings.items()},
        "figures": {key: table for finding in findings.values() for key, table in finding.figures.items()},
    }
    (folder / "diagnosis.json").write_bytes(canonical_json(document))
    return folder


def _told(finding: Finding) -> dict[str, Any]:
    told = {"state": finding.state, "message": finding.message, "value": finding.value, "limit": finding.limit}
    return {key: value for key, value in told.items() if value is not None}


def _meta(task: DiagnoseTask, findings: Mapping[str, Finding]) -> dict[str, Any]:
    return {
        "checkpoint": task.checkpoint,
        "subject": task.subject,
        "alarms": sorted(name for name, finding in findings.items() if finding.state == "Alarm"),
    }
