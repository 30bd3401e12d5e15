"""Entry point of every pod: read the RunSpec, run its verb once, leave a RunReport, exit with the contract's code.

It knows no verb's work: a verb is a module of `stages` with `run(context) -> Outcome`, imported only when it is asked
for (so `resolve` never imports torch). Under several ranks only global rank 0 writes the result and the report;
an error of another rank is reported when its pod has nothing better to say.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pydantic import ValidationError

from bessemer_api.digest import canonical_json
from bessemer_api.job import (
    MAX_REPORT_BYTES,
    METRICS_PORT_ENV,
    REPORT_ENV,
    SPEC_ENV,
    RunError,
    RunReport,
    RunSpec,
    log_key,
)
from bessemer_api.v1alpha1.stage import TRAINING_METHODS
from bessemer_trainer.backends import disk_errors
from bessemer_trainer.context import Context, Outcome, Progress
from bessemer_trainer.errors import PermanentError, Preempted, TrainerError
from bessemer_trainer.kept_log import KeptLog
from bessemer_trainer.metrics import Board, serve
from bessemer_trainer.store import Store, open_store, run_key

_ALWAYS_LOOKS = frozenset({"resolve", "promote", "rollback", "report"})
"""Verbs that look at the world, which may have changed: an earlier result says nothing."""

_MODULES = {
    "import": "import_base",
    "cpt": "pretrain",
    "dpo": "preference",
    "orpo": "preference",
    "kto": "preference",
    "reward": "preference",
    "grpo": "reinforce",
}
"""Modules of stages that are not named as their method."""

_EXIT_CRASHED = 1


def main() -> int:
    """Run the verb that the environment names; the exit code."""
    with KeptLog() as log:
        code = _until_stopped(log)
        if code or _local_rank() == 0:  # of the other ranks only what went wrong is worth keeping
            with contextlib.suppress(Preempted):  # a second SIGTERM
                log.write()
        return code


def _until_stopped(log: KeptLog) -> int:
    try:
        signal.signal(signal.SIGTERM, _stop)
        return _guarded(log)
    except Preempted as stop:
        # Also when the signal arrives while an error is handled: a peer that stopped first broke our connection.
        _say(f"stopped: {stop or 'asked to stop by SIGTERM'}")
        return stop.exit_code


def _guarded(log: KeptLog) -> int:
    spec = None
    try:
        spec = read_spec()
        return _run(spec, log)
    except TrainerError as error:
        _say(f"error: {error}")
        _write_error(spec, error.reason, error.message)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: a bug must still leave a report
        traceback.print_exc()
        _write_error(spec, "Crashed", f"{type(error).__name__}: {error}")
        return _EXIT_CRASHED


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    """For all verbs but training, which saves first: every other verb is short and is simply run again."""
    raise Preempted


def _run(spec: RunSpec, log: KeptLog) -> int:
    scratch = Path(os.environ.get("BESSEMER_SCRATCH") or tempfile.mkdtemp(prefix="bessemer-"))
    store = open_store(spec.store, scratch)
    log.keep_in(store, _log_key(spec), from_now=_local_rank() == 0)
    report = _earlier_report(spec, store)
    if report is None:
        context = Context(spec, store, scratch, _progress(spec))
        with disk_errors(str(scratch)):  # a verb names the file where it can; whatever is left is about scratch space
            outcome = _load(spec)(context)
        if _rank() != 0:
            return 0
        report = _record(spec, store, _report_of(spec, outcome))
    if _rank() == 0:
        _write_report(report)
    return 0


def read_spec() -> RunSpec:
    """The RunSpec named by the environment. Raises PermanentError(SpecInvalid) that names the field."""
    path = os.environ.get(SPEC_ENV)
    if not path:
        raise PermanentError("SpecInvalid", f"{SPEC_ENV} is not set; it names the RunSpec, a JSON file")
    try:
        spec = RunSpec.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise PermanentError("SpecInvalid", f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise PermanentError("SpecInvalid", f"{path}: {field}: {first['msg']}") from None
    if getattr(spec, spec.verb) is None:
        raise PermanentError("SpecInvalid", f"{path}: {spec.verb}: missing; the verb {spec.verb!r} needs it")
    return spec


def module_name(spec: RunSpec) -> str:
    """Name of the module under `stages` that does what `spec` asks."""
    if spec.stage is None or spec.verb != "stage":
        return spec.verb
    if spec.stage.tokenizer is not None and spec.stage.tokenizer.extend is not None:
        return "extend"
    return _MODULES.get(spec.stage.method, spec.stage.method)


def _load(spec: RunSpec) -> Any:  # noqa: ANN401 - run(context) -> Outcome of a module chosen at run time
    return importlib.import_module(f"bessemer_trainer.stages.{module_name(spec)}").run


def _progress(spec: RunSpec) -> Progress:
    """Each pod serves metrics once: its first rank. Lines for people come from global rank 0 only."""
    name = module_name(spec)
    trains = spec.stage is not None and spec.stage.method in TRAINING_METHODS
    board = Board("train" if trains else name)
    port = os.environ.get(METRICS_PORT_ENV, "")
    if port.isdecimal() and _local_rank() == 0:
        serve(board, int(port))
    return Progress(board, quiet=_rank() != 0)


def _local_rank() -> int:
    """Rank within the pod."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _log_key(spec: RunSpec) -> str:
    """Of this pod; a rank that is not its first has a place of its own."""
    node = _rank() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    key = log_key(spec.input_digest, spec.run_uid, node)
    return f"{key.removesuffix('.log')}.rank-{_rank()}.log" if _local_rank() else key


