"""URIs of user data: parsed, or refused. Touches no file and no network."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bessemer_trainer.errors import PermanentError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"[0-9.]+|0x[0-9a-f]+")
_HIDDEN_SEPARATOR = re.compile(r"%(2e|2f|5c|00|25)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place in S3: an object or a folder. An empty key is the whole bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def parse_uri(uri: str) -> Path | Bucket:
    """The place that `uri` names: an absolute path, `file:///path` or `s3://bucket/key`.

    Raises PermanentError(SourceInvalid) for anything else: other schemes, hosts, user names, queries, `..`, escapes
    that hide a separator.
    """
    scheme, mark, rest = uri.partition("://")
    if any(ord(character) < 32 for character in uri) or "\\" in uri:
        raise _invalid(uri, "a control character or a backslash")
    if not mark:
        return _absolute(uri, uri)
    if scheme == "file":
        return _file(uri)
    if scheme == "s3":
        return _s3(uri, rest)
    raise _invalid(uri, f"the scheme {scheme!r}")


def _invalid(uri: str, what: str) -> PermanentError:
    expected = "expected an absolute path, file:///path or s3://bucket/key"
    return PermanentError("SourceInvalid", f"{uri!r}: {what} is refused; {expected}")


def _absolute(uri: str, path: str) -> Path:
    if not path.startswith("/") or path.startswith("//"):
        raise _invalid(uri, "a path that is not absolute")
    if ".." in path.split("/"):
        raise _invalid(uri, "'..'")
    return Path(path)


def _file(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise _invalid(uri, f"the host {parts.netloc!r}")
    if parts.query or parts.fragment:
        raise _invalid(uri, "a query or fragment")
    if _HIDDEN_SEPARATOR.search(parts.path):
        raise _invalid(uri, "an escaped separator or dot")
    return _absolute(uri, unquote(parts.path))


def _s3(uri: str, rest: str) -> Bucket:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket) or _ADDRESS.fullmatch(bucket):
        raise _invalid(uri, f"the bucket {bucket!r}")
    segments = key.rstrip("/").split("/") if key else []
    if {"", ".", ".."} & set(segments) or re.search(r"[?#%]", key):
        raise _invalid(uri, "a key with an empty segment, '.', '..', '%', '?' or '#'")
    return Bucket(bucket, key)
