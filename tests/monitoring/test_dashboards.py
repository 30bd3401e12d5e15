"""The dashboards of the chart: up to date, and as Grafana's dashboard linter wants them. Their answers: tests/e2e."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.prometheus import PROMTOOL, REASON

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "charts/bessemer/dashboards").glob("*.json"))
Json = dict[str, Any]


def panels_of(file: Path) -> list[Json]:
    document = json.loads(file.read_text())
    return [panel for panel in document["panels"] if panel["type"] != "row"]


PANELS = [pytest.param(panel, id=f"{file.stem}: {panel['title']}") for file in FILES for panel in panels_of(file)]


def test_the_committed_files_are_those_that_the_generator_writes() -> None:
    command = [sys.executable, "tools/dashboards.py", "--check", "charts/bessemer/dashboards"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dashboard_is_fit_for_any_grafana(file: Path) -> None:
    document = json.loads(file.read_text())
    variables = {item["name"]: item for item in document["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    for name in ("job", "instance"):
        found = variables[name]
        assert (found["multi"], found["includeAll"], found["allValue"]) == (True, True, ".+")
        assert found["datasource"]["uid"] == "${datasource}"
    assert document["description"] and document["uid"] == file.stem and document["editable"] is False
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"\$\{?([a-z]\w*)", file.read_text())) - {"__rate_interval", "__all"}
    assert used == variables.keys()


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_and_selects_job_and_instance(panel: Json) -> None:
    assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    for target in panel["targets"]:
        selectors = re.findall(r"(?:bessemer|DCGM)_\w+(\{[^}]*\})?", target["expr"])
        assert selectors and all('job=~"$job", instance=~"$instance"' in found for found in selectors), target["expr"]
        ranges = re.findall(r"\[([^\]]+)\]", target["expr"])
        assert set(ranges) <= {"$__rate_interval"}
        assert "vector(" not in target["expr"]
        assert target["legendFormat"]


@pytest.mark.skipif(PROMTOOL is None, reason=REASON)
def test_every_query_is_promql(tmp_path: Path) -> None:
    """promtool reads them as recording rules."""
    expressions = [target["expr"] for file in FILES for panel in panels_of(file) for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": replaced(expr)} for number, expr in enumerate(expressions)]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([str(PROMTOOL), "check", "rules", str(file)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(expressions)} rules found" in done.stdout


def replaced(expr: str, interval: str = "1m") -> str:
    """An expression as Grafana would send it."""
    values = {"__rate_interval": interval, "price": "2.5", "peak": "989"}
    return re.sub(r"\$(\w+)", lambda match: values.get(match[1], ".+"), expr)
