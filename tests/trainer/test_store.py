"""The store, on a folder and on a real S3 server: equal promises, and damage that is always seen."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bessemer_api.digest import sha256_digest
from bessemer_trainer.backends import disk_errors
from bessemer_trainer.errors import PermanentError, TrainerError, TransientError
from bessemer_trainer.store import Store, open_store
from tests.support.s3 import S3Server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server.start() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A fresh store of either kind."""
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/store", tmp_path / "scratch")
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{server.bucket}/{tmp_path.name}", tmp_path / "scratch")


def _folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    folder = tmp_path / "made"
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


FILES = {"a.bin": bytes(range(256)) * 5000, "deep/b.txt": b"text", "empty": b""}


def test_a_published_folder_comes_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    digest = store.publish(_folder(tmp_path, FILES), "data", {"documents": 3})
    folder = store.fetch(digest)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    manifest = store.manifest(digest)
    assert (manifest.schema, manifest.kind, manifest.meta) == (1, "data", {"documents": 3})
    assert [entry.path for entry in manifest.files] == sorted(FILES)
    assert sha256_digest(manifest.to_json()) == digest


def test_equal_content_has_one_digest_and_is_stored_once(store: Store, tmp_path: Path) -> None:
    first = store.publish(_folder(tmp_path, FILES), "data", {"a": 1, "b": 2})
    keys = store.list("artifacts")
    assert store.publish(_folder(tmp_path, FILES), "data", {"b": 2, "a": 1}) == first
    assert store.list("artifacts") == keys
    assert store.publish(_folder(tmp_path, FILES), "data", {"a": 2, "b": 2}) != first


def test_create_writes_only_when_absent(store: Store) -> None:
    assert store.read("channels/prod/00000001.json") is None
    assert store.create("channels/prod/00000001.json", b"first")
    assert not store.create("channels/prod/00000001.json", b"second")
    assert store.read("channels/prod/00000001.json") == b"first"


def test_only_one_of_many_concurrent_creates_wins(store: Store) -> None:
    won: list[int] = []

    def attempt(number: int) -> None:
        if store.create("channels/prod/00000002.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(number).encode() for number in won] == [store.read("channels/prod/00000002.json")]


def test_write_overwrites_and_list_is_sorted(store: Store) -> None:
    for key in ("reports/b", "reports/a", "reports/a/x"):
        if key != "reports/a":
            store.write(key, b"1")
    store.write("reports/b", b"2")
    assert store.read("reports/b") == b"2"
    assert store.list("reports") == ["reports/a/x", "reports/b"]
    assert store.list("nothing") == []


def _flip(folder: Path) -> None:
    data = bytearray((folder / "a.bin").read_bytes())
    data[1000] ^= 1
    (folder / "a.bin").write_bytes(data)


def _truncate(folder: Path) -> None:
    os.truncate(folder / "a.bin", 100)


def _lie(folder: Path) -> None:
    document = json.loads((folder / "manifest.json").read_bytes())
    document["meta"] = {"documents": 4}
    (folder / "manifest.json").write_text(json.dumps(document))


def _link(folder: Path) -> None:
    (folder / "a.bin").rename(folder.parent / "outside")
    (folder / "a.bin").symlink_to(folder.parent / "outside")


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("a changed byte", _flip, "a.bin was changed"),
    ("a truncated file", _truncate, "a.bin was changed"),
    ("a missing file", lambda folder: (folder / "deep/b.txt").unlink(), "deep/b.txt is missing"),
    ("a file too many", lambda folder: (folder / "evil.pkl").write_bytes(b"x"), "evil.pkl is not in the manifest"),
    ("a changed manifest", _lie, "does not have the digest"),
    ("an empty manifest", lambda folder: (folder / "manifest.json").write_bytes(b""), "does not have the digest"),
    ("a link in place of a file", _link, "only plain files"),
]


