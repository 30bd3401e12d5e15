"""Bad data, through the entry point of a pod: one clear line and exit code 64, or counted and the rest kept."""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.digest import sha256_digest
from bessemer_api.job import REPORT_ENV, SPEC_ENV, RunReport
from bessemer_api.v1alpha1.data import Source
from bessemer_trainer.__main__ import main
from bessemer_trainer.data import pin_sources
from bessemer_trainer.sources import MAX_LINE_BYTES
from tests.trainer.support import Pod

GOOD: dict[str, Any] = {
    "text": {"text": "a good row"},
    "messages": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    "promptCompletion": {"prompt": "1 + 1", "completion": "2"},
    "preference": {"prompt": "1 + 1", "chosen": "2", "rejected": "3"},
    "prompts": {"prompt": "1 + 1", "answer": 2},
}


@dataclass(frozen=True)
class Bad:
    """A row, its kind, and what is said of it."""

    id: str
    kind: str
    row: Any
    said: str


def turns(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


USER, ANSWER = GOOD["messages"]["messages"]
BAD = [
    Bad("a_key_that_stands_twice", "text", b'{"text": "a", "text": "b"}', "field 'text' stands there twice"),
    Bad("a_key_that_stands_twice_deep_inside", "prompts", b'{"prompt": "a", "x": [{"y": 1, "y": 2}]}', "'y' stands"),
    Bad("no_json", "text", b"text", "not JSON: Expecting value at column 1"),
    Bad("another_encoding", "text", '{"text": "Müller"}'.encode("latin-1"), "not UTF-8 at byte 11"),
    Bad("utf_16", "text", '{"text": "a"}'.encode("utf-16"), "not UTF-8 at byte 0"),
    Bad("half_a_surrogate_pair", "promptCompletion", b'{"prompt": "\\ud800", "completion": "a"}', "'prompt': half a"),
    Bad(
        "no_field",
        "promptCompletion",
        {"prompt": "a"},
        "field 'completion': no such field; the fields found are 'prompt'",
    ),
    Bad("a_number_as_a_prompt", "promptCompletion", {"prompt": 5, "completion": "a"}, "'prompt': expected messages"),
    Bad(
        "an_empty_completion", "promptCompletion", {"prompt": "a", "completion": " "}, "field 'completion': it is empty"
    ),
    Bad(
        "equal_answers",
        "preference",
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        "'chosen' and 'rejected' are equal",
    ),
    Bad("no_rejected_answer", "preference", {"prompt": "a", "chosen": "b"}, "field 'rejected': no such field"),
    Bad(
        "an_answer_of_the_user",
        "preference",
        {"prompt": "a", "chosen": [USER], "rejected": "b"},
        "begin with the assistant",
    ),
    Bad(
        "messages_as_a_text",
        "messages",
        {"messages": "Hi"},
        "'messages': expected messages with role and content, found str",
    ),
    Bad("no_messages", "messages", turns(), "found an empty list"),
    Bad("no_answer", "messages", turns(USER), "no message of the assistant"),
    Bad(
        "an_unknown_role",
        "messages",
        turns({"role": "bot", "content": "a"}, ANSWER),
        "'messages[0].role': expected one of",
    ),
    Bad("a_message_that_is_a_text", "messages", turns("Hi", ANSWER), "'messages[0]': expected an object"),
    Bad(
        "a_message_without_content",
        "messages",
        turns(USER, {"role": "assistant"}),
        "'messages[1].content': expected a text",
    ),
    Bad(
        "a_message_of_parts",
        "messages",
        turns(USER, {**ANSWER, "content": [1]}),
        "'content': expected a string, found list",
    ),
    Bad("a_tool_call", "messages", turns(USER, {**ANSWER, "tool_calls": [1]}), "has the field 'tool_calls'"),
    Bad("a_value_that_is_no_json", "prompts", b'{"prompt": "a", "answer": NaN}', "field 'answer': expected JSON"),
    Bad("a_prompt_that_is_missing", "prompts", {"answer": 2}, "field 'prompt': no such field"),
]


@dataclass
class Ended:
    code: int
    errors: str
    report: RunReport
    folder: Path

    def lines(self, name: str) -> list[dict[str, Any]]:
        digest = str(self.report.output_digest).replace(":", "-")
        text = (self.folder / "store/artifacts" / digest / f"{name}.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


Prepare = Callable[..., Ended]


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Prepare:
    """Runs the stage as a pod does."""

    def run(data: bytes, kind: str = "text", name: str = "rows.jsonl", **rules: Any) -> Ended:
        (tmp_path / name).write_bytes(data)
        sources = [{"uri": str(tmp_path / name)}]
        content = pin_sources([Source.model_validate(source) for source in sources])
        task = {"sources": sources, "content": content, "kind": kind, "rules": rules}
        identity = sha256_digest(json.dumps(task).encode())
        body = {"runUid": "1", "verb": "stage", "store": f"file://{tmp_path}/store", "inputDigest": identity}
        pod = Pod(tmp_path / "pod", {**body, "stage": {"method": "prepare", "prepare": task}})
        variables = pod.variables()
        for variable in (SPEC_ENV, REPORT_ENV, "BESSEMER_SCRATCH"):
            monkeypatch.setenv(variable, variables[variable])
        code = main()
        return Ended(code, capfd.readouterr().err, pod.report(), tmp_path)

    return run


def line_of(row: Any) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row).encode()


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.id)
def test_a_bad_row_is_counted_or_ends_the_stage_as_asked(prepare: Prepare, bad: Bad) -> None:
    data = b"\n".join([line_of(GOOD[bad.kind]), line_of(bad.row), b""])
    kept = prepare(data, bad.kind)
    assert (kept.code, kept.report.metrics["rejected.badRow"], len(kept.lines("documents"))) == (0, 1, 1)
    (rejected,) = kept.lines("rejected")
    assert (rejected["row"], bad.said in rejected["reason"]) == (2, True), rejected["reason"]
    failed = prepare(data, bad.kind, onBadRow="fail")
    assert failed.code == 64
    assert failed.report.error
    assert failed.report.error.reason == "BadRow"
    (told,) = [line for line in failed.errors.splitlines() if line.startswith("error: ")]
    assert re.match(r"error: BadRow: /.*/rows\.jsonl:2: ", told)
    assert bad.said in told


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_row_of_each_kind_is_kept_as_it_is(prepare: Prepare, kind: str) -> None:
    """Also after a byte order mark, and where fields that are not asked for stand beside it."""
    beside = {} if kind == "prompts" else {"other": [None, 1.5]}
    ended = prepare(b"\xef\xbb\xbf" + line_of(GOOD[kind] | beside), kind)
    assert ended.code == 0
    assert ended.lines("documents") == [GOOD[kind] | {"id": "0/rows.jsonl:1"}]


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        pytest.param(b"", "rows.jsonl", "NoDocuments: no document was kept: no rows", id="an empty file"),
        pytest.param(b"\xef\xbb\xbf", "rows.jsonl", "NoDocuments: no document was kept: no rows", id="a mark alone"),
        pytest.param(b" \n", "rows.txt", "NoDocuments: no document was kept: {'minCharacters': 1}", id="a blank text"),
        pytest.param(
            b'{"text": "' + b"x" * MAX_LINE_BYTES + b'"}\n', "rows.jsonl", "rows.jsonl:1: line of over", id="a huge row"
        ),
        pytest.param(
            gzip.compress(b"x" * (MAX_LINE_BYTES + 1)), "rows.jsonl.gz", "rows.jsonl.gz:1: line of over", id="a bomb"
        ),
        pytest.param(b"PAR1", "rows.parquet", "rows.parquet: not a Parquet file", id="a file by another name"),
    ],
)
def test_data_that_is_no_data_ends_the_stage_with_one_line(prepare: Prepare, data: bytes, name: str, said: str) -> None:
    ended = prepare(data, name=name)
    assert ended.code == 64
    told = [line for line in ended.errors.splitlines() if line.startswith("error: ")]
    assert (len(told), said in told[0], "Traceback" in ended.errors) == (1, True, False), ended.errors


def test_rows_of_texts_have_no_fields(prepare: Prepare) -> None:
    assert "a text file has no fields" in prepare(b"text", "messages", "rows.txt").errors
