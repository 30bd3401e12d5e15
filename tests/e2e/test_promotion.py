"""A release from end to end on this machine, with real training: two candidates, approval, soak, rollback.

The incumbent is the mini pipeline's candidate. Then a second branch trains it on: it is nominated on dev items, passes
the gate against the incumbent, waits for a person, soaks, is promoted, and is rolled back.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bessemer_operator.cli.problems import EXIT_GATE, EXIT_OK, EXIT_WAITING
from tests.api.documents import edited
from tests.support.localrun import COMMAND, Ended, Runner, conditions_of, last_record, outputs_of
from tests.support.mini import build_pipeline, write_mini

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CHANNELS = [{"name": "early"}, {"name": "prod", "after": {"soak": "1s"}}]


def verb(*arguments: str) -> Ended:
    done = subprocess.run([*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=120)
    return Ended(done.returncode, done.stdout, done.stderr)


def channel(store: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((store / "channels" / name).glob("*.json"))]


def test_two_candidates_approval_soak_and_rollback(tmp_path: Path) -> None:
    mini = write_mini(tmp_path / "mini", {"spec.promotion.channels": CHANNELS})
    runner, file = Runner(mini.file), str(mini.file)
    first = runner.run()
    while first.code == EXIT_WAITING:  # the soak of a second, which a second run outlasts
        first = runner.run()
    assert first.code == EXIT_OK, first.output + first.errors
    incumbent = outputs_of(runner.pipeline())["cpt"]

    stages = build_pipeline(mini.folder)["spec"]["stages"]
    side = {**edited(stages[2], {"train.maxSteps": 32}), "name": "side", "from": "cpt"}
    mini.write(
        {
            "spec.promotion.channels": CHANNELS,
            "spec.stages": [*stages, side],
            "spec.promotion.candidates": ["cpt", "side"],
            "spec.promotion.approval": {"required": True},
        }
    )
    second = runner.run()
    assert second.code == EXIT_WAITING, second.output + second.errors
    status = runner.pipeline()["status"]
    candidate = outputs_of(runner.pipeline())["side"]
    assert (status["nomination"]["name"], status["nomination"]["digest"]) == ("side", candidate)
    rows = {row["name"]: row for row in status["candidates"]}
    assert rows["cpt"]["axes"][0]["delta"] == 0, "the incumbent differs in nothing from itself"
    assert rows["side"]["axes"][0]["delta"] > 0
    assert conditions_of(runner.pipeline())["Promoted"] == ("False", "WaitingForApproval")
    assert "Nominee: side on dev items" in second.output
    assert Path(status["report"].removeprefix("file://")).is_file()

    approved = verb("approve", file, "--by", "ana")
    assert approved.code == EXIT_OK, approved.errors
    third = runner.run()
    while third.code == EXIT_WAITING:
        third = runner.run()
    assert third.code == EXIT_OK, third.output + third.errors
    for name in ("early", "prod"):
        assert [(r["digest"], r["kind"]) for r in channel(mini.store, name)] == [
            (incumbent, "promotion"),
            (candidate, "promotion"),
        ]
    assert last_record(mini.store, "prod")["by"] == "ana"
    assert last_record(mini.store, "prod")["evidence"] == last_record(mini.store, "early")["evidence"]

    back = verb("rollback", file, "--channel", "prod", "--by", "bo")
    assert back.code == EXIT_OK, back.errors
    assert runner.run().code == EXIT_GATE
    record = last_record(mini.store, "prod")
    assert (record["kind"], record["digest"], record["held"], record["by"]) == (
        "rollback",
        incumbent,
        [candidate],
        "bo",
    )
    conditions = conditions_of(runner.pipeline())
    assert (conditions["RolledBack"], conditions["Promoted"]) == (("True", "RolledBack"), ("False", "Held"))
    assert runner.run().code == EXIT_GATE
    assert len(channel(mini.store, "prod")) == 3, "nothing is promoted, or rolled back, twice"