@pytest.mark.parametrize(("damage", "words"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_damage_is_refused(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    url = f"file://{tmp_path}/store"
    store = open_store(url, tmp_path / "scratch")
    digest = store.publish(_folder(tmp_path, FILES), "data", {"documents": 3})
    damage(store.fetch(digest))
    with pytest.raises(PermanentError, match=words):
        open_store(url, tmp_path / "scratch").fetch(digest)


def test_a_damaged_object_in_s3_is_refused(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{s3.bucket}/{tmp_path.name}"
    store = open_store(url, tmp_path / "scratch")
    digest = store.publish(_folder(tmp_path, FILES), "data", {})
    key = f"artifacts/{digest.replace(':', '-')}"
    store.write(f"{key}/deep/b.txt", b"tex!")
    with pytest.raises(PermanentError, match=r"deep/b\.txt was changed"):
        open_store(url, tmp_path / "other").fetch(digest)
    store.backend.delete(f"{key}/deep/b.txt")
    with pytest.raises(PermanentError, match=r"deep/b\.txt is missing"):
        open_store(url, tmp_path / "third").fetch(digest)


ESCAPES = ["../outside", "/etc/passwd", "a/../../b", "a//b", "a\\..\\b", "manifest.json", "./a", "a\0b"]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_manifest_that_names_a_path_outside_is_refused(tmp_path: Path, path: str) -> None:
    store = open_store(f"file://{tmp_path}/store", tmp_path / "scratch")
    entry = {"path": path, "size": 0, "sha256": "0" * 64}
    data = json.dumps({"schema": 1, "kind": "data", "files": [entry], "meta": {}}).encode()
    digest = sha256_digest(data)
    store.write(f"artifacts/{digest.replace(':', '-')}/manifest.json", data)
    with pytest.raises(PermanentError) as caught:
        store.fetch(digest)
    assert caught.value.reason == "ArtifactCorrupt"


def test_an_artifact_without_manifest_does_not_exist(store: Store, tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    store.write(f"artifacts/sha256-{'a' * 64}/a.bin", b"half")
    for missing in (digest, "sha256:zz", "../../etc", ""):
        with pytest.raises(PermanentError) as caught:
            store.fetch(missing)
        assert caught.value.reason == "ArtifactMissing"


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", ""])
def test_a_key_that_leaves_the_store_is_refused(store: Store, key: str) -> None:
    for operation in (store.read, store.list, lambda k: store.write(k, b""), lambda k: store.create(k, b"")):
        with pytest.raises(PermanentError, match="is no key"):
            operation(key)


@pytest.mark.parametrize("url", ["http://x/y", "file://relative", "s3://", "/plain", "ftp://x"])
def test_an_unknown_store_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(PermanentError, match="expected file:///absolute/folder or s3://bucket/prefix"):
        open_store(url, tmp_path)


def test_a_link_is_never_published(tmp_path: Path) -> None:
    folder = _folder(tmp_path, {"a": b"1"})
    (folder / "secret").symlink_to("/etc/hostname")
    store = open_store(f"file://{tmp_path}/store", tmp_path / "scratch")
    with pytest.raises(PermanentError, match="only plain files"):
        store.publish(folder, "data", {})
    assert store.list("artifacts") == []


def test_a_manifest_is_never_published_as_a_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="the store's own"):
        store.publish(_folder(tmp_path, {"manifest.json": b"{}"}), "data", {})


S3_ERRORS: list[tuple[str, dict[str, str], str, type[TrainerError], str]] = [
    ("a wrong secret", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "store", PermanentError, "access denied"),
    ("a bucket that is not there", {}, "no-such-bucket", PermanentError, "no such bucket"),
    ("a server that is not there", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "store", TransientError, "s3://store"),
]


@pytest.mark.parametrize("case", S3_ERRORS, ids=[row[0] for row in S3_ERRORS])
def test_s3_errors_say_what_to_do_and_whether_to_try_again(
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, dict[str, str], str, type[TrainerError], str],
) -> None:
    _, change, bucket, kind, words = case
    for name, value in (s3.environment | change).items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{bucket}/x", tmp_path)
    for operation in (lambda: store.read("runs/a"), lambda: store.create("runs/a", b"1"), lambda: store.list("runs")):
        with pytest.raises(kind, match=words):
            operation()


OS_ERRORS = [(28, TransientError, "DiskFull"), (27, TransientError, "DiskFull"), (122, TransientError, "DiskFull")]
OS_ERRORS += [
    (5, TransientError, "StoreFailed"),
    (13, PermanentError, "StoreUnusable"),
    (30, PermanentError, "StoreUnusable"),
]


@pytest.mark.parametrize(("number", "kind", "reason"), OS_ERRORS)
def test_errors_of_the_disk_become_ours(number: int, kind: type[TrainerError], reason: str) -> None:
    with pytest.raises(kind) as caught, disk_errors("/store"):
        raise OSError(number, os.strerror(number), "/store/x")
    assert caught.value.reason == reason
