"""What becomes of work that a pipeline no longer asks for: nothing of it runs on, and nothing of it is left behind."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bessemer_api.job import EXIT_PREEMPTED, RunSpec
from bessemer_api.v1alpha1.evaluation import Progress
from bessemer_operator.cluster.protocol import Invalid
from bessemer_operator.reconcile.cache import Key
from tests.api.documents import ABSENT, PIPELINE, edited
from tests.operator.reconcile.test_pipeline import FASTER, hang, on
from tests.support.world import Ending, Script, World, digest_of

STAGES = PIPELINE["spec"]["stages"]
VERBS = ["resolve", "compare", "promote", "report"]
SUSPENDED = {"spec.suspend": True}
NO_STAGES_LIKE_THIS = {"spec.stages.2.data.mixture.0.ref": "prose"}

SIDE = {**edited(STAGES[2], {"gate": ABSENT, "train.maxSteps": 11}), "name": "side", "from": "pretrain"}
BRANCHED = [*STAGES, SIDE]
"""The stages of the pipeline, and a branch beside its last one."""


async def unfinished(world: World, kind: str = "Job") -> list[str]:
    """Names of attempts that no condition says to be over."""
    return [
        job["metadata"]["name"]
        for job in await world.all(kind)
        if not any(item["status"] == "True" for item in (job.get("status") or {}).get("conditions") or [])
    ]


async def orphans(world: World) -> set[str]:
    """ConfigMaps whose attempt is gone."""
    attempts = {job["metadata"]["name"] for kind in ("Job", "PyTorchJob") for job in await world.all(kind)}
    return {item["metadata"]["name"] for item in await world.all("ConfigMap")} - attempts


async def run_on(world: World) -> None:
    world.node.script = lambda spec, name: None
    await world.settle()


@pytest.mark.parametrize("method", ["bank", "pretrain", "evaluate"])
async def test_spec_suspend_ends_what_runs_and_resume_goes_on(world: World, method: str) -> None:
    world.node.script = on(method, hang)
    await world.settle()
    await world.apply(edited(PIPELINE, SUSPENDED))
    await world.settle()
    assert (await unfinished(world), await unfinished(world, "PyTorchJob")) == ([], [])
    children = [*await world.all("TrainingStage"), *await world.all("Evaluation")]
    phases = {item["status"]["phase"] for item in children}
    assert phases <= {"Succeeded", "Suspended"}
    assert "Suspended" in phases
    await world.apply(PIPELINE)
    await run_on(world)
    assert (await world.condition("Promoted"))[0] == "True"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"spec": SUSPENDED}, id="suspended"),
        pytest.param({"spec": NO_STAGES_LIKE_THIS}, id="made invalid"),
        pytest.param({"note": {"suspend": "true"}}, id="suspended by annotation"),
        pytest.param({"note": {"retry": "not a word"}}, id="annotated with what is not understood"),
    ],
)
async def test_a_job_of_what_was_stopped_does_not_run_on(world: World, verb: str, how: dict[str, Any]) -> None:
    world.node.script = on(verb, hang)
    await world.settle()
    assert [name for name in await unfinished(world) if f"-{verb}-" in name] != []
    if "spec" in how:
        await world.apply(edited(PIPELINE, how["spec"]))
    await world.annotate("poems", **how.get("note", {}))
    await world.settle()
    assert await unfinished(world) == []
    assert await orphans(world) == set()
    await world.apply(PIPELINE)
    await world.annotate("poems", suspend=None, retry=None)
    await run_on(world)
    assert (await world.condition("Ready"))[:2] == ("True", "Finished")
    assert len(world.store.channels["prod"]) == 1


async def test_a_promotion_of_what_was_edited_away_never_happens(world: World) -> None:
    world.node.script = on("promote", hang)
    await world.settle()
    old = (await world.stage("cpt"))["status"]["outputDigest"]
    await world.apply(edited(PIPELINE, FASTER))
    await world.settle()
    await run_on(world)
    assert old not in [item.candidate for item in world.store.channels["prod"]]
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")


async def test_evaluations_that_are_no_longer_asked_for_are_suspended(world: World) -> None:
    world.node.script = on("evaluate", hang)
    await world.settle()
    old = {item["metadata"]["name"] for item in await world.all("Evaluation")}
    await world.apply(edited(PIPELINE, FASTER))
    await world.settle()
    asked = {
        item["metadata"]["name"]
        for item in await world.all("Evaluation")
        if item["metadata"]["name"] in old and not item["spec"].get("suspend")
    }
    checkpoint = (await world.stage("pretrain"))["status"]["outputDigest"]
    inputs = {item["metadata"]["name"]: item["spec"]["inputs"]["checkpoint"] for item in await world.all("Evaluation")}
    assert {inputs[name] for name in asked} == {checkpoint}
    assert {item["status"]["phase"] for item in await world.all("Evaluation") if item["spec"].get("suspend")} == {
        "Suspended"
    }
    await world.apply(PIPELINE)
    await run_on(world)
    assert (await world.condition("Promoted"))[0] == "True"


async def test_nothing_superseded_is_left_behind_when_no_history_is_kept(world: World) -> None:
    short = {"spec.revisionHistoryLimit": 0}
    world.node.script = on("cpt", hang)
    await world.apply(edited(PIPELINE, short))
    await world.settle()
    old = (await world.stage("cpt"))["metadata"]["name"]
    await world.apply(edited(PIPELINE, short | FASTER))
    await world.settle()
    assert old not in {item["metadata"]["name"] for item in await world.all("TrainingStage")}
    await run_on(world)
    status = (await world.pipeline())["status"]
    assert {item["metadata"]["name"] for item in await world.all("TrainingStage")} == {
        row["object"] for row in status["stages"]
    }
    verbs = sorted(job["metadata"]["labels"]["bessemer.dev/verb"] for job in await world.all("Job") if _is_own(job))
    assert verbs == ["compare", "compare", "promote", "report", "resolve"]
    assert await orphans(world) == set()


def _is_own(job: dict[str, Any]) -> bool:
    return any(owner["kind"] == "AdaptationPipeline" for owner in job["metadata"]["ownerReferences"])


def on_branch(ending: Callable[[int], Ending | str | None]) -> Script:
    """Training on the branch `side` ends so, told how often it was asked."""
    asked: list[str] = []

    def script(spec: RunSpec, name: str) -> Ending | str | None:
        if spec.stage is None or spec.stage.train is None or spec.stage.train.max_steps != 11:
            return None
        asked.append(name)
        return ending(len(asked))

    return script


async def test_a_problem_is_reported_once_and_only_when_nothing_runs_any_more(world: World) -> None:
    await world.apply(edited(PIPELINE, {"spec.stages": BRANCHED}))
    world.store.verdicts[("forgetting", 1)] = "worse"
    world.node.script = on_branch(lambda asked: Ending(EXIT_PREEMPTED) if asked < 12 else None)
    await world.settle()
    assert (await world.condition("Stalled"))[:2] == ("True", "GateFailed")
    assert (await world.stage("side"))["status"]["preemptions"] == 11
    (report,) = [ref.name for ref in world.births() if ref.kind == "Job" and "-report-" in ref.name]
    told = json.loads((await world.get("ConfigMap", report))["data"]["run.json"])["report"]
    rows = {row["name"]: row["phase"] for row in told["pipeline"]["status"]["stages"]}
    assert (rows["side"], rows["cpt"]) == ("Succeeded", "Succeeded")


async def test_a_branch_that_still_runs_after_the_promotion_makes_no_further_reports(world: World) -> None:
    await world.apply(edited(PIPELINE, {"spec.stages": BRANCHED}))
    world.node.script = on_branch(lambda asked: "hang")
    await world.settle()
    key = next(key for key in world.cache.objects if "-side-" in key.name and key.kind == "PyTorchJob")
    stage = Key("TrainingStage", "default", (await world.stage("side"))["metadata"]["name"])
    for percentage in (10, 20, 30):
        progress = Progress(progress_percentage=percentage, estimated_remaining_seconds=100 - percentage)
        world.runtime.controller.progress[key] = progress
        await world.runtime.handle(stage)
        await world.settle()
    rows = {row["name"]: row["progressPercentage"] for row in (await world.pipeline())["status"]["stages"]}
    assert rows["side"] == 30
    assert len([ref for ref in world.births() if ref.kind == "Job" and "-report-" in ref.name]) == 1


async def test_a_channel_that_never_stands_still_is_a_problem_with_a_name(world: World) -> None:
    def overtaken(spec: RunSpec, name: str) -> None:
        if spec.promote is not None:
            records = world.store.channels.setdefault("prod", [])
            rival = digest_of("rival", len(records))
            records.append(spec.promote.model_copy(update={"candidate": rival, "pipeline": "default/rival"}))

    world.node.script = overtaken
    await world.settle()
    state, reason, message = await world.condition("Stalled")
    assert (state, reason) == ("True", "BaselineMoved")
    assert "bessemer.dev/refresh" in message
    assert (await world.condition("Reconciling"))[:2] == ("False", "BaselineMoved")
    assert (await world.condition("Promoted"))[:2] == ("False", "BaselineMoved")
    assert len([job for job in await world.all("Job") if "-promote-" in job["metadata"]["name"]]) == 10
    world.node.script = lambda spec, name: None
    await world.annotate("poems", refresh="2")
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("True", "Promoted")


async def test_a_failed_gate_that_only_observes_stops_nothing(world: World) -> None:
    world.store.verdicts[("forgetting", 1)] = "worse"
    await world.apply(edited(PIPELINE, {"spec.gates.0.mode": "observe"}))
    await world.settle()
    assert await world.condition("Ready") == ("True", "Finished", "")
    assert (await world.condition("Stalled"))[0] == "False"
    gates = {gate["name"]: gate["verdict"] for gate in (await world.pipeline())["status"]["gates"]}
    assert gates == {"forgetting": "Failed", "release": "Passed"}


async def test_a_stage_is_gated_against_a_branch_that_is_declared_after_it(world: World) -> None:
    edits = {"spec.stages": BRANCHED, "spec.gates.0.baseline": {"stage": "side"}}
    await world.apply(edited(PIPELINE, edits))
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"
    gates = {gate["name"]: gate for gate in (await world.pipeline())["status"]["gates"]}
    assert gates["forgetting"]["baseline"] == (await world.stage("side"))["status"]["outputDigest"]


@pytest.mark.parametrize("word", ["yes", "True", ""])
async def test_suspend_is_true_or_false_and_nothing_else(world: World, word: str) -> None:
    await world.annotate("poems", suspend=word)
    await world.settle()
    assert await world.condition("Stalled") == (
        "True",
        "InvalidAnnotation",
        'bessemer.dev/suspend: expected "true" or "false"',
    )
    await world.annotate("poems", suspend="false")
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"


async def test_equal_work_of_two_branches_is_one_stage(world: World) -> None:
    await world.apply(edited(PIPELINE, {"spec.stages": BRANCHED}))
    await world.settle()
    rows = {row["name"]: row for row in (await world.pipeline())["status"]["stages"]}
    assert rows["side-data"]["object"] == rows["cpt-data"]["object"]
    digests = [item["spec"]["inputDigest"] for item in await world.all("TrainingStage")]
    assert len(digests) == len(set(digests)) == len(rows) - 1
    assert rows["side"]["phase"] == "Succeeded"


async def test_a_stage_that_is_renamed_while_it_runs_goes_on_under_its_new_name(world: World) -> None:
    renamed = {"spec.stages.2.name": "finish", "spec.promotion.candidates": ["finish"]}
    world.node.script = on("cpt", hang)
    await world.settle()
    await world.apply(edited(PIPELINE, renamed))
    await world.settle()
    rows = {row["name"]: row["phase"] for row in (await world.pipeline())["status"]["stages"]}
    assert rows["finish"] == "Running"
    assert (await world.stage("cpt"))["status"]["phase"] == "Suspended"
    await run_on(world)
    assert (await world.condition("Promoted"))[0] == "True"


async def test_a_pipeline_keeps_its_store_because_its_results_are_there(world: World) -> None:
    await world.settle()
    for kind in ("AdaptationPipeline", "TrainingStage", "Evaluation"):
        obj = (await world.all(kind))[0]
        metadata = {key: obj["metadata"][key] for key in ("name", "namespace")}
        moved = {**obj, "metadata": metadata, "spec": {**obj["spec"], "store": "s3://models/elsewhere"}}
        with pytest.raises(Invalid, match=r"spec\.store is immutable"):
            await world.apply(moved)
