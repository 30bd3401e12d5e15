"""`bessemer plan` as its user meets it: options in, text or a document out, an exit code. Nothing is trained."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bessemer_operator.cli.place import Place
from bessemer_operator.cli.planfile import show_plan
from bessemer_operator.cli.problems import EXIT_INVALID, InvalidFileError, UserError
from bessemer_operator.cli.supposed import read_supposed

PIPELINE = """apiVersion: bessemer.dev/v1alpha1
kind: AdaptationPipeline
metadata: {name: papers}
spec:
  store: s3://models/papers
  profiles: {train: h100}
  base: {model: s3://hub/llama}
  data:
    papers: {sources: [{uri: papers.jsonl}], prepare: {decontaminate: {against: [bank]}}}
  stages:
  - name: cpt
    method: cpt
    data: {mixture: [{ref: papers}], sequenceLength: 2048}
    train: {epochs: 2, globalBatchTokens: 65536, gradientCheckpointing: true}
    deepspeed: {zeroStage: 3}
  evaluation:
    banks: [{name: bank, dev: 10, gate: 1200, tasks: {knowledge: {uri: k.jsonl}, prose: {uri: p.jsonl}}}]
    axes: [{name: knowledge, task: multipleChoice}, {name: prose, task: bitsPerByte}]
  gates:
  - name: release
    baseline: {channel: prod, orElse: {base: true}}
    looks: [300, 600, 1200]
    axes: [{name: knowledge, winBy: 0.0, notWorseThan: 0.05}, {name: prose, notWorseThan: 0.05}]
  promotion: {candidates: [cpt], gate: release, channels: [{name: prod}]}
  budget: {gpuHours: 10}
"""
PROFILES = """
default: {}
h100: {gpus: 8, memory: 1800Gi, accelerator: {kind: h100-80gb}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "papers.jsonl").write_text("x" * 4_000_000)
    (tmp_path / "profiles.yaml").write_text(PROFILES)
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE)
    return path


def plan(file: Path, *words: str, effects: tuple[str, ...] = (), output: str = "json") -> int:
    asked = read_supposed(effects, words)
    return asyncio.run(show_plan(str(file), Place(), asked, str(file.parent / "profiles.yaml"), output))


def document(file: Path, capsys: pytest.CaptureFixture[str], *words: str, **options: Any) -> dict[str, Any]:
    plan(file, *words, **options)
    return dict(json.loads(capsys.readouterr().out))


