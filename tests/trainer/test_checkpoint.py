"""The checkpoint protocol, died in at every write: what is visible afterwards is whole, or is not visible.

`DyingDisk` is the real disk until its n-th operation; there the process "is killed": the operation happens half or not
at all, what was not fsynced is lost, and nothing that comes after (no cleanup either) reaches the disk.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from bessemer_trainer.checkpoint import Checkpoints, Found, ShardWriter
from bessemer_trainer.disk import Disk
from bessemer_trainer.dist import Gang
from bessemer_trainer.errors import PermanentError, TransientError
from bessemer_trainer.store import Store, open_store
from tests.support.s3 import S3Server

RUN = "runs/" + "a" * 64
META = {"run": "sha256:" + "a" * 64, "zeroStage": 2}


class Killed(BaseException):
    """What SIGKILL is to a process: nothing may catch it and go on."""


class DyingDisk(Disk):
    """Dies at operation `last`, counted from 0. `operations` counts what was done."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self.operations: list[str] = []
        self._unsynced: dict[str, Path] = {}

    def _next(self, name: str) -> None:
        if self.last is not None and len(self.operations) >= self.last:
            for path in self._unsynced.values():  # the page cache is lost with the power
                if path.exists():
                    os.truncate(path, 0)
            raise Killed(name)
        self.operations.append(name)

    def mkdir(self, path: Path) -> None:
        self._next("mkdir")
        super().mkdir(path)

    def create(self, path: Path) -> BinaryIO:
        self._next("create")
        self._unsynced[str(path)] = path
        return super().create(path)

    def write(self, file: BinaryIO, data: memoryview) -> None:
        if self.last is not None and len(self.operations) == self.last:
            super().write(file, data[: len(data) // 2])
        self._next("write")
        super().write(file, data)

    def sync(self, file: BinaryIO) -> None:
        self._next("sync")
        super().sync(file)
        self._unsynced.pop(file.name, None)

    def sync_folder(self, path: Path) -> None:
        self._next("sync_folder")
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self._next("rename")
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._next("remove")
        super().remove(path)

    def remove_tree(self, path: Path) -> None:
        if self.last is not None and len(self.operations) == self.last:
            next(file for file in sorted(path.rglob("*")) if file.is_file()).unlink()  # half of it
        self._next("remove_tree")
        super().remove_tree(path)


class FailingDisk(Disk):
    """Fails with `number` once `allowed` bytes were written: a disk that is full."""

    def __init__(self, allowed: int, number: int = errno.ENOSPC) -> None:
        self.left = allowed
        self._number = number

    def write(self, file: BinaryIO, data: memoryview) -> None:
        self.left -= len(data)
        if self.left < 0:
            raise OSError(self._number, os.strerror(self._number))
        super().write(file, data)


def _payload(step: int) -> dict[str, bytes]:
    return {f"state/part-{n}.pt": bytes([step, n]) * 3000 for n in range(2)} | {"rng-0.bin": bytes([step])}


def _fill(step: int) -> Callable[[ShardWriter], None]:
    def fill(writer: ShardWriter) -> None:
        for path, data in _payload(step).items():
            writer.write(path, data)

    return fill


def _checkpoints(store: Store, folder: Path, disk: Disk | None = None, owner: str = "uid") -> Checkpoints:
    return Checkpoints(store, RUN, owner, Gang(), folder / "scratch", disk)


def _save(store: Store, folder: Path, step: int, disk: Disk | None = None) -> Checkpoints:
    checkpoints = _checkpoints(store, folder, disk)
    checkpoints.save(step, 1, _fill(step), META)
    return checkpoints


def _content(found: Found) -> dict[str, bytes]:
    return {path: (found.folder / path).read_bytes() for path in _payload(found.step)}


def _newest(store: Store, folder: Path) -> int | None:
    """Step of what a new attempt resumes from, after its content was compared."""
    found = _checkpoints(store, folder).newest(META)
    if found is None:
        return None
    assert _content(found) == _payload(found.step)
    return found.step


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store", tmp_path / "scratch")


def _operations_of_a_save(folder: Path) -> list[str]:
    store = open_store(f"file://{folder}/count", folder)
    disk = DyingDisk()
    _save(store, folder, 1)
    _save(store, folder, 2, disk).retain(1)
    return disk.operations


def test_a_save_makes_the_operations_that_the_protocol_says(tmp_path: Path) -> None:
    file = ["create", "write", "sync"]
    shard = [*file, "sync_folder"]
    expected = ["mkdir", "mkdir", *shard, "mkdir", *shard, *shard]  # the folder, two files below state/, one beside it
    expected += [*file, "remove", *file, "sync_folder", "rename", "sync_folder"]  # rank-0.json, manifest, made visible
    expected += ["remove", "sync_folder", "remove_tree"]  # retention: the old manifest first
    assert _operations_of_a_save(tmp_path) == expected


def test_death_at_any_operation_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    total = len(_operations_of_a_save(tmp_path))
    for last in range(total):
        folder = tmp_path / str(last)
        store = open_store(f"file://{folder}/store", folder)
        _save(store, folder, 1)
        checkpoints = _checkpoints(store, folder, DyingDisk(last))
        with pytest.raises(Killed):
            checkpoints.save(2, 1, _fill(2), META)
            checkpoints._verified.add(1)
            checkpoints.retain(1)
        newest = _newest(store, folder)
        assert newest in (1, 2), f"killed at operation {last}"
        _save(store, folder, 3)  # the next attempt is not in the way of what was left
        assert _newest(store, folder) == 3, f"killed at operation {last}"
        assert not list(folder.glob("store/runs/*/.tmp-*")), f"killed at operation {last}"


def test_death_during_the_first_save_leaves_nothing_visible(tmp_path: Path) -> None:
    disk = DyingDisk()
    _save(open_store(f"file://{tmp_path}/count", tmp_path), tmp_path, 1, disk)
    visible = disk.operations.index("rename")
    for last in range(len(disk.operations)):
        folder = tmp_path / str(last)
        store = open_store(f"file://{folder}/store", folder)
        with pytest.raises(Killed):
            _save(store, folder, 1, DyingDisk(last))
        assert _newest(store, folder) == (1 if last > visible else None)


def _tear(folder: Path) -> None:
    path = folder / "state/part-1.pt"
    path.write_bytes(path.read_bytes()[:-1])


def _flip(folder: Path) -> None:
    path = folder / "state/part-0.pt"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


def _edit_manifest(folder: Path) -> None:
    document = json.loads((folder / "manifest.json").read_bytes())
    document["meta"]["worldSize"] = 7
    (folder / "manifest.json").write_text(json.dumps(document))


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("a torn shard", _tear),
    ("a flipped byte", _flip),
    ("a missing shard", lambda folder: (folder / "state/part-0.pt").unlink()),
    ("a missing folder of shards", lambda folder: shutil.rmtree(folder / "state")),
    ("an edited manifest", _edit_manifest),
    ("an empty manifest", lambda folder: (folder / "manifest.json").write_bytes(b"")),
    ("no manifest", lambda folder: (folder / "manifest.json").unlink()),
    ("a shard that became a folder", lambda folder: ((folder / "rng-0.bin").unlink(), (folder / "rng-0.bin").mkdir())),
    ("a name of another step", lambda folder: folder.rename(folder.with_name(folder.name.replace("step-2", "step-9")))),
]


@pytest.mark.parametrize("damage", [row[1] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_a_damaged_newest_gives_way_to_the_older_one(
    store: Store, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    _save(store, tmp_path, 1)
    _save(store, tmp_path, 2)
    damage(next((tmp_path / "store" / RUN).glob("step-2-*")))
    assert _newest(store, tmp_path) == 1
    _save(store, tmp_path, 2)  # the same step again, over what was damaged
    assert _newest(store, tmp_path) == 2


def test_names_that_are_no_checkpoints_are_left_alone(store: Store, tmp_path: Path) -> None:
    _save(store, tmp_path, 1)
    run = tmp_path / "store" / RUN
    for name in ("step-99", "step-x-0123456789ab", "step-5-0123456789ab", "other", ".tmp-7"):
        (run / name).mkdir()
        (run / name / "manifest.json").write_text("{}")
    (run / "latest").write_text("global_step99")
    assert _newest(store, tmp_path) == 1
    assert (run / "other/manifest.json").exists()
    assert (run / ".tmp-7").exists()


def test_what_another_run_has_not_finished_is_left_to_it_for_a_day(store: Store, tmp_path: Path) -> None:
    run = tmp_path / "store" / RUN
    with pytest.raises(Killed):
        _save(store, tmp_path, 1, DyingDisk(10))
    (unfinished,) = run.glob(".tmp-*")
    _checkpoints(store, tmp_path, owner="another").newest(META)
    assert unfinished.exists()
    now = unfinished.stat().st_mtime
    os.utime(unfinished, (now - 23 * 3600, now - 23 * 3600))
    _checkpoints(store, tmp_path, owner="another").newest(META)
    assert unfinished.exists()
    os.utime(unfinished, (now - 24 * 3600 - 1, now - 24 * 3600 - 1))
    _checkpoints(store, tmp_path, owner="another").newest(META)
    assert not unfinished.exists()


@pytest.mark.parametrize("is_equal", [True, False], ids=["equal bytes", "other bytes"])
def test_two_runs_that_save_in_one_folder_at_once_both_end_with_verified_checkpoints(
    store: Store, tmp_path: Path, is_equal: bool
) -> None:
    """Two pipelines with the same stage: while one is in the middle of a save, the other starts and saves too."""
    ours, theirs = (_checkpoints(store, tmp_path, owner=owner) for owner in ("ours", "theirs"))
    other = META if is_equal else META | {"versions": "other"}

    def interrupted(step: int) -> Callable[[ShardWriter], None]:
        def fill(writer: ShardWriter) -> None:
            first, *rest = _payload(step).items()
            writer.write(*first)
            theirs.newest(META)
            theirs.save(step, 1, _fill(step), other)
            theirs.retain(2)
            for path, data in rest:
                writer.write(path, data)

        return fill

    for step in (10, 20, 30):
        ours.save(step, 1, interrupted(step), META)
        ours.retain(2)
    assert sorted(set(_steps(tmp_path))) == [20, 30]
    assert len(_steps(tmp_path)) == (2 if is_equal else 4)
    assert not list((tmp_path / "store" / RUN).glob(".tmp-*"))
    for owner in ("ours", "theirs"):
        checkpoints = _checkpoints(store, tmp_path, owner=owner)
        for name, manifest in checkpoints._visible():
            assert checkpoints._check(name, manifest, tmp_path / "store" / RUN / name) == ""
        found = checkpoints.newest(META)
        assert found
        assert (found.step, _content(found)) == (30, _payload(30))


def test_one_that_is_behind_never_removes_what_another_run_saved_later(store: Store, tmp_path: Path) -> None:
    for step in (70, 80):
        _checkpoints(store, tmp_path, owner="ahead").save(step, 1, _fill(step), META)
    behind = _checkpoints(store, tmp_path, owner="behind")
    for step in (10, 20, 30):
        behind.save(step, 1, _fill(step), META)
        behind.retain(1)
    assert _steps(tmp_path) == [30, 70, 80]


REFUSED: list[tuple[str, Gang, Mapping[str, Any], str, str]] = [
    ("more ranks", Gang(world_size=2), META, "WorldSizeChanged", "saved by 1 ranks and this attempt has 2"),
    (
        "another ZeRO stage",
        Gang(),
        {**META, "zeroStage": 3},
        "SettingsChanged",
        "with zeroStage 2 and this attempt has 3",
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=[row[0] for row in REFUSED])
def test_a_checkpoint_that_can_not_be_resumed_is_refused_with_what_to_do(
    store: Store, tmp_path: Path, case: tuple[str, Gang, Mapping[str, Any], str, str]
) -> None:
    _, gang, expected, reason, words = case
    _save(store, tmp_path, 1)
    with pytest.raises(PermanentError, match=words) as caught:
        Checkpoints(store, RUN, "uid", gang, tmp_path).newest(expected)
    assert caught.value.reason == reason
    assert "rerun-from" in caught.value.message


def _size() -> int:
    return sum(len(data) for data in _payload(2).values())


@pytest.mark.parametrize("allowed", [0, 1, 3000, 6000, 11_999, _size() - 1, _size(), _size() + 10])
def test_a_full_disk_is_one_clear_error_and_loses_nothing(store: Store, tmp_path: Path, allowed: int) -> None:
    _save(store, tmp_path, 1)
    with pytest.raises(TransientError, match=r"is full .*next attempt continues from the newest checkpoint") as caught:
        _save(store, tmp_path, 2, FailingDisk(allowed))
    assert caught.value.reason == "DiskFull"
    assert _newest(store, tmp_path) == 1
    assert not list((tmp_path / "store" / RUN).glob(".tmp-*")), "what could not be saved takes no space"


def test_an_error_of_the_disk_is_transient(store: Store, tmp_path: Path) -> None:
    with pytest.raises(TransientError) as caught:
        _save(store, tmp_path, 1, FailingDisk(100, errno.EIO))
    assert caught.value.reason == "StoreFailed"


def _steps(tmp_path: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in (tmp_path / "store" / RUN).glob("step-*"))


def test_the_last_verified_are_kept(store: Store, tmp_path: Path) -> None:
    checkpoints = _checkpoints(store, tmp_path)
    for step in (10, 20, 30, 40):
        checkpoints.save(step, 1, _fill(step), META)
        checkpoints.retain(2)
    assert _steps(tmp_path) == [30, 40]


def test_a_damaged_one_never_counts_as_kept(store: Store, tmp_path: Path) -> None:
    for step in (10, 20):
        _save(store, tmp_path, step)
    _flip(next((tmp_path / "store" / RUN).glob("step-20-*")))
    checkpoints = _checkpoints(store, tmp_path)
    found = checkpoints.newest(META)
    assert found
    assert found.step == 10
    checkpoints.save(30, 2, _fill(30), META)
    checkpoints.retain(2)
    assert _steps(tmp_path) == [10, 20, 30], "10 and 30 are the two that were verified"
    checkpoints.save(40, 2, _fill(40), META)
    checkpoints.retain(2)
    assert _steps(tmp_path) == [30, 40]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server.start() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{s3.bucket}/{tmp_path.name}", tmp_path / "scratch")


def test_in_s3_the_manifest_comes_last_and_damage_is_seen(bucket: Store, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        _save(bucket, tmp_path, step)
    assert _newest(bucket, tmp_path) == 3
    newest, middle = (next(k for k in bucket.list(RUN) if f"step-{step}-" in k).split("/")[2] for step in (3, 2))
    bucket.backend.delete(f"{RUN}/{newest}/manifest.json")
    assert _newest(bucket, tmp_path) == 2
    bucket.write(f"{RUN}/{middle}/state/part-0.pt", b"damaged")
    assert _newest(bucket, tmp_path) == 1
    _save(bucket, tmp_path, 2)
    assert _newest(bucket, tmp_path) == 2


def test_in_s3_death_at_any_request_leaves_only_whole_checkpoints(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    limit: list[int] = [1000]

    def counted(name: str) -> None:
        real = getattr(bucket.backend, name)

        def operation(*arguments: Any) -> Any:
            if len(requests) >= limit[0]:
                raise Killed(name)
            requests.append(name)
            return real(*arguments)

        monkeypatch.setattr(bucket.backend, name, operation)

    for name in ("upload", "create", "write", "delete"):
        counted(name)
    _save(bucket, tmp_path, 1)
    assert requests == ["upload", "upload", "upload", "create"]
    for last in range(4):
        requests.clear()
        limit[0] = last
        with pytest.raises(Killed):
            _save(bucket, tmp_path, 2)
        assert _newest(bucket, tmp_path) == 1
    limit[0] = 1000
    checkpoints = _save(bucket, tmp_path, 2)
    requests.clear()
    checkpoints.retain(1)
    assert requests == ["delete"] * 4
    assert _newest(bucket, tmp_path) == 2
    assert not [key for key in bucket.list(RUN) if "step-1-" in key]
