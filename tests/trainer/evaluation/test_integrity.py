"""Verdicts rest on stored items alone, for every task family: on trained weights, from bank to evidence.

Swapped arms flip every sign; an edited item is refused, or is another artifact with other numbers; shuffled gold gives
chance.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.job import AxisEvidence
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.stages import compare
from bessemer_trainer.stages.evaluate import MEASURES
from tests.trainer.evaluation import families
from tests.trainer.evaluation.families import COUNT, Arena
from tests.trainer.evaluation.taught import Taught

AXES = (
    "multipleChoice", "bitsPerByte", "exactMatch", "chat", "jsonAnswer", "reasoningGym", "constraints", "designs",
    "toolCall", "handoff", "verified", "latency", "cost", "lmEval",
)  # fmt: skip
WITHOUT_GOLD = ("latency", "cost")
"""Seconds and tokens are counted; no answer to them is right or wrong."""
WITH_GOLD = [axis for axis in AXES if axis not in WITHOUT_GOLD]


@pytest.fixture(scope="session")
def arena(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return families.build(taught, tmp_path_factory.mktemp("arena"))


def compared(arena: Arena, axis: str, candidate: str, baseline: str) -> AxisEvidence:
    """The evidence of one axis about two stored evaluations."""
    checkpoints = {arena.untaught: arena.world.weak}
    arms = {
        arm: {"checkpoint": checkpoints.get(results, arena.world.good), "results": [results]}
        for arm, results in (("candidate", candidate), ("baseline", baseline))
    }
    task = {
        "gate": "g", "gateDigest": "sha256:" + "1" * 64, "looks": [COUNT], "look": 1, "bank": arena.world.bank,
        "measures": arena.axes([axis]), "axes": [{"name": axis, "winBy": 0.0, "notWorseThan": 0.05}], **arms,
    }  # fmt: skip
    found = compare.run(arena.world.context(verb="compare", compare=task)).compare
    assert found is not None
    return found.axes[0]


def edited(arena: Arena, axis: str, folder: Path) -> str:
    """The taught model's evaluation with another score for the first item of one axis, as an artifact of its own."""
    store = arena.world.store()
    folder.mkdir()
    for path in store.fetch(arena.taught).glob("samples_*.jsonl"):
        lines = path.read_text().splitlines()
        if path.name == f"samples_{axis}.jsonl":
            sample = json.loads(lines[0])
            lines[0] = json.dumps({**sample, "score": other_score(sample["score"])})
        (folder / path.name).write_text("\n".join(lines) + "\n")
    return store.publish(folder, "evaluation", dict(store.manifest(arena.taught).meta))


def other_score(score: float) -> float:
    return 1.0 - score if score in (0.0, 1.0) else 10 * score


def numbers(found: AxisEvidence) -> dict[str, Any]:
    return found.model_dump(include={"delta", "low", "high", "standard_error", "candidate_mean", "p_win"})


def test_every_task_family_is_in_the_table(arena: Arena) -> None:
    assert tuple(arena.families) == AXES
    assert {family.task for family in arena.families.values()} == set(MEASURES)


@pytest.mark.parametrize("axis", AXES)
def test_swapping_the_arms_flips_every_sign(arena: Arena, axis: str) -> None:
    one = compared(arena, axis, arena.taught, arena.untaught)
    other = compared(arena, axis, arena.untaught, arena.taught)
    assert (other.delta, other.low, other.high) == pytest.approx((-one.delta, -one.high, -one.low), abs=1e-5)
    assert other.standard_error == pytest.approx(one.standard_error)
    assert (other.p_win, other.p_no_win) == pytest.approx((one.p_no_win, one.p_win), abs=1e-5)
    assert one.delta > 0 if axis in WITH_GOLD else one.delta != 0, "the taught model answers better"


@pytest.mark.parametrize("axis", AXES)
def test_an_edited_item_is_another_artifact_with_other_numbers(arena: Arena, axis: str, tmp_path: Path) -> None:
    forged = edited(arena, axis, tmp_path / "forged")
    assert forged != arena.taught
    before, after = (compared(arena, axis, results, arena.untaught) for results in (arena.taught, forged))
    assert numbers(before) != numbers(after)
    assert before.candidate_mean != after.candidate_mean


@pytest.mark.parametrize("axis", AXES)
def test_an_item_that_was_edited_where_it_lies_is_refused(arena: Arena, axis: str, tmp_path: Path) -> None:
    copy = edited(arena, axis, tmp_path / "copy")
    path = arena.world.store().fetch(copy) / f"samples_{axis}.jsonl"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"score"', '"Score"', 1))
    with pytest.raises(PermanentError, match=f"samples_{axis}.jsonl") as refused:
        compared(arena, axis, copy, arena.untaught)
    assert refused.value.reason == "ArtifactCorrupt"


@pytest.mark.parametrize("axis", WITH_GOLD)
def test_shuffled_gold_gives_chance(arena: Arena, axis: str) -> None:
    """Taught and asked as before; only what counts as right belongs to another item."""
    family = arena.families[axis]
    right, shuffled = (arena.mean(evaluation, axis) for evaluation in (arena.taught, arena.shuffled))
    if family.smaller_is_better:
        assert right < 0.5 * arena.mean(arena.untaught, axis) < shuffled
    else:
        assert shuffled <= family.chance + 0.1 < 0.5 <= right
