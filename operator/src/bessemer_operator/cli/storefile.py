"""Reads one file of a store for a person, with that person's own rights. It never writes, and knows no layout."""

from pathlib import Path
from urllib.parse import unquote

from bessemer_operator.cli.problems import EXIT_UNREACHABLE, UserError, printable


def read_file(url: str) -> bytes | None:
    """The bytes at `file://...` or `s3://bucket/key`; None when there is nothing. Raises UserError."""
    try:
        return _read_s3(url) if url.startswith("s3://") else Path(unquote(url.removeprefix("file://"))).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(printable(f"{url}: {error.strerror or error}"), EXIT_UNREACHABLE) from None


def _read_s3(url: str) -> bytes:
    """By the usual AWS_* variables. Plain http only where the endpoint itself says http, as pods do it."""
    import os  # noqa: PLC0415 - for object stores only, with the library

    try:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - optional, and slow to import
        from obstore.store import S3Store  # noqa: PLC0415
    except ImportError:
        message = f"{url}: reading from S3 needs a library: pip install 'bessemer-operator[store]'"
        raise UserError(message, EXIT_UNREACHABLE) from None
    bucket, _, key = url.removeprefix("s3://").partition("/")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    options = {"allow_http": endpoint.startswith("http://"), "timeout": "30s"}
    try:
        store = S3Store.from_url(f"s3://{bucket}", client_options=options, retry_config={"max_retries": 2})  # type: ignore[arg-type]
        return bytes(store.get(key).bytes())
    except FileNotFoundError:
        raise
    except BaseError as error:
        first = str(error).strip().splitlines()[0][:300]
        raise UserError(printable(f"{url}: {first} (AWS_* variables say how)"), EXIT_UNREACHABLE) from None
