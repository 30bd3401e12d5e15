"""Compressed files as plain ones: gzip, zstandard, xz. A file that ends too early is an error, never a short text."""

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import zstandard

PACKING_ERRORS = (gzip.BadGzipFile, zlib.error, EOFError, lzma.LZMAError, zstandard.ZstdError)

_CHUNK = 1 << 20
_FED = 4096
"""Compressed bytes that are unpacked at once: zstandard may make 32,768 times as many of them."""


@contextmanager
def unpacked(name: str, stream: BinaryIO) -> Iterator[BinaryIO]:
    """The plain bytes of `stream`, packed as the end of `name` tells."""
    with _raw(name, stream) as raw:
        yield io.BufferedReader(raw, _CHUNK)


def _raw(name: str, stream: BinaryIO) -> io.RawIOBase:
    if name.endswith(".gz"):
        return cast(io.RawIOBase, gzip.GzipFile(fileobj=stream))
    if name.endswith(".xz"):
        return cast(io.RawIOBase, lzma.LZMAFile(stream))
    return _Zstandard(stream)


class _Zstandard(io.RawIOBase):
    """One or more frames. (The library's own reader takes a file that was cut off for a short one.)"""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._is_fresh = True
        self._packed = b""
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # Buffer is read as a memoryview
        while not self._plain and self._unpack():
            pass
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _unpack(self) -> bool:
        """Unpack some more; False at the end of the file."""
        self._packed = self._packed or self._stream.read(_FED)
        if not self._packed:
            if not self._is_fresh:
                raise EOFError("it ends in the middle of a frame")
            return False
        self._plain = memoryview(self._frame.decompress(self._packed))
        self._is_fresh = self._frame.eof
        self._packed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        return True
