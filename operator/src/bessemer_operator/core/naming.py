"""Names and labels of children. A name carries the identity of the work, so an edited stage can never adopt a stale
result; everything is short enough that `<attempt>-worker-<i>` stays a valid service name.
"""

import hashlib

GROUP = "bessemer.dev"
LABEL_PIPELINE = f"{GROUP}/pipeline"
LABEL_STAGE = f"{GROUP}/stage"
LABEL_OWNER = f"{GROUP}/owner-uid"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_VERB = f"{GROUP}/verb"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
"""Kueue's: which of its LocalQueues decides when the object runs."""
MANAGED_BY = {"app.kubernetes.io/managed-by": "bessemer"}
"""Label of every attempt and of its pods: by it they are listed and watched, and foreign ones are not."""
ANNOTATION_DIGEST = f"{GROUP}/input-digest"
ANNOTATION_REPORT = f"{GROUP}/report"
"""Of an attempt: the report of its pod, which goes with the pod."""
ANNOTATION_RETRY = f"{GROUP}/retry"
ANNOTATION_RERUN = f"{GROUP}/rerun-from"
ANNOTATION_SUSPEND = f"{GROUP}/suspend"
ANNOTATION_REFRESH = f"{GROUP}/refresh"
ANNOTATION_APPROVE = f"{GROUP}/approve"
ANNOTATION_APPROVED_BY = f"{GROUP}/approved-by"
ANNOTATION_REJECT = f"{GROUP}/reject"
ANNOTATION_REJECTED_BY = f"{GROUP}/rejected-by"
ANNOTATION_ROLLBACK = f"{GROUP}/rollback"
ANNOTATION_ROLLBACK_BY = f"{GROUP}/rollback-by"

MAX_ATTEMPT = 50
"""PyTorchJob names: training-operator appends `-worker-<i>`, and a service name has at most 63 characters."""
_ATTEMPT_SUFFIX = 6  # -a9999


def short(digest: str, length: int = 10) -> str:
    """The first hexadecimal digits of a digest."""
    return digest.removeprefix("sha256:")[:length]


def shorten(name: str, limit: int) -> str:
    """`name`, or its beginning and a hash of all of it when it is longer than `limit`."""
    if len(name) <= limit:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9].rstrip('-.')}-{mark}"


def work_name(pipeline: str, part: str, digest: str) -> str:
    """Name of a TrainingStage, Evaluation or pipeline Job: at most 44 characters, ends in 10 digits of its identity.

    It is a DNS-1035 label, as the name of a PyTorchJob must be: a pipeline may begin with a digit, or have dots.
    """
    name = f"{pipeline}-{part}".replace(".", "-")
    label = f"p-{name}" if name[0].isdigit() else name
    return f"{shorten(label, MAX_ATTEMPT - _ATTEMPT_SUFFIX - 11)}-{short(digest)}"


def attempt_name(work: str, number: int) -> str:
    """Name of an attempt: at most 50 characters."""
    return f"{shorten(work, MAX_ATTEMPT - _ATTEMPT_SUFFIX)}-a{number}"


def attempt_number(name: str) -> int:
    """The number in an attempt's name; 0 when it is not one."""
    _, mark, digits = name.rpartition("-a")
    return int(digits) if mark and digits.isdecimal() else 0


def label_value(text: str) -> str:
    """`text` as a label value (at most 63 characters)."""
    return shorten(text, 63)
