"""Each diagnostic fires on weights trained to have the failure, and stays silent on a model that went on well."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bessemer_api.v1alpha1.diagnostic import ALARMS, Diagnostic
from bessemer_trainer.evals.diagnostics import DETECTORS
from bessemer_trainer.evals.diagnostics.common import Arm, Finding
from tests.trainer.evaluation.habits import FAILURES, Habits, preferred

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MEASURED = tuple(FAILURES)


def found_by(name: str, habits: Habits, subject: Arm, **more: Any) -> Finding:
    """What a detector with its default level says about a checkpoint. `more`: fields of the case."""
    asked = Diagnostic.model_validate({"name": name, "maxNewTokens": 24, "samples": 24})
    return DETECTORS[asked.name](habits.case(subject, **more), asked)


@pytest.mark.parametrize("name", MEASURED)
def test_it_fires_on_the_failure(habits: Habits, name: str) -> None:
    found = found_by(name, habits, habits.arm(name))
    assert found.state == "Alarm", found.message
    assert found.limit == ALARMS[name]  # type: ignore[index]
    assert len(found.items) > 5, "the result of every item is kept"


@pytest.mark.parametrize("name", MEASURED)
def test_it_is_silent_on_a_healthy_model(habits: Habits, name: str) -> None:
    found = found_by(name, habits, habits.arm("healthy"))
    assert found.state == "Quiet", found.message


def test_preference_training_that_lowers_the_chosen_answers_too_is_an_alarm_and_anchored_it_is_not(
    habits: Habits,
) -> None:
    """The same pairs and rate: with DPO alone the chosen answers lose probability while the margin grows."""
    found = [
        found_by("chosenLogProbability", habits, habits.arm("healthy"), log=preferred(habits, anchor))
        for anchor in (0.0, 1.0)
    ]
    assert [item.state for item in found] == ["Alarm", "Quiet"], [item.message for item in found]


# --- merges -----------------------------------------------------------------------------------------------------------


def merged(habits: Habits, *parents: str) -> Finding:
    arms = [habits.arm(name) for name in parents]
    return found_by("mergeHealth", habits, habits.arm("healthy"), start=None, parents=arms)


def turned(habits: Habits) -> str:
    """The start with its hidden neurons in another order: the same function, far away in weights."""
    folder = habits.root / "turned"
    shutil.copytree(habits.root / "start", folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        side = next((side for part, side in (("gate", 0), ("up", 0), ("down", 1)) if f"{part}_proj" in name), None)
        if side is not None:
            order = torch.roll(torch.arange(weights[name].shape[side]), 1)
            weights[name] = weights[name].index_select(side, order).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder.name


def test_a_barrier_between_parents_is_an_alarm_and_siblings_have_none(habits: Habits) -> None:
    siblings, strangers = merged(habits, "start", "healthy"), merged(habits, "start", turned(habits))
    assert (siblings.state, strangers.state) == ("Quiet", "Alarm"), (siblings.message, strangers.message)
    losses = [row[1] for row in strangers.figures["barrier"]["rows"]]
    assert losses[0] == pytest.approx(losses[-1], abs=1e-3), "both ends are the same function"


def test_a_merge_with_another_tokenizer_than_its_parents_is_an_alarm(habits: Habits, tmp_path: Path) -> None:
    shutil.copytree(habits.root / "healthy", tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    subject = replace(habits.arm("healthy"), folder=tmp_path)
    found = found_by("mergeHealth", habits, subject, start=None, parents=[habits.arm("start"), habits.arm("healthy")])
    assert found.state == "Alarm"
    assert "tokenizer.json differs" in found.message
