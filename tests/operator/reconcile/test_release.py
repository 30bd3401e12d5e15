"""From candidates to channels under the real operator: nominee, approval, soak, rollback, and what each says."""

import json
from datetime import timedelta
from typing import Any

import pytest

from bessemer_api.job import EXIT_PERMANENT, PromoteTask, RunSpec
from tests.api.documents import ABSENT, PIPELINE, edited
from tests.operator.reconcile.test_pipeline import FASTER, bad_data, hang, on
from tests.support.world import START, Ending, World, digest_of, failure

STAGES = PIPELINE["spec"]["stages"]
SIDE = {**edited(STAGES[2], {"gate": ABSENT, "train.maxSteps": 11}), "name": "side", "from": "pretrain"}
TWO = {"spec.stages": [*STAGES, SIDE], "spec.promotion.candidates": ["cpt", "side"]}
ASKED = {"spec.promotion.approval": {"required": True, "timeout": "2h"}}
SOAKED = {"spec.promotion.channels": [{"name": "early"}, {"name": "prod", "after": {"soak": "72h"}}]}
OVERRIDE = {"spec.gates.1.onInconclusive": {"then": "requireApproval", "timeout": "2h"}}
UNCLEAR = {("release", 1): "unclear", ("release", 2): "unclear"}
FAR = "2026-01-09T00:00:00Z"


async def status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = (await world.pipeline())["status"]
    return found


async def output(world: World, stage: str) -> str:
    return str((await world.stage(stage))["status"]["outputDigest"])


async def waiting_for(world: World) -> str:
    """What an approval must name."""
    gate = next(gate for gate in (await status(world))["gates"] if gate["name"] == "release")
    return f"{gate['candidate']}/{gate['evidenceDigest']}"


def records(world: World, channel: str = "prod") -> list[str]:
    return [record.candidate for record in world.store.channels.get(channel, [])]


def events(world: World) -> list[str]:
    """Reasons of all events about pipelines, in order of their first time."""
    changes = [change.obj for change in world.cluster._journal.changes if change.type == "ADDED"]
    return [
        o["reason"] for o in changes if o["kind"] == "Event" and o["involvedObject"]["kind"] == "AdaptationPipeline"
    ]


# --- candidates -----------------------------------------------------------------------------------------------------


async def prepared(world: World, means: dict[str, float], edits: dict[str, Any] | None = None) -> None:
    """Two candidates whose bits per byte on the dev items are these (smaller is better)."""

    def measured(spec: RunSpec, name: str) -> None:
        if spec.stage is not None and spec.stage.train is not None and spec.stage.train.max_steps:
            stage = {10: "cpt", 11: "side"}[spec.stage.train.max_steps]
            world.store.dev_means[digest_of("out", spec.input_digest)] = {"loss": means[stage]}

    world.node.script = measured
    await world.apply(edited(PIPELINE, {**TWO, **(edits or {})}))
    await world.settle()


@pytest.mark.parametrize(
    ("means", "chosen", "why"),
    [
        pytest.param({"cpt": 0.9, "side": 0.8}, "side", "side on dev items: 1 axes won", id="the larger win"),
        pytest.param(
            {"cpt": 0.8, "side": 0.9}, "cpt", "cpt on dev items: 1 axes won", id="the first has the larger win"
        ),
        pytest.param({"cpt": 0.9, "side": 0.9}, "cpt", "cpt on dev items: 1 axes won", id="equal: the first declared"),
        pytest.param({"cpt": 1.06, "side": 1.04}, "side", "side on dev items: 0 axes won, 0 mar", id="a broken margin"),
    ],
)
async def test_one_nominee_is_chosen_on_dev_items_and_it_alone_sees_the_gate(
    world: World, means: dict[str, float], chosen: str, why: str
) -> None:
    await prepared(world, means)
    nominee, other = await output(world, chosen), await output(world, "cpt" if chosen == "side" else "side")
    found = await status(world)
    assert {row["name"]: row["state"] for row in found["candidates"]}[chosen] == "Nominee"
    assert found["nomination"]["name"] == chosen and found["nomination"]["message"].startswith(why)
    assert records(world) == [nominee]
    asked = [item["spec"]["inputs"] for item in await world.all("Evaluation")]
    gated = {item["checkpoint"] for item in asked if (item["part"] == "gate" and item["end"] == 400) or item["start"]}
    assert other not in {
        arm["checkpoint"]
        for item in await world.all("ConfigMap")
        if (task := json.loads(item["data"]["run.json"]).get("compare")) and task["gate"] == "release"
        for arm in (task["candidate"], task["baseline"])
    }
    assert gated <= {nominee, await output(world, "pretrain")}
    assert {(item["start"], item["end"]) for item in asked if item["part"] == "dev"} == {(0, 10)}
    row = next(row for row in found["candidates"] if row["name"] == chosen)
    assert row["axes"] == [{"name": "loss", "n": 10, "mean": means[chosen], "delta": pytest.approx(1 - means[chosen])}]
    assert "Nominated" in events(world)


