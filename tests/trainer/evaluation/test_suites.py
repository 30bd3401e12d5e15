"""Banks to evidence through the real stages: regression suites with their veto, strata, generated items."""

import json
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.job import CompareReport
from bessemer_api.v1alpha1.evaluation import BankTask
from bessemer_trainer.data import pin_bank
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.stages import bank, compare
from tests.trainer.evaluation.tiny import World, colour_of, names

HALF = "ab"
SUITE = [{"name": "suite-0", "task": "verified", "maxNewTokens": 8}]
AXES = [
    {"name": "short", "task": "exactMatch", "maxNewTokens": 8, "stratifyBy": "half"},
    {"name": "sums", "task": "reasoningGym", "maxNewTokens": 4, "stratifyBy": "generator"},
]


def make_bank(world: World, tasks: dict[str, dict[str, Any]], **fields: Any) -> str:
    models = {axis: BankTask.model_validate(task) for axis, task in tasks.items()}
    inputs = {"tasks": tasks, "content": pin_bank(models), "dev": 0, "gate": 1, **fields}
    stage = {"method": "bank", "seed": 3, "bank": inputs}
    digest = bank.run(world.context(verb="stage", stage=stage)).output_digest
    assert digest is not None
    return digest


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def cases(count: int, wrong: int = 0) -> list[dict[str, Any]]:
    """Bugs that a trained model has not; of the last `wrong` ones it has every one."""
    rows = []
    for k, name in enumerate(names()[:count]):
        verifier: dict[str, Any] = {"kind": "contains", "answers": [colour_of(k)]}
        if k >= count - wrong:
            verifier = {"kind": "not", "verifier": verifier}
        rows.append({"id": f"bug-{k}", "prompt": f"The colour of {name} is", "verifier": verifier})
    return rows


def on_suite(world: World, tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    """The evaluation of the good model on a suite of these cases."""
    tasks = {"suite-0": {"uri": jsonl(tmp_path / "bugs.jsonl", rows)}}
    suite = make_bank(world, tasks, measures={"suite-0": "verified"}, whole=True)
    return world.evaluate(world.good, 0, 1_000_000, bank=suite, axes=SUITE, part="all")


def judged(world: World, **fields: Any) -> CompareReport:
    arms = {
        arm: {"checkpoint": checkpoint, "results": [world.evaluate(checkpoint)]}
        for arm, checkpoint in (("candidate", world.good), ("baseline", world.weak))
    }
    task = {
        "gate": "g", "gateDigest": "sha256:" + "1" * 64, "looks": [120], "look": 1, "bank": world.bank,
        "axes": [{"name": "knowledge", "winBy": 0.0, "notWorseThan": 0.05}],
        "measures": [{"name": "knowledge", "task": "multipleChoice", "clusterBy": "fact"}], **arms, **fields,
    }  # fmt: skip
    found = compare.run(world.context(verb="compare", compare=task)).compare
    assert found is not None
    return found


def test_a_suite_that_passes_is_silent_and_one_failed_case_is_a_veto(world: World, tmp_path: Path) -> None:
    passed = on_suite(world, tmp_path, cases(6))
    assert judged(world, vetoes=["regression"], regression=[passed]).vetoes == []
    failed = on_suite(world, tmp_path, cases(6, wrong=1))
    fired = judged(world, vetoes=["regression"], regression=[passed, failed])
    assert fired.vetoes == ["regression"]
    assert "1 of 12 regression cases fail, the first is bug-5 (suite-0)" in fired.veto_detail


def test_missing_results_of_a_suite_are_an_error_and_no_pass(world: World) -> None:
    with pytest.raises(PermanentError, match="no results"):
        judged(world, vetoes=["regression"])
    with pytest.raises(PermanentError, match="no evaluation of the candidate on a whole suite"):
        judged(world, vetoes=["regression"], regression=[world.evaluate(world.good)])


def test_strata_reach_the_evidence_from_the_items_of_a_bank(world: World, tmp_path: Path) -> None:
    rows = [
        {
            "id": f"s{k}",
            "prompt": f"The colour of {name} is",
            "answers": [colour_of(k)],
            "stop": ["."],
            "half": "ab"[k % 2],
        }
        for k, name in enumerate(names()[:40])
    ]
    tasks = {
        "short": {"uri": jsonl(tmp_path / "short.jsonl", rows)},
        "sums": {
            "reasoningGym": {"generators": ["spell_backward"], "settings": {"spell_backward": {"max_word_len": 6}}}
        },
    }
    fields = {
        "gate": 40, "measures": {axis["name"]: axis["task"] for axis in AXES},
        "stratifyBy": {axis["name"]: axis["stratifyBy"] for axis in AXES},
    }  # fmt: skip
    made, again = (make_bank(world, tasks, **fields) for _ in range(2))
    assert made == again
    results = {
        checkpoint: [world.evaluate(checkpoint, 0, 40, bank=made, axes=AXES)] for checkpoint in (world.good, world.weak)
    }
    task = {
        "gate": "g", "gateDigest": "sha256:" + "2" * 64, "looks": [40], "look": 1, "bank": made, "measures": AXES,
        "axes": [{"name": axis["name"], "winBy": 0.0, "notWorseThan": 0.05} for axis in AXES],
        "candidate": {"checkpoint": world.good, "results": results[world.good]},
        "baseline": {"checkpoint": world.weak, "results": results[world.weak]},
    }  # fmt: skip
    outcome = compare.run(world.context(verb="compare", compare=task))
    evidence = json.loads((world.store().fetch(outcome.output_digest or "") / "evidence.json").read_bytes())
    assert [(row["stratum"], row["n"]) for row in evidence["slices"]["short"]] == [("a", 20), ("b", 20)]
    assert all(row["delta"] > 0.5 for row in evidence["slices"]["short"])
    assert {row["stratum"] for row in evidence["slices"]["sums"]} == {"spell_backward"}
    assert outcome.compare is not None
    assert outcome.compare.axes[0].delta > 0.5
    assert outcome.compare.axes[1].candidate_mean < 0.2, "it was never taught to spell"


def test_two_items_of_one_text_in_a_suite_are_refused(world: World, tmp_path: Path) -> None:
    rows = [*cases(3), {**cases(1)[0], "id": "again"}]
    with pytest.raises(PermanentError, match="stands already in"):
        on_suite(world, tmp_path, rows)
