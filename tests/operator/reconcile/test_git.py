"""A channel with a git target under the real operator: the Job, the wait for a merge, the record after it, rollback."""

import json
from datetime import timedelta
from typing import Any

from bessemer_api.job import EXIT_PERMANENT, SIGNING_ENV, RunSpec
from bessemer_operator.core.profile import Profile
from tests.api.documents import PIPELINE, edited
from tests.operator.reconcile.test_pipeline import FASTER
from tests.operator.reconcile.test_release import events, output, records, status
from tests.support.world import COMMIT, PULL_REQUEST, Ending, World, failure

TARGET = {
    "repository": "https://git.example.com/org/deploy.git",
    "path": "biomed/service.yaml",
    "key": "spec.predictor.model.storageUri",
    "mode": "pullRequest",
    "provider": "gitea",
    "pollEvery": "2h",
}
IN_GIT = {"spec.promotion.channels": [{"name": "prod", "git": TARGET}]}


def promotions(world: World) -> list[str]:
    return [ref.name for ref in world.births() if "-promote-" in ref.name and ref.kind == "Job"]


async def proposed(world: World, edits: dict[str, Any] | None = None) -> None:
    world.store.unmerged = {"prod"}
    await world.apply(edited(PIPELINE, IN_GIT | (edits or {})))
    await world.settle()


async def later(world: World, **time: float) -> None:
    world.now += timedelta(**time)
    await world.settle()


async def test_a_proposed_change_is_waited_for_and_the_record_comes_after_the_merge(world: World) -> None:
    await proposed(world)
    message = f"waits for a person to merge {PULL_REQUEST}"
    assert await world.condition("Promoted") == ("False", "WaitingForMerge", message)
    assert await world.condition("Ready") == ("False", "WaitingForMerge", message)
    assert (await world.condition("Reconciling"))[0] == (await world.condition("Stalled"))[0] == "False"
    found = await status(world)
    assert found["currentStage"] == "merge"
    (channel,) = found["channels"]
    assert (channel["merge"]["url"], channel["record"], records(world)) == (PULL_REQUEST, 0, [])
    world.store.unmerged = set()
    await later(world, hours=3)
    assert (await world.condition("Promoted"))[:2] == ("True", "Promoted")
    (channel,) = (await status(world))["channels"]
    assert (channel["commit"], channel["record"], channel.get("merge")) == (COMMIT, 1, None)
    assert records(world) == [await output(world, "cpt")]
    assert events(world).count("WaitingForMerge") == 1


async def test_each_look_is_one_job_more_and_none_runs_between(world: World) -> None:
    await proposed(world)
    before = promotions(world)
    await later(world, minutes=10)
    assert promotions(world) == before
    await later(world, hours=2)
    assert len(promotions(world)) == len(before) + 1
    assert (await world.condition("Promoted"))[:2] == ("False", "WaitingForMerge")


async def test_an_operator_that_died_goes_on_with_the_same_round(world: World) -> None:
    await proposed(world)
    before = promotions(world)
    world.start_operator()
    await world.settle()
    assert promotions(world) == before
    (channel,) = (await status(world))["channels"]
    assert channel["merge"]["url"] == PULL_REQUEST


async def test_a_change_of_the_pipeline_while_a_merge_is_waited_for_is_another_promotion(world: World) -> None:
    await proposed(world)
    first = await output(world, "cpt")
    await world.apply(edited(PIPELINE, IN_GIT | FASTER))
    await world.settle()
    (channel,) = (await status(world))["channels"]
    assert channel["merge"] == {"digest": await output(world, "cpt"), "url": PULL_REQUEST, "round": 0}
    world.store.unmerged = set()
    await later(world, hours=3)
    assert first not in records(world) and len(records(world)) == 1


async def test_a_rollback_takes_the_same_way(world: World) -> None:
    await world.apply(edited(PIPELINE, IN_GIT))
    await world.settle()
    old = await output(world, "cpt")
    await world.apply(edited(PIPELINE, IN_GIT | FASTER))
    await world.settle()
    world.store.unmerged = {"prod"}
    await world.annotate("poems", rollback=old, rollback_by="bo")
    await world.settle()
    words = f"waits for a person to merge {PULL_REQUEST}"
    assert await world.condition("RolledBack") == ("Unknown", "WaitingForMerge", words)
    assert (await world.condition("Ready"))[:2] == ("False", "WaitingForMerge")
    assert records(world)[-1] != old
    world.store.unmerged = set()
    await later(world, hours=3)
    assert (await world.condition("RolledBack"))[:2] == ("True", "RolledBack")
    assert records(world)[-1] == old


async def test_what_only_a_person_can_mend_stops_it_and_retry_goes_on(world: World) -> None:
    def expired(spec: RunSpec, name: str) -> Ending | None:
        return failure(spec, EXIT_PERMANENT, "GitUnauthorized", "access is refused") if spec.promote else None

    world.node.script = expired
    await world.apply(edited(PIPELINE, IN_GIT))
    await world.settle()
    assert await world.condition("Stalled") == ("True", "PromotionFailed", "GitUnauthorized: access is refused")
    assert (await world.condition("Promoted"))[1:] == ("PromotionFailed", "GitUnauthorized: access is refused")
    world.node.script = lambda spec, name: None
    await world.annotate("poems", retry="renewed")
    await world.settle()
    assert (await world.condition("Promoted"))[:2] == ("True", "Promoted")


async def test_only_promotions_with_a_git_target_mount_the_secret(world: World) -> None:
    profile = Profile(git_secret="bessemer-git", git_repositories=["https://git.example.com/org/"])
    world.profiles = dict.fromkeys(world.profiles, profile)
    world.start_operator()
    await world.apply(edited(PIPELINE, IN_GIT))
    await world.settle()
    specs = {item["metadata"]["name"]: item["data"]["run.json"] for item in await world.all("ConfigMap")}
    mounted = {
        json.loads(specs[job["metadata"]["name"]])["verb"]
        for job in await world.all("Job")
        if any("secret" in volume for volume in job["spec"]["template"]["spec"]["volumes"])
    }
    assert mounted == {"promote"}


async def test_only_promotions_see_the_private_key_and_who_uses_a_promoted_model_the_public_one(world: World) -> None:
    world.profiles = dict.fromkeys(world.profiles, Profile(signing_secret="bessemer-signing"))
    world.start_operator()
    await world.apply(PIPELINE)
    await world.settle()
    await world.annotate("poems", rollback=await output(world, "cpt"), rollback_by="bo")
    await world.settle()
    specs = {item["metadata"]["name"]: item["data"]["run.json"] for item in await world.all("ConfigMap")}
    shown: dict[str, set[str]] = {}
    for job in await world.all("Job"):
        template = job["spec"]["template"]["spec"]
        run = json.loads(specs[job["metadata"]["name"]])
        for volume in template["volumes"]:
            if "secret" in volume:
                name = (run.get("stage") or {}).get("method", run["verb"])
                shown[name] = {item["path"] for item in volume["secret"]["items"]}
                (variable,) = [
                    item["value"] for item in template["containers"][0]["env"] if item["name"] == SIGNING_ENV
                ]
                assert variable in {mount["mountPath"] for mount in template["containers"][0]["volumeMounts"]}
    public = {"public.pem"}
    assert shown["promote"] == {"private.pem", *public}
    assert {name: files for name, files in shown.items() if name != "promote"} == {
        "resolve": public,
        "rollback": public,
    }
    for job in await world.all("PyTorchJob"):
        assert "bessemer-signing" not in json.dumps(job)