async def test_the_choice_stays_when_the_channel_has_moved_and_the_world_is_read_again(world: World) -> None:
    await prepared(world, {"cpt": 0.8, "side": 0.7})
    compared = [ref.name for ref in world.births() if "-compare-" in ref.name]
    await world.annotate("poems", refresh="again")
    await world.settle()
    assert (await status(world))["nomination"]["name"] == "side"
    assert await world.condition("Promoted") == ("True", "AlreadyPromoted", "the channel holds it")
    assert [ref.name for ref in world.births() if "-compare-" in ref.name] == compared
    assert len(records(world)) == 1


async def test_an_edited_candidate_is_a_new_choice(world: World) -> None:
    await prepared(world, {"cpt": 0.8, "side": 0.7})
    world.store.dev_means[await output(world, "side")] = {"loss": 0.75}
    world.node.script = lambda spec, name: None
    await world.apply(edited(PIPELINE, {**TWO, "spec.stages.3.train.maxSteps": 12}))
    await world.settle()
    assert (await status(world))["nomination"]["name"] == "cpt", "the new side has a dev mean of 1.0"


async def test_of_two_candidates_one_fails_and_the_other_goes_on_and_it_is_said(world: World) -> None:
    def side_fails(spec: RunSpec, name: str) -> Ending | None:
        is_side = spec.stage is not None and spec.stage.train is not None and spec.stage.train.max_steps == 11
        return failure(spec, EXIT_PERMANENT, "BadData", "no such row") if is_side else None

    world.node.script = side_fails
    await world.apply(edited(PIPELINE, TWO))
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("True", "Promoted")
    assert await world.condition("Ready") == ("True", "Finished", "")
    assert (await world.condition("Trained"))[0] == "True"
    rows = {row["name"]: (row["state"], row["message"]) for row in (await status(world))["candidates"]}
    assert rows["side"] == ("Failed", "side: BadData: no such row")
    assert rows["cpt"][0] == "Nominee"
    assert [item for item in await world.all("Evaluation") if item["spec"]["inputs"]["part"] == "dev"] == []
    assert "CandidateFailed" in events(world)


async def test_when_every_candidate_fails_the_pipeline_is_stalled(world: World) -> None:
    world.node.script = on("cpt", bad_data)
    await world.apply(edited(PIPELINE, TWO))
    await world.settle()
    assert (await world.condition("Stalled"))[:2] == ("True", "StageFailed")
    assert {row["state"] for row in (await status(world))["candidates"]} == {"Failed"}


async def test_a_dev_evaluation_that_breaks_is_an_error(world: World) -> None:
    def broken(spec: RunSpec, name: str) -> Ending | None:
        return bad_data(spec) if spec.evaluate is not None and spec.evaluate.part == "dev" else None

    world.node.script = broken
    await world.apply(edited(PIPELINE, TWO))
    await world.settle()
    state, reason, message = await world.condition("Stalled")
    assert (state, reason) == ("True", "GateError")
    assert "line 7" in message
    assert records(world) == []


# --- approval -------------------------------------------------------------------------------------------------------


