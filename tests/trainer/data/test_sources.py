"""Sources: what a URI may mean, which files it names, what their content is."""

import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.locations import Bucket, parse_uri
from bessemer_trainer.sources import MODEL_SUFFIXES, content_digest, list_files, open_lines, pin

MEANT = [
    pytest.param("/data/a.jsonl", Path("/data/a.jsonl"), id="an absolute path"),
    pytest.param("file:///data/a.jsonl", Path("/data/a.jsonl"), id="a file URI"),
    pytest.param("file://localhost/data", Path("/data"), id="a file URI of this host"),
    pytest.param("file:///my%20data/a.jsonl", Path("/my data/a.jsonl"), id="a file URI with an escaped space"),
    pytest.param("/data/100%.jsonl", Path("/data/100%.jsonl"), id="a percent sign in a path"),
    pytest.param("s3://corpora/med/a.jsonl", Bucket("corpora", "med/a.jsonl"), id="an object"),
    pytest.param("s3://corpora/med/", Bucket("corpora", "med/"), id="a folder in a bucket"),
    pytest.param("s3://corpora", Bucket("corpora", ""), id="a whole bucket"),
]


@pytest.mark.parametrize(("uri", "place"), MEANT)
def test_uri_means_one_place(uri: str, place: Path | Bucket) -> None:
    assert parse_uri(uri) == place


REFUSED = [
    "data/a.jsonl",
    "../a.jsonl",
    "/data/../etc/passwd",
    "//host/share",
    "/data/..",
    "\\\\host\\share",
    "/data/a\x00.jsonl",
    "/data/a\n.jsonl",
    "file://host/data",
    "file://169.254.169.254/latest",
    "file:///data/%2e%2e/etc",
    "file:///data/%2E%2E/etc",
    "file:///data%2fa",
    "file:///data/%00",
    "file:///data/%252e%252e/etc",
    "file:///data?x=1",
    "file:///data#x",
    "file:///data/../etc",
    "file://user:secret@host/data",
    "file:relative",
    "s3://",
    "s3:///key",
    "s3://user:secret@bucket/key",
    "s3://bucket:9000/key",
    "s3://169.254.169.254/latest",
    "s3://2852039166/latest",
    "s3://0xa9fea9fe/latest",
    "s3://[::ffff:169.254.169.254]/latest",
    "s3://Bucket/key",
    "s3://bu_cket/key",
    "s3://bucket/../other/key",
    "s3://bucket/a/./b",
    "s3://bucket/a//b",
    "s3://bucket/%2e%2e/key",
    "s3://bucket/key?versionId=1",
    "s3://bucket/key#x",
    "http://169.254.169.254/latest/meta-data",
    "https://example.com/a.jsonl",
    "hf://org/model",
    "gs://bucket/key",
    "FILE:///data",
    "://",
    "",
]


@pytest.mark.parametrize("uri", REFUSED)
def test_uri_that_can_not_be_meant_is_refused(uri: str) -> None:
    with pytest.raises(PermanentError) as refused:
        parse_uri(uri)
    assert refused.value.reason == "SourceInvalid"
    assert "expected an absolute path, file:///path or s3://bucket/key" in refused.value.message