def test_memory_time_and_hours_of_a_named_shape(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = document(file, capsys, "shape=llama-3.1-8b")
    (stage,) = told["stages"]
    assert (stage["parameters"], stage["tokens"], stage["ranks"]) == (8_030_261_248, 2_000_000, 8)
    assert stage["memory"]["states"] == round(18 * 8_030_261_248 / 8 + 4 * 128256 * 4096)
    assert stage["gpuHours"] == pytest.approx(8 * stage["seconds"] / 3600, abs=0.001)
    assert (
        told["total"]
        == told["remaining"]
        == {"gpuHours": stage["gpuHours"], "seconds": stage["seconds"], "complete": True}
    )
    assert told["budget"] == {"gpuHours": 10, "exceeded": ""}
    assert "data set papers: 1 M tokens, from the size of its files at 4 bytes a token" in told["assumed"]


def test_sizes_that_are_supposed_beat_sizes_of_files_and_a_budget_can_be_exceeded(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(file, "shape=llama-3.1-8b", "tokens.papers=1e9", output="text") == EXIT_INVALID
    text = capsys.readouterr().out
    assert "2 B" in text and "BudgetExceeded: what is still to run takes about" in text
    assert plan(file, "shape=smollm2-135m") == 0


def test_what_does_not_fit_is_shown_with_its_numbers_and_what_to_change(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(file, "shape=llama-3.1-70b", output="text") == EXIT_INVALID
    text = capsys.readouterr().out
    assert "error: spec.stages[0].deepspeed: this can not fit: about 1" in text
    assert "nodes: 4" in text and "cpt    cpt     8 x h100-80gb" in text


def test_without_a_shape_the_plan_says_what_is_missing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(file, output="text")
    text = capsys.readouterr().out
    assert "not known: the shape of the base model (base.shape, or --suppose shape=NAME)" in text
    assert "In all at least 0.0 GPU hours" in text


def test_the_shape_is_read_from_a_local_base(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = file.parent / "base"
    base.mkdir()
    config = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    (base / "config.json").write_text(json.dumps({**config, "vocab_size": 1000, "tie_word_embeddings": True}))
    file.write_text(PIPELINE.replace("s3://hub/llama", "base"))
    told = document(file, capsys)
    assert told["stages"][0]["parameters"] == 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 1000 * 64 + 64


def test_the_power_of_a_gate_for_effects_by_axis(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gate,) = document(file, capsys, effects=("knowledge=0.05",))["gates"]
    assert gate["looks"] == [300, 600, 1200]
    assert 0.85 < gate["power"][2] < 1 and gate["power"][0] < gate["power"][1] < gate["power"][2]
    assert [(ask["axis"], ask["asks"]) for ask in gate["asks"]] == [
        ("knowledge", "win"),
        ("knowledge", "hold"),
        ("prose", "hold"),
    ]
    (later,) = document(file, capsys, "try=5", effects=("knowledge=0.05",))["gates"]
    assert later["power"][2] < gate["power"][2] and later["alphaOfThisTry"] < gate["alphaOfThisTry"]
    (slid,) = document(file, capsys, "anchor.knowledge=-0.03", effects=("knowledge=0.05",))["gates"]
    assert slid["power"][2] < 0.5 and slid["asks"][-1]["asks"] == "hold against its anchor"


def test_an_underpowered_gate_says_why_and_how_many_items_it_would_take(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(file, effects=("knowledge=0.02", "prose=0"), output="text")
    text = capsys.readouterr().out
    assert "Underpowered for this: the weakest is that knowledge must win" in text
    (gate,) = document(file, capsys, effects=("knowledge=0.02",))["gates"]
    assert 3_500 < gate["itemsNeeded"] < 4_300
    (never,) = document(file, capsys, effects=("prose=0.1",))["gates"]
    assert (never["itemsNeeded"], never["impossible"]) == (
        None,
        "0 axes truly gain more than their winBy, and 1 must be won",
    )


def test_yaml_says_the_same_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = document(file, capsys, "shape=mistral-7b")
    plan(file, "shape=mistral-7b", output="yaml")
    assert YAML(typ="safe", pure=True).load(capsys.readouterr().out) == told


@pytest.mark.parametrize(
    ("words", "effects", "message"),
    [
        pytest.param(("shape=gpt-9",), (), "expected one of smollm2-135m", id="an_unknown_shape"),
        pytest.param(("tokens.poems=9",), (), "there is no poems; known: papers", id="an_unknown_data_set"),
        pytest.param(("speed=9",), (), "--suppose speed=9: expected one of shape=", id="an_unknown_word"),
        pytest.param(("try=0",), (), "expected a number from 1 to", id="a_try_before_the_first"),
        pytest.param((), ("knowlege=0.1",), "there is no knowlege; known: knowledge, prose", id="an_unknown_axis"),
        pytest.param((), ("knowledge=much",), "expected NAME=NUMBER", id="no_number"),
        pytest.param((), ("knowledge=0.5",), "needs a discordance of at least that", id="an_impossible_effect"),
    ],
)
def test_words_that_say_nothing_are_refused(
    file: Path, words: tuple[str, ...], effects: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan(file, *words, effects=effects)


def test_a_file_with_other_errors_is_not_planned(file: Path) -> None:
    file.write_text(PIPELINE.replace("{ref: papers}", "{ref: paper}"))
    with pytest.raises(InvalidFileError, match="there is no data set"):
        plan(file)