async def test_what_passed_waits_for_a_person_who_names_it_and_is_then_promoted(world: World) -> None:
    await world.apply(edited(PIPELINE, ASKED))
    await world.settle()
    state, reason, message = await world.condition("Promoted")
    assert (state, reason) == ("False", "WaitingForApproval")
    assert await waiting_for(world) in message
    assert (await world.condition("Ready"))[:2] == ("False", "WaitingForApproval")
    assert (await world.condition("Reconciling"))[0] == (await world.condition("Stalled"))[0] == "False"
    assert ((await world.condition("GatePassed"))[0], (await status(world))["currentStage"]) == ("True", "approval")
    assert (await status(world))["report"], "whoever approves has a report to read"
    await world.annotate("poems", approve=await waiting_for(world), approved_by="ana@example.org")
    await world.settle()
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")
    assert [(record.by, record.override) for record in world.store.channels["prod"]] == [("ana@example.org", None)]
    (channel,) = (await status(world))["channels"]
    assert (channel["kind"], channel["by"]) == ("promotion", "ana@example.org")
    assert "WaitingForApproval" in events(world)


async def test_an_approval_that_was_acted_on_may_be_taken_away(world: World) -> None:
    await world.apply(edited(PIPELINE, ASKED))
    await world.settle()
    await world.annotate("poems", approve=await waiting_for(world), approved_by="ana")
    await world.settle()
    await world.annotate("poems", approve=None, approved_by=None)
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"
    await world.annotate("poems", refresh="again")
    await world.settle()
    assert ((await world.condition("Promoted"))[0], len(records(world))) == ("True", 1)


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        pytest.param({"approve": "OTHER", "approved_by": "ana"}, "so it approves nothing here", id="other_digests"),
        pytest.param({"approve": "EVIDENCE", "approved_by": "ana"}, "so it approves nothing here", id="other_evidence"),
        pytest.param({"approve": "RIGHT"}, "approved-by is missing, so nobody has approved it", id="by_nobody"),
        pytest.param({"approve": "RIGHT", "approved_by": " "}, "so nobody has approved it", id="by_a_blank"),
    ],
)
async def test_an_approval_of_something_else_or_by_nobody_is_none_and_says_so(
    world: World, notes: dict[str, str], words: str
) -> None:
    await world.apply(edited(PIPELINE, ASKED))
    await world.settle()
    right, other = await waiting_for(world), digest_of("other")
    values = {"RIGHT": right, "OTHER": f"{other}/{other}", "EVIDENCE": f"{right.partition('/')[0]}/{other}"}
    await world.annotate("poems", **{key: values.get(value, value) for key, value in notes.items()})
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("False", "WaitingForApproval")
    assert words in (await world.condition("Promoted"))[2]
    assert records(world) == []


async def test_an_approval_does_not_slip_over_to_the_next_candidate(world: World) -> None:
    await world.apply(edited(PIPELINE, ASKED))
    await world.settle()
    await world.annotate("poems", approve=await waiting_for(world), approved_by="ana")
    await world.settle()
    await world.apply(edited(PIPELINE, ASKED | FASTER))
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("False", "WaitingForApproval")
    assert len(records(world)) == 1


async def test_a_rejection_is_final_even_beside_an_approval(world: World) -> None:
    await world.apply(edited(PIPELINE, ASKED))
    await world.settle()
    wanted = await waiting_for(world)
    await world.annotate("poems", reject=wanted, rejected_by="bo", approve=wanted, approved_by="ana")
    await world.settle()
    assert await world.condition("Promoted") == ("False", "Rejected", "rejected by bo")
    assert (await world.condition("Stalled"))[:2] == ("True", "Rejected")
    assert (await world.condition("GatePassed"))[0] == "True"
    assert records(world) == []


async def pass_time(world: World, hours: float) -> None:
    """Let time go on, and the operator be woken by it."""
    world.now += timedelta(hours=hours)
    await world.settle()


async def test_an_approval_that_comes_too_late_counts_no_more(world: World) -> None:
    await world.apply(edited(PIPELINE, ASKED))
    await world.settle()
    await pass_time(world, 3)
    assert (await world.condition("Promoted"))[:2] == ("False", "ApprovalTimedOut")
    assert (await world.condition("Stalled"))[:2] == ("True", "ApprovalTimedOut")
    await world.annotate("poems", approve=await waiting_for(world), approved_by="ana")
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("False", "ApprovalTimedOut")
    assert records(world) == []


