"""Pages of docs/methods show the stages of examples/instructions as they stand there; the example has no finding."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from bessemer_operator.cli.yamlfile import read_pipeline
from bessemer_operator.core.lint import lint

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/instructions"


def stages() -> dict[str, dict[str, Any]]:
    return {stage["name"]: stage for stage in yaml.safe_load((EXAMPLE / "pipeline.yaml").read_text())["spec"]["stages"]}


@pytest.mark.parametrize("method", ["tokenizer", "pretrain", "cpt", "sft"])
def test_a_page_shows_the_stage_that_the_example_runs(method: str) -> None:
    page = (ROOT / f"docs/methods/{method}.md").read_text()
    shown = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[-1])
    assert shown["method"] == method
    assert shown == stages()[shown["name"]]


def test_the_example_is_a_pipeline_without_a_finding() -> None:
    assert lint(read_pipeline(str(EXAMPLE / "pipeline.yaml"))[0].spec) == ()


def test_the_data_are_what_the_pipeline_reads(tmp_path: Path) -> None:
    made = runpy.run_path(str(EXAMPLE / "data.py"))
    made["main"].__globals__["FOLDER"] = tmp_path
    made["main"]()
    sources = yaml.safe_load((EXAMPLE / "pipeline.yaml").read_text())["spec"]["data"].values()
    read = {source["uri"].removeprefix("data/") for data in sources for source in data["sources"]}
    assert {path.name for path in tmp_path.iterdir()} == read
