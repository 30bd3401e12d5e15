"""Annotated field types shared by all kinds. Every string has a maximum length, so that CEL costs stay bounded."""

from typing import Annotated, Any

from pydantic import Field


def immutable(message: str) -> dict[str, Any]:
    """Schema extra of a field that can not change once it is set; `message` is what a user reads who tries."""
    return {"x-kubernetes-validations": [{"rule": "self == oldSelf", "message": message}]}


NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN, min_length=1, max_length=40)]
"""Name of a stage, data set, bank, gate or channel: a DNS label of at most 40 characters."""

AxisName = Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9-]*$", max_length=40)]
"""Name of an evaluation axis."""

Digest = Annotated[str, Field(pattern=DIGEST_PATTERN, max_length=71)]
"""A content digest: `sha256:` and 64 hexadecimal digits."""

_DURATION = r"^([0-9]{1,5}d)?([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$"
Duration = Annotated[str, Field(pattern=_DURATION, min_length=2, max_length=32)]
"""A duration such as `90s`, `30m`, `48h` or `7d`; each number has at most 5 digits."""

Url = Annotated[str, Field(max_length=512)]
Commit = Annotated[str, Field(max_length=64)]
StoreUrl = Annotated[str, Field(pattern=r"^(file|s3)://[^\s?#]+$", max_length=512)]
"""URL of the artifact store: `file:///absolute/folder` or `s3://bucket/prefix`."""

STORE_IS_IMMUTABLE = "spec.store is immutable: results are in the old store; make another object for another store"

Uri = Annotated[str, Field(pattern=r"^[^\s\x00]+$", min_length=1, max_length=1024)]
"""Where data comes from: a path relative to the pipeline file (local runs), `file://`, or `s3://`."""

ShortText = Annotated[str, Field(max_length=256)]
Text = Annotated[str, Field(max_length=1024)]
Timestamp = Annotated[str, Field(max_length=40)]
"""RFC 3339 time in UTC, for example `2026-01-31T12:00:00Z`."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]*$", max_length=64)]
"""An opaque word of a user, such as the value of a retry."""