def test_folder_is_searched_to_the_bottom_in_a_fixed_order_without_hidden_and_foreign_files(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.txt", "a/y.jsonl.gz", ".hidden.jsonl", ".git/c.jsonl", "README.md", "B.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    assert [file.name for file in list_files(str(tmp_path))] == ["B.json", "a/y.jsonl.gz", "a/z.txt", "b.jsonl"]


def test_model_folder_lists_the_files_of_the_hugging_face_layout(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.model", "README.md"):
        (tmp_path / name).write_bytes(b"x")
    names = [file.name for file in list_files(str(tmp_path), MODEL_SUFFIXES)]
    assert names == ["config.json", "model.safetensors", "tokenizer.model"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"absent\.jsonl: there is no such file or folder"):
        list_files(str(tmp_path / "absent.jsonl"))


def test_folder_without_documents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(PermanentError, match=r"no file in it ends in \.jsonl"):
        list_files(str(tmp_path))


def test_file_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"x")
    with pytest.raises(PermanentError, match="expected a name that ends in"):
        list_files(str(tmp_path / "a.parquet"))


def test_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    for uri in (tmp_path, tmp_path / "a.jsonl"):
        with pytest.raises(PermanentError, match="no regular file"):
            list_files(str(uri))


def test_link_out_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(PermanentError, match="leads out of its folder"):
        list_files(str(tmp_path / "set"))


def test_link_to_a_folder_is_refused_even_where_it_would_loop(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(PermanentError, match="a link to a folder"):
        list_files(str(tmp_path))


def test_links_of_a_mounted_config_map_are_followed(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "a.jsonl").write_text("{}")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "a.jsonl").symlink_to("..data/a.jsonl")
    assert [file.name for file in list_files(str(tmp_path))] == ["a.jsonl"]


def test_one_file_has_the_digest_that_sha256sum_prints(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"one\n")
    assert pin(str(tmp_path / "a.jsonl"), None) == "sha256:" + hashlib.sha256(b"one\n").hexdigest()


def test_digest_of_a_folder_follows_names_and_content_only(tmp_path: Path) -> None:
    def digest(folder: str, files: dict[str, bytes]) -> str:
        for name, data in files.items():
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(data)
        return content_digest(list_files(str(tmp_path / folder)))

    original = digest("one", {"a.jsonl": b"1", "b.jsonl": b"2"})
    assert original == digest("same", {"b.jsonl": b"2", "a.jsonl": b"1"})
    assert original != digest("renamed", {"a.jsonl": b"1", "c.jsonl": b"2"})
    assert original != digest("swapped", {"a.jsonl": b"2", "b.jsonl": b"1"})


def test_declared_digest_that_differs_is_refused_with_both(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"one\n")
    declared = "sha256:" + "1" * 64
    with pytest.raises(PermanentError) as refused:
        pin(str(tmp_path / "a.jsonl"), declared)
    assert refused.value.reason == "SourceChanged"
    assert declared in refused.value.message
    assert hashlib.sha256(b"one\n").hexdigest() in refused.value.message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"a\nb\n", [(1, b"a"), (2, b"b")], id="lines"),
        pytest.param(b"a\r\nb", [(1, b"a"), (2, b"b")], id="Windows lines, the last one open"),
        pytest.param(b"\xef\xbb\xbfa\n", [(1, b"a")], id="a byte order mark"),
        pytest.param(b"a\n\n\nb", [(1, b"a"), (2, b""), (3, b""), (4, b"b")], id="empty lines keep their number"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_lines_are_counted_from_one(tmp_path: Path, data: bytes, expected: list[tuple[int, bytes]]) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data))
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert list(open_lines(list_files(str(tmp_path / name))[0])) == expected


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-12], id="a gzip file cut short"),
        pytest.param(lambda data: b"no gzip at all", id="no gzip file"),
        pytest.param(lambda data: data[:30] + bytes(20) + data[50:], id="a gzip file with zeros in it"),
    ],
)
def test_damaged_gzip_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    lines = b"".join(os.urandom(20).hex().encode() + b"\n" for _ in range(200))
    (tmp_path / "a.jsonl.gz").write_bytes(damage(gzip.compress(lines)))
    with pytest.raises(PermanentError, match=r"a\.jsonl\.gz: not a complete gzip file"):
        list(open_lines(list_files(str(tmp_path))[0]))


def test_line_that_would_fill_the_memory_is_refused_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bessemer_trainer.sources.MAX_LINE_BYTES", 100)
    (tmp_path / "a.jsonl").write_bytes(b"short\n" + b"x" * 101 + b"\n")
    with pytest.raises(PermanentError, match=r"a\.jsonl:2: line of over 100 bytes"):
        list(open_lines(list_files(str(tmp_path))[0]))