async def test_an_inconclusive_gate_that_a_person_overrides(world: World) -> None:
    world.store.verdicts |= UNCLEAR
    await world.apply(edited(PIPELINE, OVERRIDE))
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("False", "WaitingForApproval")
    assert (await world.condition("GatePassed"))[:2] == ("False", "NotShown")
    assert (await world.condition("Stalled"))[0] == "False"
    await world.annotate("poems", approve=await waiting_for(world), approved_by="ana")
    await world.settle()
    assert await world.condition("Promoted") == ("True", "PromotedByOverride", "record 1, by ana")
    assert (await world.condition("GatePassed"))[:2] == ("False", "NotShown")
    assert (await world.condition("Ready"))[:2] == ("True", "Finished")
    (record,) = world.store.channels["prod"]
    assert (record.override, record.wins, record.by) == (True, [], "ana")
    await world.annotate("poems", refresh="again")
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("True", "PromotedByOverride")
    assert (await world.condition("GatePassed"))[:2] == ("False", "NotShown")


async def test_an_inconclusive_gate_that_nobody_approves_in_time_has_failed(world: World) -> None:
    world.store.verdicts |= UNCLEAR
    await world.apply(edited(PIPELINE, OVERRIDE))
    await world.settle()
    await pass_time(world, 3)
    assert (await world.condition("GatePassed"))[:2] == ("False", "ApprovalTimedOut")
    assert (await world.condition("Stalled"))[:2] == ("True", "GateFailed")
    assert (await world.condition("Promoted"))[:2] == ("False", "GateFailed")
    await world.annotate("poems", approve=await waiting_for(world), approved_by="ana")
    await world.settle()
    assert records(world) == []


async def test_a_gain_that_is_not_plausible_waits_for_a_person(world: World) -> None:
    await world.apply(edited(PIPELINE, {"spec.gates.1.maxPlausibleGain": 0.1}))
    await world.settle()
    assert (await world.condition("GatePassed"))[:2] == ("False", "ImplausibleGain")
    assert (await world.condition("Promoted"))[:2] == ("False", "WaitingForApproval")
    await world.annotate("poems", approve=await waiting_for(world), approved_by="ana")
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("True", "PromotedByOverride")


async def test_a_malformed_annotation_of_a_release_owner_is_a_condition_and_no_crash(world: World) -> None:
    digest = digest_of("x")
    for notes in (
        {"approve": "yes"},
        {"reject": digest},
        {"approved_by": "a\nb"},
        {"rollback": "back"},
        {"rollback": digest},
        {"rollback": f"nowhere/{digest}", "rollback_by": "ana"},
    ):
        await world.annotate("poems", **notes)
        await world.settle()
        assert (await world.condition("Stalled"))[:2] == ("True", "InvalidAnnotation"), notes
        await world.annotate("poems", **dict.fromkeys(notes))
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"


# --- ordered channels -----------------------------------------------------------------------------------------------


async def test_the_next_channel_follows_after_the_soak_with_the_same_evidence(world: World) -> None:
    await world.apply(edited(PIPELINE, SOAKED))
    await world.settle()
    assert (len(records(world, "early")), records(world)) == (1, [])
    state, reason, message = await world.condition("Promoted")
    assert (state, reason) == ("False", "Soaking")
    assert (
        message.startswith("channel early holds it since 2026-01-01T00:")
        and "prod follows at 2026-01-04T00:" in message
    )
    assert (await world.condition("Ready"))[:2] == ("False", "Soaking")
    assert (await world.condition("Reconciling"))[0] == "False"
    channels = {item["name"]: item for item in (await status(world))["channels"]}
    assert channels["prod"]["soaksUntil"].startswith("2026-01-04T00:")
    await pass_time(world, 70)
    assert records(world) == []
    await pass_time(world, 3)
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")
    first, second = (world.store.channels[name][0] for name in ("early", "prod"))
    assert (first.candidate, first.evidence, first.after, second.after) == (
        second.candidate,
        second.evidence,
        None,
        "early",
    )
    assert "Soaking" in events(world)


