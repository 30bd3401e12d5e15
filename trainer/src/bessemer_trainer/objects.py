"""The store's bytes in S3 (or what speaks its protocol), through obstore. Operations only, as in backends.py."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from bessemer_trainer.backends import MANIFEST, Shared, disk_errors
from bessemer_trainer.errors import PermanentError, TrainerError, TransientError

_LARGEST_COPY = 5 << 30
"""Bytes that S3 copies in one request; obstore does not copy in parts."""

_DENIED = ("AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "403 Forbidden")


@contextlib.contextmanager
def _s3_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise _explain(url, error) from error


def _explain(url: str, error: Exception) -> TrainerError:
    """The error in our words. Where obstore has no class for it (listing has none), the server's code tells."""
    text = str(error)
    if "NoSuchBucket" in text:
        return PermanentError("StoreUnusable", f"{url}: there is no such bucket; create it")
    is_denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if is_denied or any(code in text for code in _DENIED):
        hint = "check the AWS_* credentials in the profile's Secret and their rights on the bucket"
        return PermanentError("StoreUnusable", f"{url}: access denied; {hint}")
    return TransientError("StoreFailed", f"{url}: {text.strip().splitlines()[0][:300]}")


class ObjectStore:
    """S3 through obstore. Settings come from the usual AWS_* variables."""

    def __init__(self, url: str, client: Any) -> None:  # noqa: ANN401 - obstore's store classes share no base type
        self._url = url.rstrip("/")
        self._client = client

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Plain http is allowed only when the endpoint that the admin configured says http."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        client = S3Store.from_url(
            url,
            client_options={"allow_http": endpoint.startswith("http://")},
            retry_config={"max_retries": 6, "retry_timeout": timedelta(seconds=60)},
        )
        return cls(url, client)

    def local_path(self, key: str) -> Path | None:
        return None

    def read(self, key: str) -> bytes | None:
        with _s3_errors(f"{self._url}/{key}"):
            try:
                return bytes(obstore.get(self._client, key).bytes())
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def create(self, key: str, data: bytes) -> bool:
        with _s3_errors(f"{self._url}/{key}"):
            try:
                obstore.put(self._client, key, data, mode="create")
            except AlreadyExistsError:
                return False  # also after a retry of our own request that had arrived: callers compare what is there
            return True

    def write(self, key: str, data: bytes) -> None:
        with _s3_errors(f"{self._url}/{key}"):
            obstore.put(self._client, key, data)

    def keys(self, prefix: str) -> list[str]:
        with _s3_errors(f"{self._url}/{prefix}"):
            pages = obstore.list(self._client, prefix=prefix)
            return sorted(str(item["path"]) for page in pages for item in page)

    def delete(self, key: str) -> None:
        with _s3_errors(f"{self._url}/{key}"), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._client, key)

    def upload(self, key: str, path: Path) -> None:
        with _s3_errors(f"{self._url}/{key}"):
            obstore.put(self._client, key, path)

    def download(self, key: str, path: Path) -> None:
        with _s3_errors(f"{self._url}/{key}"):
            try:
                stream = obstore.get(self._client, key).stream(min_chunk_size=8 << 20)
            except FileNotFoundError:
                return  # the reader compares with the manifest and says that it is missing
            with disk_errors(str(path)):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    for chunk in stream:
                        file.write(chunk)

    def publish_folder(
        self, key: str, folder: Path, files: list[str], manifest: bytes, shared: Shared | None = None
    ) -> None:
        """Files first, the manifest last and only if absent: a prefix without one does not exist."""
        if self.read(f"{key}/{MANIFEST}") is not None:
            return
        for path in files:
            self.upload(f"{key}/{path}", folder / path)
        if shared is not None:
            for path, size in shared.files:
                local = shared.folder / path if size > _LARGEST_COPY else None
                self._share(f"{shared.key}/{path}", f"{key}/{path}", local)
        self.create(f"{key}/{MANIFEST}", manifest)

    def _share(self, source: str, target: str, local: Path | None) -> None:
        """The server copies, so that nothing is uploaded again; but a file that is too large for that."""
        if local is not None:
            self.upload(target, local)
            return
        with _s3_errors(f"{self._url}/{source}"):
            obstore.copy(self._client, source, target)
