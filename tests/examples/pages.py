"""What tests ask of every example: pages of docs/methods show its stages; its data are made in a folder."""

import re
import runpy
from pathlib import Path
from typing import Any

import yaml

from bessemer_operator.cli.yamlfile import read_pipeline
from bessemer_operator.core.lint import lint

ROOT = Path(__file__).parents[2]


def assert_shown(example: str, method: str) -> None:
    """The last YAML of the method's page is the stage as it stands in the example."""
    page = (ROOT / f"docs/methods/{method}.md").read_text()
    shown = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[-1])
    assert shown["method"] == method
    assert shown == {stage["name"]: stage for stage in spec_of(example)["stages"]}[shown["name"]]


def assert_without_a_finding(example: str) -> None:
    """The lint says nothing about the pipeline."""
    assert lint(read_pipeline(str(ROOT / "examples" / example / "pipeline.yaml"))[0].spec) == ()


def spec_of(example: str) -> dict[str, Any]:
    """The declaration as it is written."""
    spec: dict[str, Any] = yaml.safe_load((ROOT / "examples" / example / "pipeline.yaml").read_text())["spec"]
    return spec


def sources_of(example: str) -> set[str]:
    """Names of the files that the data sets are read from."""
    sets = spec_of(example)["data"].values()
    return {source["uri"].removeprefix("data/") for data in sets for source in data["sources"]}


def make_data(example: str, folder: Path) -> set[str]:
    """Run the example's data.py into a folder; the names of its files."""
    made = runpy.run_path(str(ROOT / "examples" / example / "data.py"))
    made["main"].__globals__["FOLDER"] = folder
    made["main"]()
    return {path.name for path in folder.iterdir()}