async def test_the_soak_goes_on_after_the_world_was_read_again_and_in_a_pipeline_applied_anew(world: World) -> None:
    await world.apply(edited(PIPELINE, SOAKED))
    await world.settle()
    await world.annotate("poems", refresh="again")
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("False", "Soaking")
    await pass_time(world, 73)
    assert (await world.condition("Promoted"))[0] == "True"
    assert (len(records(world, "early")), len(records(world))) == (1, 1)


async def test_a_channel_that_was_left_during_the_soak_is_not_followed(world: World) -> None:
    await world.apply(edited(PIPELINE, SOAKED))
    await world.settle()
    rival = world.store.channels["early"][0].model_copy(update={"candidate": digest_of("rival")})
    world.store.channels["early"].append(rival)
    await pass_time(world, 73)
    assert (await world.condition("Promoted"))[:2] == ("False", "LeftBefore")
    assert (await world.condition("Stalled"))[:2] == ("True", "LeftBefore")
    assert records(world) == []


async def test_when_the_judged_channel_moved_during_the_soak_it_is_judged_again(world: World) -> None:
    await world.apply(edited(PIPELINE, SOAKED))
    await world.settle()
    rival = world.store.channels["early"][0].model_copy(update={"candidate": digest_of("rival"), "channel": "prod"})
    world.store.channels["prod"] = [rival]
    await pass_time(world, 73)
    assert await world.condition("Promoted") == ("True", "Promoted", "record 2")
    gates = {gate["name"]: gate for gate in (await status(world))["gates"]}
    assert gates["release"]["baseline"] == rival.candidate
    assert len(records(world, "early")) == 1


async def test_a_newer_candidate_ends_the_soak_of_the_older(world: World) -> None:
    await world.apply(edited(PIPELINE, SOAKED))
    await world.settle()
    await pass_time(world, 50)
    await world.apply(edited(PIPELINE, SOAKED | FASTER))
    await world.settle()
    await pass_time(world, 30)
    assert (len(records(world, "early")), records(world)) == (2, [])
    await pass_time(world, 50)
    assert records(world) == records(world, "early")[1:]


# --- rollback -------------------------------------------------------------------------------------------------------


async def two_releases(world: World) -> list[str]:
    await world.settle()
    await world.apply(edited(PIPELINE, FASTER))
    await world.settle()
    assert len(records(world)) == 2
    return records(world)


async def test_a_rollback_writes_a_record_and_what_it_left_is_held(world: World) -> None:
    first, second = await two_releases(world)
    await world.annotate("poems", rollback=f"{first}/1", rollback_by="ana")
    await world.settle()
    assert records(world) == [first, second, first]
    state, reason, message = await world.condition("RolledBack")
    assert (state, reason) == ("True", "RolledBack")
    assert "by ana" in message and second in message
    assert (await world.condition("Promoted"))[:2] == ("False", "Held")
    assert (await world.condition("Stalled"))[:2] == ("True", "Held")
    (channel,) = (await status(world))["channels"]
    assert (channel["digest"], channel["record"], channel["kind"], channel["held"]) == (first, 3, "rollback", [second])
    assert {"RolledBack", "ChannelMoved", "Held"} <= set(events(world))


@pytest.mark.parametrize("then", ["refresh", "annotation_removed", "both", "operator_restarts"])
async def test_level_triggering_does_not_undo_a_rollback_nor_do_it_again(world: World, then: str) -> None:
    first, second = await two_releases(world)
    await world.annotate("poems", rollback=f"{first}/1", rollback_by="ana")
    await world.settle()
    if then in {"annotation_removed", "both"}:
        await world.annotate("poems", rollback=None, rollback_by=None)
        await world.settle()
    if then in {"refresh", "both"}:
        await world.annotate("poems", refresh="again")
    world.start_operator()
    await world.settle()
    assert records(world) == [first, second, first]
    assert (await world.condition("Promoted"))[:2] == ("False", "Held")
    await world.apply(edited(PIPELINE, {"spec.stages.2.train.learningRate": 3e-4}))
    await world.settle()
    assert len(records(world)) == 4, "a new candidate is judged and promoted, and the rollback is not done again"
    assert (await world.condition("Promoted"))[0] == "True"
    assert world.store.held == [second]


