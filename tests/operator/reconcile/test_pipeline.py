"""A whole pipeline under the real operator: what runs, what is reused, what stops it and what it says then."""

from collections.abc import Callable
from typing import Any

import pytest

from bessemer_api.job import EXIT_PERMANENT, EXIT_PREEMPTED, PromoteTask, RunSpec
from bessemer_operator.cluster.protocol import Ref
from tests.api.documents import ABSENT, PIPELINE, edited
from tests.support.world import Ending, Script, World, digest_of, failure

NODES = ["bank-bank", "data-poems", "words", "pretrain-data", "pretrain", "cpt-data", "cpt"]
FASTER = {"spec.stages.2.train.learningRate": 1e-4}


def on(method: str, ending: Callable[[RunSpec], Ending | str], times: int = 1_000_000) -> Script:
    """Stages of this method (or runs of this verb) end so, the first `times` times they are asked."""
    left = [times]

    def script(spec: RunSpec, name: str) -> Ending | str | None:
        found = spec.stage.method if spec.stage else spec.verb
        if found != method or left[0] == 0:
            return None
        left[0] -= 1
        return ending(spec)

    return script


def hang(_: RunSpec) -> str:
    return "hang"


def bad_data(spec: RunSpec) -> Ending:
    return failure(spec, EXIT_PERMANENT, "BadData", "poems.jsonl: line 7: field text is missing")


def crash(_: RunSpec) -> Ending:
    return Ending(1)


async def done(world: World) -> list[str]:
    return [row["name"] for row in (await world.pipeline())["status"]["stages"] if row["phase"] == "Succeeded"]


async def test_a_pipeline_goes_from_apply_to_promoted(world: World) -> None:
    await world.settle()
    assert await done(world) == NODES
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")
    assert await world.condition("Ready") == ("True", "Finished", "")
    status = (await world.pipeline())["status"]
    assert (status["progress"], status["gate"], status["currentStage"]) == ("7/7", "Passed", "done")
    assert [item.candidate for item in world.store.channels["prod"]] == [status["stages"][-1]["outputDigest"]]
    assert status["report"].startswith("s3://models/poems/reports/")


async def test_an_operator_that_starts_when_all_is_done_writes_nothing(world: World) -> None:
    await world.settle()
    world.start_operator()
    await world.settle()
    assert world.tap.writes == []
    assert world.outcomes[-1][1] == "ok"


async def test_an_edited_learning_rate_runs_that_stage_again_and_nothing_else(world: World) -> None:
    await world.settle()
    before = list(world.store.computed)
    await world.apply(edited(PIPELINE, FASTER))
    await world.settle()
    assert world.store.computed[len(before) :] == [(await world.stage("cpt"))["spec"]["inputDigest"]]
    rows = {row["name"]: row["reused"] for row in (await world.pipeline())["status"]["stages"]}
    assert rows == {**dict.fromkeys(NODES, True), "cpt": False}
    assert await world.condition("Promoted") == ("True", "Promoted", "record 2")


async def test_a_reverted_edit_finds_the_old_result(world: World) -> None:
    await world.settle()
    await world.apply(edited(PIPELINE, FASTER))
    await world.settle()
    computed, stages = list(world.store.computed), len(await world.all("TrainingStage"))
    await world.apply(PIPELINE)
    await world.settle()
    assert (world.store.computed, len(await world.all("TrainingStage"))) == (computed, stages)
    assert (await world.pipeline())["status"]["stages"][-1]["reused"]


async def test_an_edit_of_what_no_result_depends_on_runs_nothing(world: World) -> None:
    await world.settle()
    computed = list(world.store.computed)
    await world.apply(edited(PIPELINE, {"spec.stages.1.checkpoint": {"everySteps": 7}, "spec.stages.1.nodes": 2}))
    await world.settle()
    assert world.store.computed == computed
    assert (await world.stage("pretrain"))["spec"]["checkpoint"]["everySteps"] == 7


async def test_a_suspended_pipeline_ends_its_attempt_and_goes_on_later_without_a_failure(world: World) -> None:
    world.node.script = on("cpt", hang)
    await world.settle()
    await world.annotate("poems", suspend="true")
    await world.settle()
    assert (await world.condition("Suspended"))[:2] == ("True", "Suspended")
    assert (await world.stage("cpt"))["status"]["phase"] == "Suspended"
    assert [job for job in await world.all("PyTorchJob") if "-cpt-" in job["metadata"]["name"]] == []
    world.node.script = lambda spec, name: None
    await world.annotate("poems", suspend=None)
    await world.settle()
    assert await world.attempts("cpt") == [("Preempted", "Deleted"), ("Succeeded", "Succeeded")]
    assert (await world.condition("Promoted"))[0] == "True"


async def test_a_pipeline_that_is_applied_suspended_starts_nothing(world: World) -> None:
    await world.apply(edited(PIPELINE, {"spec.suspend": True}))
    await world.settle()
    assert await world.all("Job") == []
    assert (await world.condition("Suspended"))[0] == "True"
    await world.apply(PIPELINE)
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"


