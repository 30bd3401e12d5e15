"""A sorted file of unique 64-bit n-gram hashes, made of any number of them in bounded memory, and read by mapping."""

from pathlib import Path

import numpy as np

from bessemer_trainer.ngrams import U64, sorted_unique

_BUCKETS = 64
_BUFFERED = 1 << 20


class IndexWriter:
    """Spreads hashes over files by their top bits, then sorts file by file.

    Memory: about 30 MiB, or 1/64 of all hashes where that is more.
    """

    def __init__(self, scratch: Path) -> None:
        """`scratch` is an empty folder for temporary files."""
        self._scratch = scratch
        self._buffer: list[U64] = []
        self._buffered = 0

    def add(self, hashes: U64) -> None:
        self._buffer.append(hashes)
        self._buffered += len(hashes)
        if self._buffered >= _BUFFERED:
            self._spill()

    def finish(self, path: Path) -> int:
        """Write all hashes to `path`, little-endian, sorted, each once; their number."""
        self._spill()
        count = 0
        with path.open("wb") as out:
            for bucket in range(_BUCKETS):
                part = self._scratch / f"{bucket}.u64"
                if part.exists():
                    unique = sorted_unique(np.fromfile(part, dtype="<u8"))
                    unique.tofile(out)
                    count += len(unique)
                    part.unlink()
        return count

    def _spill(self) -> None:
        if not self._buffered:
            return
        unique = sorted_unique(np.concatenate(self._buffer))
        borders = np.searchsorted(unique >> np.uint64(58), np.arange(_BUCKETS + 1))
        for bucket in range(_BUCKETS):
            part = unique[borders[bucket] : borders[bucket + 1]]
            if len(part):
                with (self._scratch / f"{bucket}.u64").open("ab") as file:
                    part.astype("<u8").tofile(file)
        self._buffer, self._buffered = [], 0


def open_index(path: Path) -> U64:
    """The hashes of an index file, sorted; mapped, not read."""
    if not path.stat().st_size:
        return np.zeros(0, dtype=np.uint64)
    return np.memmap(path, dtype="<u8", mode="r")
