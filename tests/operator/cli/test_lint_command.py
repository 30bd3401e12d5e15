"""`bessemer lint` as a user meets it: a file in, lines and an exit code out."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bessemer_api.digest import input_digest
from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_operator.cli.lintfile import as_text, exit_code, problems_of
from bessemer_operator.cli.yamlfile import absolute, read_pipeline
from tests.api.documents import PIPELINE, STAGE, edited

HEAD = "apiVersion: bessemer.dev/v1alpha1\nkind: AdaptationPipeline\nmetadata: {name: poems}\n"
GOOD = f"{HEAD}spec:\n  store: file://./store\n  data:\n    poems: {{sources: [{{uri: ./poems.jsonl}}]}}\n  stages:\n  "
GOOD += "- {name: words, method: tokenizer, data: {mixture: [{ref: poems}]}, tokenizer: {}}\n"
STAGE_LINES = """  - name: CPT
    method: cpd
    data: {mixture: [{ref: poems}]}
    train: {learningRate: "2e-5", learningrate: 3, epochs: 1, maxSteps: 3}
  - method: cpt
    data:
      mixture: {ref: a}
    nodes: 1.5
    limits: {deadline: 2w}
"""


@dataclass(frozen=True)
class Case:
    """A file and every line about it, without the file's name."""

    id: str
    text: str
    lines: tuple[str, ...]


CASES = (
    Case("a_good_file", GOOD, ()),
    Case(
        "many_mistakes_in_one_file_are_all_told",
        f"{HEAD}spec:\n  store: http://x\n  stagess: []\n  seed: '3'\n  stages:\n{STAGE_LINES}",
        (
            '5: error: spec.store: "http://x" has a form that is not allowed'
            " (expected file:///absolute/folder or s3://bucket/prefix, without spaces)",
            '6: error: spec.stagess: there is no field "stagess" (did you mean "stages"?)',
            '7: error: spec.seed: "3" is not a whole number (remove the quotes)',
            '9: error: spec.stages[0].name: "CPT" has a form that is not allowed'
            " (expected lower-case letters, digits and hyphens, as in `release-bank`)",
            '10: error: spec.stages[0].method: "cpd" is not known here (did you mean "cpt"?)',
            '12: error: spec.stages[0].train.learningRate: "2e-5" is not a number (remove the quotes)',
            '12: error: spec.stages[0].train.learningrate: there is no field "learningrate"'
            ' (did you mean "learningRate"?)',
            "13: error: spec.stages[1].name: is required (name of the stage, unique in the pipeline)",
            "15: error: spec.stages[1].data.mixture: a mapping is not a list (begin each item with `- `)",
            "16: error: spec.stages[1].nodes: 1.5 is not a whole number (nodes of a training stage)",
            '17: error: spec.stages[1].limits.deadline: "2w" has a form that is not allowed'
            " (expected a duration such as 90s, 30m, 48h or 7d)",
        ),
    ),
    Case(
        "a_rule_over_several_fields_is_told_at_the_stage",
        GOOD + "  - name: cpt\n    method: cpt\n    data: {mixture: [{ref: poems}]}\n",
        ("10: error: spec.stages[1]: train belongs to every training method, and only there",),
    ),
    Case(
        "a_rule_over_the_graph_is_told_at_its_field",
        GOOD + "  - name: cpt\n    method: cpt\n    data:\n      mixture:\n      - ref: poem\n    train: {epochs: 1}\n",
        ('14: error: spec.stages[1].data.mixture[0].ref: there is no data set "poem" (did you mean "poems"?)',),
    ),
    Case(
        "a_warning_leaves_the_file_valid",
        GOOD.replace("  stages:", "    prose: {sources: [{uri: /prose}]}\n  stages:"),
        ("8: warning: spec.data.prose: no stage reads this data set, yet it is prepared (remove it)",),
    ),
    Case(
        "a_wrong_version_and_kind",
        "apiVersion: bessemer.dev/v1\nkind: Pipeline\n",
        (
            "1: error: apiVersion: the version is 'bessemer.dev/v1' (write bessemer.dev/v1alpha1)",
            "2: error: kind: there is no kind 'Pipeline' (did you mean \"AdaptationPipeline\"?)",
        ),
    ),
    Case(
        "no_spec_and_no_name",
        "apiVersion: bessemer.dev/v1alpha1\nkind: AdaptationPipeline\nmetadata: {}\n",
        (
            "1: error: spec: is required (what is made, how it is judged, and where it is promoted to)",
            "3: error: metadata.name: is required (add it)",
        ),
    ),
    Case(
        "a_document_that_is_a_list",
        "- a\n",
        ("1: error: a document must be a mapping of fields (add apiVersion)",),
    ),
    Case(
        "an_empty_file",
        "",
        (
            "1: error: there is no object of Bessemer in this file"
            " (a document needs `apiVersion: bessemer.dev/v1alpha1` and `kind: AdaptationPipeline`)",
        ),
    ),
    Case("objects_of_others_are_left_alone", f"apiVersion: apps/v1\nkind: Deployment\n---\n{GOOD}", ()),
    Case(
        "a_stage_with_the_wrong_digest",
        json.dumps(STAGE),
        (
            "1: error: spec.inputDigest: this is not the digest of spec.inputs, so results would be stored under a"
            f" wrong identity (write {input_digest(StageInputs.model_validate(STAGE['spec']['inputs']))})",
        ),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_lint_tells(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(case.text)
    assert [str(problem) for problem in problems_of(str(file))] == [f"{file}:{line}" for line in case.lines]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"a: \xff\n", "1: error: byte 3 is no UTF-8 (save the file as UTF-8)"), (None, "can not be read: No such file")],
    ids=["another_encoding", "no_file"],
)
def test_a_file_that_is_no_text_is_told(data: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    if data is not None:
        file.write_bytes(data)
    (problem,) = problems_of(str(file))
    assert message in str(problem)


def test_a_pipeline_of_json_is_yaml(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps(PIPELINE))
    assert problems_of(str(file)) == []


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("poems.jsonl", "file:///home/me/poems.jsonl"),
        ("./a/../poems.jsonl", "file:///home/me/poems.jsonl"),
        ("../poems", "file:///home/poems"),
        ("file://./store", "file:///home/me/store"),
        ("two words.jsonl", "file:///home/me/two%20words.jsonl"),
        ("/data", "/data"),
        ("file:///data", "file:///data"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("hf://model", "hf://model"),
    ],
)
def test_a_relative_place_becomes_absolute(place: str, expected: str) -> None:
    assert absolute(place, Path("/home/me")) == expected


