"""Examined rows on disk: one file a piece of the work, so that a stage that was interrupted goes on from its pieces.

A file holds blocks one after the other and ends with the sha256 of all before; a file without it, or with another,
is none. Written and read a block at a time.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bessemer_trainer.examine import Block

VERSION = 1
"""Of the format and of what is in it; another version reads no pieces of this one."""

_FRAME = struct.Struct("<QQ")


def write_blocks(path: Path, blocks: Iterable[Block]) -> int:
    """Write a piece; the number of its rows."""
    digest, rows = hashlib.sha256(), 0
    with path.open("wb") as file:
        for block in blocks:
            rows += len(block.lines)
            for part in _parts(block):
                digest.update(part)
                file.write(part)
        file.write(_FRAME.pack(0, 0) + digest.digest())
    return rows


def _parts(block: Block) -> Iterator[bytes]:
    lengths = np.array([len(line) for line in block.lines], dtype=np.int64)
    told = {"rows": len(lengths), "bands": block.bands.shape[1], "reported": dict(block.reported)}
    header = json.dumps({**told, "early": dict(block.early), "late": dict(block.late)}).encode()
    text = b"".join(block.lines)
    yield _FRAME.pack(len(header), len(text))
    yield header
    for column in (lengths, block.numbers, block.sizes, block.keys, block.groups, block.bands):
        yield column.tobytes()
    yield text


def is_whole(path: Path) -> bool:
    """Whether the file is a piece, complete and undamaged."""
    end = _FRAME.size + 32
    try:
        left = path.stat().st_size - end
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while left > 0 and (data := file.read(min(left, 1 << 20))):
                digest.update(data)
                left -= len(data)
            return left == 0 and file.read() == _FRAME.pack(0, 0) + digest.digest()
    except OSError:
        return False


def read_blocks(path: Path) -> Iterator[Block]:
    """The blocks of a piece that is whole."""
    with path.open("rb") as file:
        while True:
            header_size, text_size = _FRAME.unpack(file.read(_FRAME.size))
            if not header_size:
                return
            yield _block(file, json.loads(file.read(header_size)), text_size)


def _block(file: BinaryIO, header: dict[str, Any], text_size: int) -> Block:
    rows, bands = header["rows"], header["bands"]
    lengths, numbers, sizes = (_column(file, rows, "<i8") for _ in range(3))
    keys, groups, flat = (_column(file, count, "<u8") for count in (rows, rows, rows * bands))
    text = file.read(text_size)
    ends = np.cumsum(lengths).tolist()
    lines = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    early, late = ({int(place): why for place, why in header[name].items()} for name in ("early", "late"))
    return Block(lines, numbers, sizes, keys, groups, flat.reshape(rows, bands), early, late, header["reported"])


def _column(file: BinaryIO, count: int, kind: str) -> Any:  # noqa: ANN401 - an array of that type
    return np.frombuffer(file.read(8 * count), dtype=kind)
