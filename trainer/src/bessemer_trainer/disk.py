"""Every change that a save makes to a file system, one method each, so that a test can die at any of them."""

import os
import shutil
from pathlib import Path
from typing import BinaryIO

from bessemer_trainer.backends import fsync_folder


class Disk:
    """The real file system. Methods raise OSError."""

    def mkdir(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def create(self, path: Path) -> BinaryIO:
        """Open a new file for writing, unbuffered."""
        return path.open("wb", buffering=0)

    def write(self, file: BinaryIO, data: memoryview) -> None:
        """Write all of `data`: an unbuffered write may take only a part."""
        while len(data):
            data = data[file.write(data) :]

    def sync(self, file: BinaryIO) -> None:
        os.fsync(file.fileno())

    def sync_folder(self, path: Path) -> None:
        fsync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def remove(self, path: Path) -> None:
        path.unlink()

    def remove_tree(self, path: Path) -> None:
        shutil.rmtree(path)
