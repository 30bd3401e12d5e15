"""User data in S3, read only, through obstore. Settings come from the usual AWS_* variables."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import BinaryIO, cast

import obstore
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.locations import Bucket

_CHUNK = 4 << 20


def head_s3(place: Bucket) -> tuple[int, str] | None:
    """Size and etag of an object; None when there is no such object."""
    with _errors(place):
        try:
            meta = obstore.head(_client(place), place.key)
        except (FileNotFoundError, NotFoundError):
            return None
        return int(meta["size"]), str(meta["e_tag"])


def list_s3(place: Bucket, prefix: str) -> Iterator[tuple[str, int, str]]:
    """Key, size and etag of each object below `prefix`."""
    with _errors(place):
        for page in obstore.list(_client(place), prefix=prefix or None):
            for item in page:
                yield str(item["path"]), int(item["size"]), str(item["e_tag"])


def open_s3(place: Bucket, etag: str) -> BinaryIO:
    """The object's bytes, as long as it still has that etag. Raises PermanentError(SourceChanged) when it has not."""
    with _errors(place):
        chunks = obstore.get(_client(place), place.key, options={"if_match": etag}).stream(min_chunk_size=_CHUNK)
        return cast(BinaryIO, io.BufferedReader(_Chunks(place, chunks), _CHUNK))


class _Chunks(io.RawIOBase):
    """A stream of chunks as a file."""

    def __init__(self, place: Bucket, chunks: "obstore.BytesStream") -> None:
        super().__init__()
        self._place = place
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # Buffer is read as a memoryview
        if not self._rest:
            with _errors(self._place):
                self._rest = memoryview(b"".join(map(bytes, islice(self._chunks, 1))))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _client(place: Bucket) -> S3Store:
    """Plain http is allowed only when the endpoint that the admin configured says http."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    return S3Store(
        place.bucket,
        client_options={"allow_http": endpoint.startswith("http://")},
        retry_config={"max_retries": 6, "retry_timeout": timedelta(seconds=60)},
    )


@contextmanager
def _errors(place: Bucket) -> Iterator[None]:
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        hint = "check the AWS_* credentials of the profile's Secret"
        raise PermanentError("SourceRefused", f"{place}: access denied; {hint}") from error
    except (FileNotFoundError, NotFoundError) as error:  # obstore raises the first, its documentation says the second
        raise PermanentError("SourceMissing", f"{place}: there is no such bucket or object") from error
    except PreconditionError as error:
        raise PermanentError("SourceChanged", f"{place}: the object changed while it was read") from error
    except BaseError as error:
        if "<Code>NoSuchBucket</Code>" in str(error):  # a listing gives no NotFoundError
            raise PermanentError("SourceMissing", f"{place}: there is no such bucket or object") from error
        first = str(error).strip().splitlines()[0]
        raise TransientError("SourceFailed", f"{place}: {first[:300]}") from error
