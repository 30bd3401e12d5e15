"""One scalar of a YAML text changes, and one line of the text with it; whatever else people wrote stays as it is."""

import difflib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.scalar import read_scalar, replace_scalar

NEW = "s3://models/artifacts/sha256-" + "a" * 64
SERVICE = """\
# Served by KServe. Do not edit storageUri by hand.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: biomed, labels: {team: 'bio' }}   # flow style, odd spaces
spec:
    predictor:                # four spaces here
      model:
        modelFormat: {name:  huggingface}
        storageUri:   "s3://models/old"     # by digest
        args: [ --max-len=4096, "--x" ]
      containers:
      - name: a
        image: 'one'
      - {name: b, image: two}
---
other:
  key: plain
  flow: {shared: &s value, again: *s, empty: }
  text: |
    several
    lines
"""


def changed_lines(before: str, after: str) -> list[str]:
    diff = difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True))
    return [line for line in diff if line[0] in "+-"]


@pytest.mark.parametrize(
    ("key", "line"),
    [
        pytest.param(
            "spec.predictor.model.storageUri", f'        storageUri:   "{NEW}"     # by digest\n', id="double quotes"
        ),
        pytest.param("spec.predictor.containers.0.image", f"        image: '{NEW}'\n", id="single quotes, in a list"),
        pytest.param("spec.predictor.containers.1.image", f"      - {{name: b, image: {NEW}}}\n", id="flow style"),
        pytest.param("kind", f"kind: {NEW}\n", id="plain, at the top"),
        pytest.param("other.key", f"  key: {NEW}\n", id="second document"),
    ],
)
@pytest.mark.parametrize("end", [pytest.param("\n", id="LF"), pytest.param("\r\n", id="CRLF")])
def test_one_line_changes_and_everything_else_stays(key: str, line: str, end: str) -> None:
    text = SERVICE.replace("\n", end)
    changed = replace_scalar(text, key, NEW)
    assert [item for item in changed_lines(text, changed) if item[0] == "+"] == ["+ " + line.replace("\n", end)]
    assert len(changed_lines(text, changed)) == 2
    assert read_scalar(changed, key) == NEW


@pytest.mark.parametrize(
    ("text", "key", "reason", "message"),
    [
        pytest.param(SERVICE, "spec.model", "GitKeyMissing", "found 0 times", id="no such key"),
        pytest.param(SERVICE, "spec.predictor", "GitKeyUnusable", "a map or a list", id="a map"),
        pytest.param(SERVICE, "spec.predictor.containers.2.image", "GitKeyMissing", "0 times", id="beyond the list"),
        pytest.param(SERVICE, "other.text", "GitKeyUnusable", "several lines", id="a block of text"),
        pytest.param(SERVICE, "other.flow.empty", "GitKeyUnusable", "it has no value", id="nothing"),
        pytest.param(SERVICE, "other.flow.again", "GitKeyUnusable", "places of the file", id="an alias"),
        pytest.param("a: 1\n---\na: 2\n", "a", "GitKeyMissing", "found 2 times", id="in two documents"),
        pytest.param("a: [1\n", "a", "GitFileInvalid", "it is no YAML: line 2", id="no YAML"),
        pytest.param("a: 1\na: 2\n", "a", "GitFileInvalid", "duplicate key", id="a duplicate key"),
        pytest.param("", "a", "GitKeyMissing", "found 0 times", id="an empty file"),
    ],
)
def test_what_can_not_be_changed_alone_is_refused(text: str, key: str, reason: str, message: str) -> None:
    with pytest.raises(PermanentError, match=message) as found:
        replace_scalar(text, key, NEW)
    assert found.value.reason == reason


@given(st.integers(0, 10_000))
def test_in_any_file_of_plain_and_quoted_values_exactly_one_line_changes(seed: int) -> None:
    choose = random.Random(seed)
    values, ends = ["v", '"v w"', "'v'", "1", "true"], ["", "  # why", "   "]
    lines = [
        f"k{number}:{' ' * choose.randint(1, 3)}{choose.choice(values)}{choose.choice(ends)}"
        for number in range(choose.randint(1, 12))
    ]
    text, key = "\n".join(lines) + "\n", f"k{choose.randrange(len(lines))}"
    changed = replace_scalar(text, key, NEW)
    assert [line for line in changed_lines(text, changed) if line[0] == "-"] == [f"- {lines[int(key[1:])]}\n"]
    assert len(changed_lines(text, changed)) == 2
