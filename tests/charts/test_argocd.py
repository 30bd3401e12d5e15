"""Health and actions for Argo CD, run as Argo CD runs them: Lua 5.1 with nothing but the basic library and dates."""

from functools import cache
from pathlib import Path
from typing import Any

import lupa.lua51
import pytest
from ruamel.yaml import YAML

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from tests.support.health import PIPELINE, ROOT, run_lua
from tests.support.kstatus import kstatus

KINDS = sorted(path.parent for path in ROOT.glob("*/*/health.lua"))
ACTIONS = PIPELINE / "actions"
ATTEMPTED = ("Evaluation", "MergeJob", "TrainingStage")
"""Kinds of ours that run as attempts."""


@cache
def read(path: Path) -> Any:
    return read_text(path.read_text())


def read_text(text: str) -> Any:
    return YAML(typ="safe").load(text)


def health_cases() -> list[Any]:
    return [
        pytest.param(folder, case, id=f"{folder.name}-{Path(case['inputPath']).stem}")
        for folder in KINDS
        for case in read(folder / "health_test.yaml")["tests"]
    ]


def test_every_kind_of_ours_and_of_training_operator_has_its_health() -> None:
    names = {folder.relative_to(ROOT).as_posix() for folder in KINDS}
    ours = {"AdaptationPipeline", "TrainingStage", "MergeJob", "Evaluation"}
    assert names == {f"bessemer.dev/{kind}" for kind in ours} | {"kubeflow.org/PyTorchJob"}


@pytest.mark.parametrize(("folder", "case"), health_cases())
def test_health_is_as_the_table_says(folder: Path, case: dict[str, Any]) -> None:
    assert run_lua(folder / "health.lua", read(folder / case["inputPath"])) == case["healthStatus"]


@pytest.mark.parametrize(
    "case", read(ACTIONS / "action_test.yaml")["discoveryTests"], ids=lambda case: case["inputPath"]
)
def test_what_can_be_asked_now_is_enabled(case: dict[str, Any]) -> None:
    found = run_lua(ACTIONS / "discovery.lua", read(ACTIONS / case["inputPath"]))
    assert set(found) == {path.parent.name for path in ACTIONS.glob("*/action.lua")}
    assert sorted(name for name, action in found.items() if not action["disabled"]) == case["enabled"]


@pytest.mark.parametrize("case", read(ACTIONS / "action_test.yaml")["actionTests"], ids=lambda case: case["action"])
def test_an_action_sets_annotations_that_the_operator_understands_and_nothing_else(case: dict[str, Any]) -> None:
    before = read(ACTIONS / case["inputPath"])
    after = run_lua(ACTIONS / case["action"] / "action.lua", before)
    assert after["metadata"].pop("annotations") == case["annotations"]
    assert after["metadata"] == before["metadata"] and after["spec"] == before["spec"]


@pytest.mark.parametrize(
    "case",
    read(ACTIONS / "action_test.yaml")["refusedTests"],
    ids=lambda c: f"{c['action']}-{Path(c['inputPath']).stem}",
)
def test_an_action_refuses_by_itself_because_argo_cd_does_not_enforce_disabled(case: dict[str, Any]) -> None:
    with pytest.raises(lupa.lua51.LuaError, match=case["message"]):
        run_lua(ACTIONS / case["action"] / "action.lua", read(ACTIONS / case["inputPath"]))


def test_scripts_that_differ_in_names_alone_differ_in_nothing_else() -> None:
    """Argo CD has no way to share code between scripts: who mends one must mend the others."""
    assert len({(ROOT / "bessemer.dev" / kind / "health.lua").read_text() for kind in ATTEMPTED}) == 1
    approve, reject = ((ACTIONS / name / "action.lua").read_text() for name in ("approve", "reject"))
    names = [("Approve:", "Reject:"), ('bessemer.dev/approve"', 'bessemer.dev/reject"'), ("approved-by", "rejected-by")]
    for here, there in names:
        approve = approve.replace(here, there)
    assert approve == reject


def test_the_settings_for_argo_cd_hold_every_script() -> None:
    data = read(ROOT / "argocd-cm.yaml")["data"]
    actions = read_text(data.pop("resource.customizations.actions.bessemer.dev_AdaptationPipeline"))
    assert data == {
        f"resource.customizations.health.{folder.parent.name}_{folder.name}": (folder / "health.lua").read_text()
        for folder in KINDS
    }
    assert actions["discovery.lua"] == (ACTIONS / "discovery.lua").read_text()
    assert {each["name"]: each["action.lua"] for each in actions["definitions"]} == {
        path.parent.name: path.read_text() for path in ACTIONS.glob("*/action.lua")
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("edited", "InProgress"), ("training", "InProgress"), ("approval", "InProgress"),
        ("merge", "InProgress"), ("soak", "InProgress"), ("suspended", "InProgress"), ("promoted", "Current"),
        ("gate-failed", "Failed"), ("stage-failed", "Failed"), ("held", "Failed"),
    ],
)  # fmt: skip
def test_flux_reads_the_conditions_by_kstatus(name: str, expected: str) -> None:
    assert kstatus(read(PIPELINE / f"testdata/{name}.yaml")) == expected


def test_the_conditions_that_are_read_here_are_those_of_the_kind() -> None:
    described = str(AdaptationPipeline.model_fields["status"].annotation.model_fields["conditions"].description)  # type: ignore[union-attr]
    for kind in ("Ready", "Reconciling", "Stalled", "Suspended", "Promoted"):
        assert kind in described