def test_every_place_of_a_pipeline_is_resolved(tmp_path: Path) -> None:
    edits = {
        "spec.store": "file://./store",
        "spec.base": {"model": "model"},
        "spec.data.poems.sources.0.uri": "poems.jsonl",
        "spec.evaluation.banks.0.tasks.loss.uri": "items.jsonl",
    }
    file = tmp_path / "pipeline.yaml"
    file.write_text(json.dumps(edited(PIPELINE, edits)))
    pipeline, _ = read_pipeline(str(file))
    spec = pipeline.spec
    found = [spec.store, spec.base and spec.base.model, spec.data["poems"].sources[0].uri]
    found.append(spec.evaluation.banks[0].tasks["loss"].uri)
    assert found == [f"file://{tmp_path}/{name}" for name in ("store", "model", "poems.jsonl", "items.jsonl")]


def bessemer(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bessemer_operator.cli.main", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, input=stdin)


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        (GOOD, (), 0),
        (CASES[4].text, (), 0),
        (CASES[4].text, ("--strict",), 3),
        ("a: [", (), 3),
        (GOOD, ("--no-such-option",), 2),
    ],
    ids=["good", "a_warning", "a_warning_with_strict", "no_yaml", "a_wrong_option"],
)
def test_exit_codes_of_the_program(text: str, options: tuple[str, ...], code: int) -> None:
    done = bessemer("lint", "-", *options, stdin=text)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_problems_as_json() -> None:
    done = bessemer("lint", "-", "-o", "json", stdin="a: [")
    (problem,) = json.loads(done.stdout)
    assert (problem["file"], problem["line"], problem["severity"], problem["rule"]) == ("-", 1, "error", "Yaml")


def test_the_text_ends_with_a_line_for_each_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(CASES[4].text + CASES[3].text.removeprefix(GOOD))
    problems = problems_of(str(bad))
    text = as_text([str(good), str(bad)], problems)
    assert text.splitlines()[-2:] == [f"{good}: ok", f"{bad}: 1 error"]
    assert (exit_code(problems, strict=False), exit_code([], strict=True)) == (3, 0)


HOSTILE = (
    "$(reboot)",
    "; rm -rf /",
    "a\nb",
    "--help",
    "\0",
    "\u202e",
    "é" * 10,
    "x" * 10_000,
    "../../etc/passwd",
    "%2e%2e",
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize(
    "path",
    [
        "metadata.name",
        "spec.store",
        "spec.stages.0.name",
        "spec.stages.2.from",
        "spec.stages.2.gate",
        "spec.promotion.gate",
    ],
)
def test_hostile_words_are_told_on_one_line_each(text: str, path: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(json.dumps(edited(PIPELINE, {path: text})))
    problems = problems_of(str(file))
    assert problems and all(problem.severity == "error" for problem in problems[:1])
    assert all("\n" not in str(problem) and len(str(problem)) < 500 + len(str(file)) for problem in problems)
