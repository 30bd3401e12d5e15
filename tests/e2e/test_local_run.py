"""One pipeline on this machine, with no cluster: run, again, edited, reverted, judged otherwise. Real parts only."""

import pytest

from bessemer_operator.cli.problems import EXIT_GATE, EXIT_OK
from tests.conftest import LocalStory, Step
from tests.support.localrun import conditions_of, last_record, outputs_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def stages_of(names: frozenset[str]) -> set[str]:
    """The part of each attempt's name that says what it was for."""
    return {name.rpartition("-a")[0].rpartition("-")[0].removeprefix("mini-") for name in names}


def new_work(before: Step, after: Step) -> set[str]:
    return stages_of(after.attempts - before.attempts)


def test_a_local_run_promotes_what_passed_its_gate(local_story: LocalStory) -> None:
    story, pipeline = local_story, local_story.first.pipeline
    [gate] = pipeline["status"]["gates"]
    cpt = outputs_of(pipeline)["cpt"]
    assert (story.first.ended.code, story.first.ended.errors) == (EXIT_OK, "")
    assert story.first.ended.output.splitlines()[-2].startswith(f"Channel prod holds {cpt} (record 1).")
    assert (gate["verdict"], gate["baseline"]) == ("Passed", outputs_of(pipeline)["pre"])
    assert conditions_of(pipeline)["Promoted"] == ("True", "Promoted")


def test_a_second_run_only_looks_at_the_world_again(local_story: LocalStory) -> None:
    assert local_story.again.ended.code == EXIT_OK
    assert new_work(local_story.first, local_story.again) <= {"resolve"}
    assert outputs_of(local_story.again.pipeline) == outputs_of(local_story.first.pipeline)


def test_an_edited_learning_rate_runs_again_what_depends_on_it_and_nothing_else(local_story: LocalStory) -> None:
    before, after = local_story.again, local_story.edited
    assert new_work(before, after) <= {"resolve", "cpt", "eval", "compare", "report"}
    assert {"cpt", "eval", "compare"} <= new_work(before, after)
    changed = dict(outputs_of(after.pipeline).items() - outputs_of(before.pipeline).items())
    assert changed.keys() == {"cpt"}


def test_the_edited_candidate_is_gated_against_the_promoted_one_and_refused(local_story: LocalStory) -> None:
    step, incumbent = local_story.edited, outputs_of(local_story.first.pipeline)["cpt"]
    [gate] = step.pipeline["status"]["gates"]
    assert (gate["verdict"], gate["baseline"], gate["candidate"]) == (
        "Failed",
        incumbent,
        outputs_of(step.pipeline)["cpt"],
    )
    assert step.ended.code == EXIT_GATE
    assert conditions_of(step.pipeline)["Promoted"] == ("False", "GateFailed")
    assert [(item["digest"], item["record"]) for item in step.pipeline["status"]["channels"]] == [(incumbent, 1)]


def test_after_the_edit_is_taken_back_nothing_runs_and_the_promotion_stands(local_story: LocalStory) -> None:
    step = local_story.reverted
    assert step.ended.code == EXIT_OK
    assert new_work(local_story.edited, step) <= {"resolve", "report"}
    assert outputs_of(step.pipeline) == outputs_of(local_story.first.pipeline)
    assert conditions_of(step.pipeline)["Promoted"][0] == "True"


def test_a_gate_that_could_not_show_its_margin_is_invalid_and_promotes_nothing(local_story: LocalStory) -> None:
    step = local_story.underpowered
    [gate] = step.pipeline["status"]["gates"]
    assert (gate["verdict"], gate["reason"]) == ("Invalid", "Underpowered")
    assert step.ended.code == EXIT_GATE
    assert new_work(local_story.reverted, step) <= {"resolve", "compare", "report"}
    assert list((local_story.mini.store / "channels" / "lab").glob("*.json")) == []


def test_the_channel_in_the_store_says_what_the_status_says(local_story: LocalStory) -> None:
    record = last_record(local_story.mini.store, "prod")
    [gate] = local_story.first.pipeline["status"]["gates"]
    assert (record["record"], record["digest"], record["evidence"]) == (1, gate["candidate"], gate["evidenceDigest"])


def test_no_process_is_left_behind_by_local_runs(local_story: LocalStory) -> None:
    assert local_story.runner.left_over() == []
