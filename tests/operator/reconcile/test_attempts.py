"""What attempts leave behind, and what they leave running: pods that go, deletions that are lost, names, refusals."""

import json
import re
from collections import Counter

import pytest

from bessemer_api.job import PromoteTask, RunSpec
from bessemer_operator.cluster.protocol import ClusterError, Forbidden, Invalid, Ref, Unavailable
from tests.api.documents import PIPELINE, edited
from tests.operator.reconcile.test_pipeline import hang, on
from tests.support.world import World, digest_of


async def remove_pods(world: World) -> None:
    """The pod garbage collector, or the nodes are gone."""
    for pod in await world.all("Pod"):
        await world.cluster.delete(Ref("Pod", pod["metadata"]["name"], "default"), grace_seconds=0)


def jobs_born(world: World) -> Counter[str]:
    """How many Jobs there ever were, by what they are for."""
    return Counter(re.sub("-[0-9a-f]{10}-a[0-9]+$", "", ref.name) for ref in world.births() if ref.kind == "Job")


async def test_when_the_pods_go_nothing_runs_again(world: World) -> None:
    await world.settle()
    before, status = jobs_born(world), (await world.pipeline())["status"]
    await remove_pods(world)
    world.start_operator()
    await world.settle()
    assert jobs_born(world) == before
    assert (await world.pipeline())["status"] == status


async def test_when_the_pods_go_after_a_newer_release_the_older_one_is_not_promoted_again(world: World) -> None:
    await world.settle()
    mine = world.store.channels["prod"][0]
    world.store.channels["prod"].append(mine.model_copy(update={"candidate": digest_of("newer"), "record": 1}))
    await remove_pods(world)
    await world.settle()
    assert [item.candidate for item in world.store.channels["prod"]] == [mine.candidate, digest_of("newer")]
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")


async def test_when_the_channel_moved_what_was_read_before_is_kept_too(world: World) -> None:
    def overtaken(spec: RunSpec, name: str) -> None:
        if spec.promote is not None and not world.store.channels:
            task = {**spec.promote.wire(), "candidate": digest_of("rival"), "pipeline": "default/rival"}
            world.store.channels["prod"] = [PromoteTask.model_validate(task)]

    world.node.script = overtaken
    await world.settle()
    before = jobs_born(world)
    await remove_pods(world)
    world.start_operator()
    await world.settle()
    assert jobs_born(world) == before
    assert await world.condition("Promoted") == ("True", "Promoted", "record 2")


@pytest.mark.parametrize("verb", ["resolve", "pretrain", "compare", "promote"])
async def test_pods_that_go_while_the_pipeline_is_under_way_cost_nothing(world: World, verb: str) -> None:
    world.node.script = on(verb, hang)
    await world.settle()
    ended = [pod for pod in await world.all("Pod") if pod["status"]["phase"] == "Succeeded"]
    for pod in ended:
        await world.cluster.delete(Ref("Pod", pod["metadata"]["name"], "default"), grace_seconds=0)
    world.node.script = lambda spec, name: None
    await world.settle()
    assert max(jobs_born(world).values()) == 2  # two gates, so two of compare and of eval
    assert await world.condition("Promoted") == ("True", "Promoted", "record 1")


async def test_a_kept_report_is_small_and_is_all_that_is_ever_written_to_an_attempt(world: World) -> None:
    await world.settle()
    jobs = [*await world.all("Job"), *await world.all("PyTorchJob")]
    kept = [job["metadata"]["annotations"]["bessemer.dev/report"] for job in jobs]
    assert max(len(text) for text in kept) <= 4096
    assert [job["metadata"]["generation"] for job in jobs] == [1] * len(jobs)
    touched = Counter(verb for verb, ref in world.tap.writes if ref.kind in {"Job", "PyTorchJob"})
    assert touched == {"create": len(jobs), "annotate": len(jobs)}


async def test_a_deadline_whose_deletion_is_lost_leaves_nothing_running(world: World) -> None:
    lost: list[Ref] = []

    def lose(number: int, when: str) -> None:
        verb, ref = world.tap.writes[number]
        if when == "before" and verb == "delete" and not lost:
            lost.append(ref)
            raise Unavailable("connection reset")

    await world.apply(edited(PIPELINE, {"spec.stages.1.limits": {"deadline": "30m", "maxAttempts": 1}}))
    world.node.script = on("pretrain", hang)
    world.start_operator(lose)
    await world.settle()
    assert await world.attempts("pretrain") == [("Failed", "DeadlineExceeded")]
    assert [ref.kind for ref in lost] == ["PyTorchJob"]
    assert await world.all("PyTorchJob") == []
    assert [pod for pod in await world.all("Pod") if pod["status"]["phase"] == "Running"] == []


def refuse_training(world: World, error: ClusterError) -> list[ClusterError]:
    """A new operator, to which the server answers so for every PyTorchJob while the list that is returned holds it."""
    answers = [error]

    def refuse(number: int, when: str) -> None:
        verb, ref = world.tap.writes[number]
        if when == "before" and answers and (verb, ref.kind) == ("create", "PyTorchJob"):
            raise answers[0]

    world.start_operator(refuse)
    return answers