async def test_bad_data_stops_the_pipeline_with_one_clear_line(world: World) -> None:
    world.node.script = on("prepare", bad_data)
    await world.settle()
    line = "data-poems: BadData: poems.jsonl: line 7: field text is missing"
    assert await world.condition("Stalled") == ("True", "StageFailed", line)
    assert await world.condition("Ready") == ("False", "StageFailed", line)
    assert await world.attempts("data-poems") == [("Failed", "BadData")]
    assert (await world.condition("Reconciling"))[0] == "False"


async def test_retry_gives_failed_work_another_try(world: World) -> None:
    world.node.script = on("prepare", bad_data, times=1)
    await world.settle()
    await world.annotate("poems", retry="again")
    await world.settle()
    assert await world.attempts("data-poems") == [("Failed", "BadData"), ("Succeeded", "Succeeded")]
    assert (await world.condition("Promoted"))[0] == "True"


async def test_three_crashes_are_enough(world: World) -> None:
    world.node.script = on("pretrain", crash)
    await world.settle()
    assert await world.attempts("pretrain") == [("Failed", "Crashed")] * 3
    state, reason, message = await world.condition("Stalled")
    assert (state, reason) == ("True", "StageFailed")
    assert message.startswith("pretrain: Crashed: 3 attempts failed; the last: a container exited with code 1")


async def test_two_crashes_are_forgiven(world: World) -> None:
    world.node.script = on("pretrain", crash, times=2)
    await world.settle()
    assert await world.attempts("pretrain") == [*[("Failed", "Crashed")] * 2, ("Succeeded", "Succeeded")]
    assert (await world.condition("Promoted"))[0] == "True"


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(Ending(EXIT_PREEMPTED), id="it was told to stop and saved"),
        pytest.param(Ending(137, reason="EvictionByEvictionAPI"), id="it was evicted and killed"),
    ],
)
async def test_a_preemption_costs_no_attempt(world: World, ending: Ending) -> None:
    world.node.script = on("pretrain", lambda spec: ending, times=5)
    await world.settle()
    assert await world.attempts("pretrain") == [*[("Preempted", "Preempted")] * 5, ("Succeeded", "Succeeded")]
    assert (await world.stage("pretrain"))["status"]["preemptions"] == 5


async def test_rerun_from_computes_that_stage_and_what_follows_again(world: World) -> None:
    await world.settle()
    before = len(world.store.computed)
    await world.annotate("poems", rerun_from="pretrain/2")
    await world.settle()
    names = [stage["metadata"]["labels"]["bessemer.dev/stage"] for stage in await world.all("TrainingStage")]
    assert sorted(name for name in set(names) if names.count(name) == 2) == ["cpt", "cpt-data", "pretrain"]
    assert len(world.store.computed) == before + 3


async def test_a_stage_that_is_no_longer_asked_for_is_suspended_and_found_again(world: World) -> None:
    world.node.script = on("cpt", hang)
    await world.settle()
    old = (await world.stage("cpt"))["metadata"]["name"]
    await world.apply(edited(PIPELINE, FASTER))
    await world.settle()
    found = await world.get("TrainingStage", old)
    assert (found["spec"]["suspend"], found["status"]["phase"]) == (True, "Suspended")
    world.node.script = lambda spec, name: None
    await world.apply(PIPELINE)
    await world.settle()
    found = await world.get("TrainingStage", old)
    assert (found["spec"]["suspend"], found["status"]["phase"]) == (False, "Succeeded")


async def test_when_the_channel_moved_the_gate_is_run_again_against_the_new_incumbent(world: World) -> None:
    rival = digest_of("rival")

    def overtaken(spec: RunSpec, name: str) -> None:
        if spec.promote is not None and not world.store.channels:
            task = {**spec.promote.wire(), "candidate": rival, "pipeline": "default/rival"}
            world.store.channels["prod"] = [PromoteTask.model_validate(task)]

    world.node.script = overtaken
    await world.settle()
    assert await world.condition("Promoted") == ("True", "Promoted", "record 2")
    gates = {gate["name"]: gate for gate in (await world.pipeline())["status"]["gates"]}
    assert gates["release"]["baseline"] == rival


async def test_a_held_checkpoint_is_not_promoted_again(world: World) -> None:
    world.node.script = on("promote", hang)
    await world.settle()
    world.store.held.append((await world.stage("cpt"))["status"]["outputDigest"])
    world.node.script = lambda spec, name: None
    await world.settle()
    assert (await world.condition("Stalled"))[:2] == ("True", "Held")
    assert (await world.condition("Promoted"))[:2] == ("False", "Held")


@pytest.mark.parametrize(
    ("verdicts", "condition", "reason"),
    [
        pytest.param({("release", 1): "worse"}, "False", "GateFailed", id="a_worse_candidate"),
        pytest.param({("release", 1): "unclear", ("release", 2): "unclear"}, "False", "GateFailed", id="never_clear"),
        pytest.param({("release", 1): "invalid"}, "False", "GateInvalid", id="settings_that_differ"),
    ],
)
async def test_a_gate_that_does_not_pass_stops_the_promotion(
    world: World, verdicts: dict[tuple[str, int], str], condition: str, reason: str
) -> None:
    world.store.verdicts |= verdicts
    await world.settle()
    assert (await world.condition("GatePassed"))[0] == condition
    assert (await world.condition("Stalled"))[:2] == ("True", reason)
    assert (await world.condition("Promoted"))[:2] == ("False", reason)
    assert world.store.channels == {}


