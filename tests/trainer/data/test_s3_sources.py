"""Sources in S3, on a real S3 server."""

from collections.abc import Iterator

import obstore
import pytest
from obstore.store import S3Store

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.sources import list_files, open_lines, pin
from tests.support.s3 import S3Server
from tests.trainer.data.world import World

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server.start("corpora") as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return S3Store("corpora", client_options={"allow_http": True})


def test_folder_of_objects_is_read_as_a_folder_of_files(bucket: S3Store) -> None:
    for key in ("med/b.jsonl", "med/a/c.txt", "med/.hidden.jsonl", "med/README.md", "medicine.jsonl"):
        obstore.put(bucket, key, b"first\nsecond\n")
    files = list_files("s3://corpora/med")
    assert [file.name for file in files] == ["a/c.txt", "b.jsonl"]
    assert list(open_lines(files[1])) == [(1, b"first"), (2, b"second")]


def test_one_object_is_read_over_many_chunks(bucket: S3Store) -> None:
    row = b"x" * 1000
    obstore.put(bucket, "large/a.jsonl", (row + b"\n") * 10_000)
    rows = [line for _, line in open_lines(list_files("s3://corpora/large/a.jsonl")[0])]
    assert rows == [row] * 10_000


def test_declared_digest_of_an_object_is_the_one_of_the_same_file_on_a_disk(bucket: S3Store, world: World) -> None:
    obstore.put(bucket, "pinned/a.jsonl", b'{"text": "one"}\n')
    local = pin(world.write_bytes("a.jsonl", b'{"text": "one"}\n'), None)
    assert pin("s3://corpora/pinned/a.jsonl", local) == local


def test_digest_without_a_declared_one_changes_with_the_object(bucket: S3Store) -> None:
    obstore.put(bucket, "changing/a.jsonl", b"one")
    before = pin("s3://corpora/changing", None)
    assert before == pin("s3://corpora/changing", None)
    obstore.put(bucket, "changing/a.jsonl", b"two")
    assert before != pin("s3://corpora/changing", None)


def test_object_that_changed_after_it_was_listed_is_refused(bucket: S3Store) -> None:
    obstore.put(bucket, "racing/a.jsonl", b"one")
    file = list_files("s3://corpora/racing/a.jsonl")[0]
    obstore.put(bucket, "racing/a.jsonl", b"two")
    with pytest.raises(PermanentError) as refused:
        list(open_lines(file))
    assert refused.value.reason == "SourceChanged"


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/a.jsonl", "s3://no-such-bucket/a"])
@pytest.mark.usefixtures("bucket")
def test_missing_bucket_is_named(uri: str) -> None:
    with pytest.raises(PermanentError, match="there is no such bucket or object"):
        list_files(uri)


@pytest.mark.usefixtures("bucket")
def test_folder_without_objects_is_refused() -> None:
    with pytest.raises(PermanentError, match="no file in it ends in"):
        list_files("s3://corpora/nothing-here/")


def test_wrong_credentials_are_named_and_not_tried_again(bucket: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    obstore.put(bucket, "denied/a.jsonl", b"one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PermanentError, match="access denied; check the AWS"):
        list_files("s3://corpora/denied/a.jsonl")


def test_data_set_in_a_bucket_is_prepared_as_the_same_files_on_a_disk(bucket: S3Store, world: World) -> None:
    data = b'{"text": "The first document."}\n{"text": "The second."}\n'
    obstore.put(bucket, "set/a.jsonl", data)
    on_disk = world.prepare([world.write_bytes("a.jsonl", data)])
    in_bucket = world.prepare(["s3://corpora/set/a.jsonl"])
    assert in_bucket.outcome.output_digest == on_disk.outcome.output_digest
