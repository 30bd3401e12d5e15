"""The published recipes lint without errors and can be planned with the profiles beside them."""

import asyncio
import json
from pathlib import Path

import pytest

from bessemer_operator.cli.lintfile import problems_of, profiles_of
from bessemer_operator.cli.place import Place
from bessemer_operator.cli.planfile import show_plan
from bessemer_operator.cli.supposed import read_supposed

FOLDER = Path(__file__).parents[2] / "examples/recipes"
PROFILES = str(FOLDER / "profiles.yaml")
PARAMETERS = {"smollm-1.7b": 1_711_376_384, "mistral-7b": 7_248_023_552, "llama-3.1-8b": 8_030_261_248}
WARNINGS = {"smollm-1.7b": set(), "mistral-7b": set(), "llama-3.1-8b": {"RepeatsLikelihood"}}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_recipe_has_no_errors_and_only_the_warnings_that_its_readme_explains(name: str) -> None:
    problems = problems_of(str(FOLDER / f"{name}.yaml"), profiles_of(PROFILES))
    assert [str(problem) for problem in problems if problem.severity == "error"] == []
    assert {problem.rule for problem in problems} == WARNINGS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_recipe_fits_its_profile_and_its_budget(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(state=str(tmp_path))
    assert asyncio.run(show_plan(str(FOLDER / f"{name}.yaml"), place, read_supposed([], []), PROFILES, "json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {stage["parameters"] for stage in plan["stages"]} == {PARAMETERS[name]}
    assert all(stage["memory"]["total"] < 0.9 * stage["deviceBytes"] for stage in plan["stages"])
    assert plan["total"]["complete"] and plan["budget"]["exceeded"] == ""
