"""What the pods of an attempt left: exit codes, and the one report. What it means is for attempts.py to decide.

A finished pod may go at any time (a node is removed, the pod garbage collector comes), so a report that was believed
once is kept as an annotation of the attempt's own object; see docs/adr/0007.
"""

from collections.abc import Iterable

from pydantic import ValidationError

from bessemer_api.job import RunReport
from bessemer_operator.core.naming import ANNOTATION_REPORT
from bessemer_operator.core.plan import Manifest


def job_conditions(job: Manifest) -> list[Manifest]:
    """The conditions that the controller of a Job or PyTorchJob wrote."""
    return list(job.get("status", {}).get("conditions") or [])


def pods_of(job: Manifest, pods: Iterable[Manifest]) -> list[Manifest]:
    """Pods that the controller made for this very object: by uid, so that nobody can plant one."""
    uid = job["metadata"].get("uid")
    return [pod for pod in pods if any(o.get("uid") == uid for o in pod["metadata"].get("ownerReferences") or [])]


def exit_codes(pod: Manifest) -> list[int]:
    """Exit codes of the containers that ended."""
    return [int(item.get("exitCode", 0)) for item in _terminated(pod)]


def find_report(identity: tuple[str, str], job: Manifest, pods: Iterable[Manifest]) -> RunReport | None:
    """The valid report of an attempt: the one that was kept, else that of the pod that reports.

    `identity` is the run's uid and input digest, which a report must name; anything else counts as no report.
    """
    said = [kept_report(job)]
    for pod in pods_of(job, pods):
        role = pod["metadata"].get("labels", {}).get("training.kubeflow.org/replica-type", "master")
        said += [end.get("message") or "" for end in _terminated(pod)] if role == "master" else []
    found = (parse_report(message) for message in said)
    return next((item for item in found if item and (item.run_uid, item.input_digest) == identity), None)


def kept_report(job: Manifest) -> str:
    """The annotation in which the operator keeps the report; empty when there is none."""
    return str((job["metadata"].get("annotations") or {}).get(ANNOTATION_REPORT, ""))


def report_text(report: RunReport) -> str:
    """The report as it is kept: what is left out is what has its default, so it is no longer than what the pod said."""
    return report.model_dump_json(by_alias=True, exclude_defaults=True)


def parse_report(message: str) -> RunReport | None:
    """A RunReport, or None for anything else: total, because a pod may write what it likes."""
    try:
        return RunReport.model_validate_json(message)
    except ValidationError:
        return None


def _terminated(pod: Manifest) -> list[Manifest]:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return [item["state"]["terminated"] for item in statuses if item.get("state", {}).get("terminated")]