async def test_an_attempt_runs_with_the_world_size_of_its_job_although_it_was_first_refused(world: World) -> None:
    answers = refuse_training(world, Forbidden("exceeded quota: gpus"))
    await world.settle()
    state = (await world.stage("pretrain"))["status"]
    assert [item["reason"] for item in state["conditions"] if item["type"] == "Stalled"] == ["ChildRefused"]
    await world.apply(edited(PIPELINE, {"spec.stages.1.nodes": 4}))
    answers.clear()
    world.node.script = on("pretrain", hang)
    await world.settle()
    [job] = await world.all("PyTorchJob")
    config = await world.get("ConfigMap", job["metadata"]["name"])
    nodes = 1 + job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"]
    assert (nodes, json.loads(config["data"]["run.json"])["worldSize"]) == (4, 4)


async def test_the_config_of_an_attempt_that_exists_is_never_replaced(world: World) -> None:
    """The operator is killed between the creation of the attempt and its status, and nodes are edited."""
    world.node.script = on("pretrain", hang)
    await world.settle()
    [job] = await world.all("PyTorchJob")
    name = job["metadata"]["name"]
    before = await world.get("ConfigMap", name)
    stage = await world.stage("pretrain")
    await world.cluster.apply_status({**stage, "status": {}}, "bessemer-operator")
    await world.apply(edited(PIPELINE, {"spec.stages.1.nodes": 4}))
    world.start_operator()
    await world.settle()
    assert await world.get("ConfigMap", name) == before
    assert [item["metadata"]["uid"] for item in await world.all("PyTorchJob")] == [job["metadata"]["uid"]]


@pytest.mark.parametrize(
    "error",
    [
        Invalid("metadata.name: Invalid value: not a DNS-1035 label"),
        Forbidden('admission webhook "validator.pytorchjob" denied the request: no container pytorch'),
    ],
)
async def test_an_attempt_that_the_server_refuses_for_good_is_a_failed_stage_and_is_tried_again(
    world: World, error: ClusterError
) -> None:
    answers = refuse_training(world, error)
    await world.settle()
    status = (await world.stage("pretrain"))["status"]
    [stalled] = [item for item in status["conditions"] if item["type"] == "Stalled"]
    assert (status["phase"], stalled["status"], stalled["reason"]) == ("Failed", "True", "ChildRefused")
    assert str(error) in stalled["message"]
    state, reason, message = await world.condition("Stalled")
    assert (state, reason) == ("True", "StageFailed")
    assert str(error) in message
    answers.clear()
    await world.settle()
    assert (await world.condition("Promoted"))[0] == "True"


@pytest.mark.parametrize(
    "name",
    ["3b-x", "3.b.x", "7b", "9" * 63, "a" * 63, "a.b", "3" + "-x" * 31, "qwen3-1.7b.de"],
    ids=lambda name: name[:16],
)
async def test_every_name_that_a_pipeline_can_have_leads_to_names_that_every_child_can_have(
    world: World, name: str
) -> None:
    await world.apply(edited(PIPELINE, {"metadata.name": name}))
    await world.settle()
    assert await world.condition("Promoted", name) == ("True", "Promoted", "record 1")
    names = [job["metadata"]["name"] for job in await world.all("PyTorchJob")]
    assert [found for found in names if not re.fullmatch("[a-z]([-a-z0-9]{0,48}[a-z0-9])?", found)] == []


async def test_while_an_admission_webhook_is_down_the_stage_says_so_and_nothing_is_lost(world: World) -> None:
    down = 'Internal error occurred: failed calling webhook "mpytorchjob.kb.io": connection refused'
    answers = refuse_training(world, Unavailable(down))
    await world.settle()
    status = (await world.stage("pretrain"))["status"]
    [stalled] = [item for item in status["conditions"] if item["type"] == "Stalled"]
    assert (status["phase"], stalled["status"], stalled["reason"]) == ("Pending", "True", "WebhookDown")
    assert down in stalled["message"]
    answers.clear()
    await world.settle()
    assert await world.attempts("pretrain") == [("Succeeded", "Succeeded")]


async def test_what_kueue_says_of_an_attempt_that_it_holds_back_reaches_the_pipeline(world: World) -> None:
    world.node.script = on("pretrain", hang)
    await world.settle()
    [job] = await world.all("PyTorchJob")
    held = {"type": "Suspended", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    await world.cluster.replace_status({**job, "status": {"conditions": [held]}}, "training-operator")
    why = {"reason": "Inadmissible", "message": "LocalQueue q doesn't exist"}
    metadata = {"name": "w", "namespace": "default", "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}}
    workload = {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "metadata": metadata}
    made = await world.cluster.create(workload)
    await world.cluster.replace_status(
        {**made, "status": {"conditions": [{"type": "QuotaReserved", "status": "False", **why}]}}, "kueue"
    )
    await world.settle()
    state, reason, message = await world.condition("Stalled")
    assert (state, reason) == ("True", "QueueUnusable")
    assert "pretrain: Kueue can not admit it: LocalQueue q doesn't exist" in message
    [job] = await world.all("PyTorchJob")
    await world.cluster.replace_status({**job, "status": {"conditions": [{**held, "status": "False"}]}}, "kueue")
    world.node.script = lambda spec, name: None
    await world.settle()
    assert (await world.condition("Stalled"))[0] == "False"
    assert (await world.condition("Promoted"))[0] == "True"
