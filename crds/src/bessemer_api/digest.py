"""Canonical JSON and digests. Both sides of the contract must agree on them, so they stand here."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON document
    """Sorted keys, no spaces, UTF-8; NaN and infinities raise ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_digest(data: bytes) -> str:
    """`sha256:` and the hexadecimal digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def input_digest(inputs: BaseModel) -> str:
    """Identity of a piece of work: the digest of its kind of inputs and of every field that differs from its default.

    A field that is added later with a default therefore changes no digest. A change of what a default means must
    raise `recipe`. Golden digests in the tests hold this.
    """
    document = inputs.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return sha256_digest(canonical_json({"bessemer": 1, type(inputs).__name__: document}))