def _rank() -> int:
    """Global rank. RANK alone is the node's rank in a PyTorchJob; a launcher sets LOCAL_RANK too."""
    return int(os.environ["RANK"]) if "LOCAL_RANK" in os.environ else 0


def _result_key(spec: RunSpec) -> str:
    return f"{run_key(spec.input_digest)}/result.json"


def _earlier_report(spec: RunSpec, store: Store) -> RunReport | None:
    """What an earlier attempt reported, if its artifact is still there."""
    if spec.verb in _ALWAYS_LOOKS:
        return None
    report = _parse_result(store.read(_result_key(spec)))
    if report is None or not _has_artifact(store, report):
        return None
    return report.model_copy(update={"run_uid": spec.run_uid, "reused": True})


def _parse_result(data: bytes | None) -> RunReport | None:
    try:
        return None if data is None else RunReport.model_validate(json.loads(data)["report"])
    except (ValueError, KeyError, TypeError):
        return None  # not a result: the work is done again and the result replaced


def _has_artifact(store: Store, report: RunReport) -> bool:
    if report.output_digest is None:
        return True
    try:
        store.manifest(report.output_digest)
    except PermanentError:
        return False
    return True


def _report_of(spec: RunSpec, outcome: Outcome) -> RunReport:
    identity = {"run_uid": spec.run_uid, "verb": spec.verb, "input_digest": spec.input_digest}
    made = {name: getattr(outcome, name) for name in Outcome.__slots__}
    try:
        return RunReport.model_validate(identity | made | {"metrics": dict(outcome.metrics)})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise PermanentError("ReportInvalid", f"{field}: {first['msg']}; it can not be reported") from None


def _record(spec: RunSpec, store: Store, report: RunReport) -> RunReport:
    """Write result.json if absent. When another attempt was first, its result is the one that counts."""
    if spec.verb in _ALWAYS_LOOKS:
        return report
    data = canonical_json({"output": report.output_digest, "report": report.wire()})
    if store.create(_result_key(spec), data):
        return report
    earlier = _earlier_report(spec, store)
    if earlier is not None:
        return report if earlier.output_digest == report.output_digest else earlier
    store.write(_result_key(spec), data)  # what stood there was damaged or its artifact is gone
    return report


def _write_error(spec: RunSpec | None, reason: str, message: str) -> None:
    """The first error in a pod is the cause; what other ranks say afterwards is its echo."""
    path = os.environ.get(REPORT_ENV)
    if path and Path(path).exists() and Path(path).stat().st_size and _rank_is_known():
        return
    identity = {
        "run_uid": spec.run_uid if spec else "unknown",
        "verb": spec.verb if spec else "stage",
        "input_digest": spec.input_digest if spec else "sha256:" + "0" * 64,
    }
    error = RunError(reason=reason, message=message[:1024])
    _write_report(RunReport.model_validate(identity | {"error": error}))


def _rank_is_known() -> bool:
    return "LOCAL_RANK" in os.environ


def _write_report(report: RunReport) -> None:
    path = os.environ.get(REPORT_ENV)
    if not path:
        sys.stdout.write(fit(report).decode() + "\n")
        return
    try:
        Path(path).write_bytes(fit(report))
    except OSError as error:
        _say(f"warning: the report could not be written to {path}: {error.strerror}")


def fit(report: RunReport) -> bytes:
    """The report as JSON of at most MAX_REPORT_BYTES. Shortens the message, then drops metrics; never a digest."""
    data = canonical_json(report.wire())
    while len(data) > MAX_REPORT_BYTES:
        shorter = _shortened(report)
        if shorter is None:
            raise PermanentError("ReportTooLarge", f"the report has {len(data)} bytes, at most {MAX_REPORT_BYTES} fit")
        report = shorter
        data = canonical_json(report.wire())
    return data


def _shortened(report: RunReport) -> RunReport | None:
    if report.error and len(report.error.message) > 64:
        message = report.error.message[: len(report.error.message) * 3 // 4]
        return report.model_copy(update={"error": RunError(reason=report.error.reason, message=message)})
    if report.metrics:
        kept = dict(list(report.metrics.items())[:-1])
        return report.model_copy(update={"metrics": kept})
    return None


def _say(line: str) -> None:
    sys.stderr.write(line.replace("\n", " ") + "\n")
    sys.stderr.flush()


def _exit(code: int) -> NoReturn:
    """A rank leaves at once: tearing down a gang that lost a rank can wait for it for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "LOCAL_RANK" in os.environ:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _exit(main())
