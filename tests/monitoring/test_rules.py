"""The alert rules: promtool plays each (rules_test.yaml); each has a runbook, and asks for metrics that there are."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.prometheus import PROMTOOL, REASON

ROOT = Path(__file__).parents[2]
FILE = ROOT / "charts/bessemer/rules/bessemer.yaml"
TESTS = Path(__file__).with_name("rules_test.yaml")
RULES: list[dict[str, Any]] = [
    rule for group in YAML(typ="safe", pure=True).load(FILE)["groups"] for rule in group["rules"]
]
BY_NAME = [pytest.param(rule, id=rule["alert"]) for rule in RULES]


@pytest.mark.skipif(PROMTOOL is None, reason=REASON)
def test_every_rule_fires_when_it_should_and_is_silent_else() -> None:
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(TESTS)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", BY_NAME)
def test_a_rule_is_tested_to_fire_and_to_be_silent(rule: dict[str, Any]) -> None:
    cases = [
        case
        for test in YAML(typ="safe", pure=True).load(TESTS)["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]
    assert {bool(case["exp_alerts"]) for case in cases} == {True, False}


@pytest.mark.parametrize("rule", BY_NAME)
def test_a_rule_has_a_severity_words_and_a_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), flags=re.M)
    assert anchor in [heading.lower() for heading in headings]


def test_there_is_no_runbook_without_a_rule() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), flags=re.M)
    assert headings == [rule["alert"] for rule in RULES]