async def test_a_rollback_that_is_refused_says_why_and_the_channel_stays(world: World) -> None:
    releases = await two_releases(world)
    text = "channel prod (2 records) never held it; nothing was changed"
    world.node.script = on("rollback", lambda spec: failure(spec, EXIT_PERMANENT, "NotInChannel", text))
    await world.annotate("poems", rollback=digest_of("nothing"), rollback_by="ana")
    await world.settle()
    assert await world.condition("RolledBack") == ("False", "RollbackFailed", f"NotInChannel: {text}")
    assert (await world.condition("Stalled"))[:2] == ("True", "RollbackFailed")
    assert records(world) == releases
    await world.annotate("poems", rollback=None, rollback_by=None)
    await world.settle()
    assert (await world.condition("Ready"))[:2] == ("True", "Finished")


async def test_nothing_is_promoted_while_a_rollback_is_under_way(world: World) -> None:
    await world.settle()
    (first,) = records(world)
    world.node.script = on("rollback", hang)
    await world.annotate("poems", rollback=first, rollback_by="ana")
    await world.apply(edited(PIPELINE, FASTER))
    await world.settle()
    assert records(world) == [first]
    assert (await world.condition("Ready"))[:2] == ("False", "RollingBack")
    assert (await world.condition("Reconciling"))[:2] == ("True", "RollingBack")


async def test_a_suspended_pipeline_can_be_rolled_back(world: World) -> None:
    first, second = await two_releases(world)
    await world.annotate("poems", suspend="true", rollback=first, rollback_by="ana")
    await world.settle()
    assert records(world) == [first, second, first]
    assert (await world.condition("RolledBack"))[0] == "True"


# --- what the status keeps in sight ---------------------------------------------------------------------------------


async def test_while_an_unchanged_pipeline_reads_the_world_again_it_stays_promoted(world: World) -> None:
    await world.settle()
    before = {
        kind: await world.condition(kind) for kind in ("Prepared", "Trained", "Evaluated", "GatePassed", "Promoted")
    }
    world.node.script = on("resolve", hang)
    await world.annotate("poems", refresh="again")
    await world.settle()
    assert {kind: await world.condition(kind) for kind in before} == before
    assert (await status(world))["channels"][0]["record"] == 1
    await world.apply(edited(PIPELINE, FASTER))
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "False", "it is of the current generation alone"


async def test_after_an_edit_that_was_refused_and_taken_back_the_evidence_is_in_sight_again(world: World) -> None:
    await world.settle()
    (before,) = [gate for gate in (await status(world))["gates"] if gate["name"] == "release"]
    world.store.verdicts |= {("release", 1): "worse"}
    await world.apply(edited(PIPELINE, FASTER))
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("False", "GateFailed")
    await world.apply(PIPELINE)
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("True", "AlreadyPromoted")
    (after,) = [gate for gate in (await status(world))["gates"] if gate["name"] == "release"]
    assert {**after, "baseline": before["baseline"]} == before
    told = [json.loads(item["data"]["run.json"]) for item in await world.all("ConfigMap")]
    newest = [task for task in told if task["verb"] == "report"]
    digests = [{found["outputDigest"] for found in task["report"]["comparisons"]} for task in newest]
    assert before["evidenceDigest"] in digests[-1] or any(before["evidenceDigest"] in found for found in digests)


async def test_a_job_of_the_pipeline_that_never_ends_is_given_up_after_three_deadlines(world: World) -> None:
    world.node.script = on("compare", hang)
    await world.settle()
    for _ in range(8):
        await pass_time(world, 6.1)
    assert (await world.condition("Stalled"))[:2] == ("True", "GateError")
    names = [ref.name for ref in world.births() if "-compare-" in ref.name and ref.kind == "Job"]
    assert len(names) == len(set(names)) == 3
    assert [item["reason"] for item in (await status(world))["late"]] == ["DeadlineExceeded"] * 3
    world.node.script = lambda spec, name: None
    await world.annotate("poems", retry="again")
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"


def test_the_world_begins_where_the_tests_think() -> None:
    assert START.isoformat() == "2026-01-01T00:00:00+00:00"
    assert PromoteTask.model_fields["after"].default is None