async def test_an_unclear_first_look_leads_to_a_second_one(world: World) -> None:
    world.store.verdicts[("release", 1)] = "unclear"
    await world.settle()
    gates = {gate["name"]: (gate["verdict"], gate["look"]) for gate in (await world.pipeline())["status"]["gates"]}
    assert gates == {"forgetting": ("Passed", 1), "release": ("Passed", 2)}


async def test_a_comparison_that_breaks_is_an_error_and_no_failed_gate(world: World) -> None:
    world.node.script = on("compare", bad_data)
    await world.settle()
    assert (await world.condition("Stalled"))[:2] == ("True", "GateError")
    assert (await world.condition("Promoted"))[:2] == ("False", "Waiting")
    assert {gate["verdict"] for gate in (await world.pipeline())["status"]["gates"]} == {"Error", "Pending"}


async def test_an_evaluation_that_breaks_is_an_error_and_no_failed_gate(world: World) -> None:
    world.node.script = on("evaluate", bad_data)
    await world.settle()
    state, reason, message = await world.condition("Stalled")
    assert (state, reason) == ("True", "GateError")
    assert "line 7" in message


async def test_an_enforced_stage_gate_holds_later_stages_and_says_so(world: World) -> None:
    document = edited(PIPELINE, {"spec.stages.1.gate": "early", "spec.promotion": ABSENT})
    document["spec"]["gates"] = [*document["spec"]["gates"][:1], EARLY]
    document["spec"]["base"] = {"model": "s3://hub/model"}
    world.store.verdicts[("early", 1)] = "worse"
    await world.apply(document)
    await world.settle()
    state, reason, message = await world.condition("Stalled")
    assert (state, reason) == ("True", "GateFailed")
    assert "early" in message
    assert "cpt" not in await done(world)


EARLY: dict[str, Any] = {
    "name": "early",
    "baseline": {"base": True},
    "looks": [200],
    "axes": [{"name": "loss", "winBy": 0.0, "notWorseThan": 0.05}],
}


async def test_deleting_the_pipeline_deletes_its_children_and_leaves_the_channel(world: World) -> None:
    await world.settle()
    await world.cluster.delete(Ref("AdaptationPipeline", "poems", "default"))
    await world.settle()
    for kind in ("TrainingStage", "Evaluation", "Job", "PyTorchJob", "ConfigMap", "Pod"):
        assert await world.all(kind) == []
    assert len(world.store.channels["prod"]) == 1


@pytest.mark.parametrize("verb", ["resolve", "prepare", "pretrain", "evaluate", "compare", "promote"])
async def test_a_pipeline_that_is_deleted_in_any_phase_leaves_nothing_running(world: World, verb: str) -> None:
    world.node.script = on(verb, hang)
    await world.settle()
    await world.cluster.delete(Ref("AdaptationPipeline", "poems", "default"))
    await world.settle()
    assert [await world.all(kind) for kind in ("TrainingStage", "Evaluation", "Job", "PyTorchJob", "Pod")] == [[]] * 5


async def test_a_deleted_and_applied_pipeline_finds_its_incumbent_and_computes_nothing(world: World) -> None:
    await world.settle()
    computed = list(world.store.computed)
    await world.cluster.delete(Ref("AdaptationPipeline", "poems", "default"))
    await world.settle()
    await world.apply(PIPELINE)
    await world.settle()
    assert world.store.computed == computed
    assert (await world.condition("Promoted"))[:2] == ("True", "AlreadyPromoted")
    assert len(world.store.channels["prod"]) == 1


async def test_a_deadline_ends_an_attempt_and_counts_as_a_failure(world: World) -> None:
    await world.apply(edited(PIPELINE, {"spec.stages.1.limits": {"deadline": "30m", "maxAttempts": 1}}))
    world.node.script = on("pretrain", hang)
    await world.settle()
    assert await world.attempts("pretrain") == [("Failed", "DeadlineExceeded")]
    assert (await world.condition("Stalled"))[:2] == ("True", "StageFailed")


async def test_an_unknown_profile_is_said_before_anything_runs(world: World) -> None:
    await world.apply(edited(PIPELINE, {"spec.profiles": {"train": "h100"}}))
    await world.settle()
    state, reason, message = await world.condition("Stalled")
    assert (state, reason) == ("True", "InvalidSpec")
    assert "h100" in message
    assert await world.all("Job") == []


async def test_bad_annotations_are_a_condition_and_no_crash(world: World) -> None:
    for key, value in (("rerun_from", "nowhere"), ("retry", "a b"), ("refresh", "x" * 100)):
        await world.annotate("poems", **{key: value})
        await world.settle()
        assert (await world.condition("Stalled"))[:2] == ("True", "InvalidAnnotation")
        await world.annotate("poems", **{key: None})
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"
