"""Reinforcement for real: rewards of verifiers and of a reward model rise; a run that was stopped goes on exactly."""

import signal
from typing import Any

import pytest

from tests.trainer.preferred import World, make_prompts
from tests.trainer.support import Pod, lines_of, store_in, weights_of

ASKED = [{"type": "keywords", "words": ["iron"]}, {"type": "length", "unit": "words", "max": 4}]
RECIPE: dict[str, Any] = {
    "learningRate": 3e-3,
    "maxSteps": 12,
    "beta": 0.02,
    "grpo": {"samples": 6, "maxNewTokens": 12},
}


@pytest.fixture(scope="module")
def prompts(world: World) -> str:
    """Answers shall name iron, and be short."""
    parts = [world.prompts(count, seed, constraints=ASKED) for count, seed in ((32, 5), (24, 6))]
    return make_prompts(store_in(world.folder), world.folder / "prompts", world.inputs.tokenizer, parts)


@pytest.fixture(scope="module")
def verified(world: World, prompts: str) -> Pod:
    return world.trained("grpo", "grpo", RECIPE, stage={"data": prompts})


def test_the_reward_of_verifiers_rises_on_prompts_that_were_held_out(world: World, verified: Pod) -> None:
    metrics = verified.report().metrics
    assert metrics["holdoutReward"] >= metrics["holdoutRewardBefore"] + 0.2
    lines = list(lines_of(world.inputs.store, "grpo"))
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6), "the policy is its reference before the first step"
    assert lines[-1]["kl"] > 0
    assert metrics["targets"] > 0
    assert world.inputs.store.manifest(str(verified.report().output_digest)).kind == "checkpoint"


def test_a_run_that_was_stopped_draws_and_learns_what_it_would_have(world: World, prompts: str, verified: Pod) -> None:
    pod = world.pod("grpo-stopped", "grpo", RECIPE, stage={"data": prompts}, checkpoint={"everySteps": 4})
    started = pod.start(world.zygote)
    while not list(world.run_folder("grpo-stopped").glob("step-*/manifest.json")) and started[0].poll() is None:
        pass
    started[0].send_signal(signal.SIGTERM)
    code, stderr = pod.finish(started)
    assert code == 143, stderr
    resumed = Pod(pod.folder, {**pod.document, "attempt": 2}, 1)
    code, stderr = resumed.run(world.zygote)
    assert code == 0, stderr
    kept = ("loss", "reward", "kl", "answerTokens", "gradNorm")
    told = [[{key: line[key] for key in kept} for line in lines_of(world.inputs.store, name)]
            for name in ("grpo", "grpo-stopped")]  # fmt: skip
    assert told[0] == told[1]
    expected, found = (weights_of(world.inputs.store, str(each.report().output_digest)) for each in (verified, resumed))
    assert all((found[name] == expected[name]).all() for name in expected)


def test_a_reward_model_of_preferences_raises_its_own_score_and_the_taste_it_learned(
    world: World, prompts: str
) -> None:
    """RLHF whole: preferences -> reward model -> grpo. Two ranks, so that they must draw in step."""
    judge = world.trained("judge", "reward", {"learningRate": 3e-3})
    stage = {"data": prompts, "rewardFrom": str(judge.report().output_digest)}
    settings = {"deepspeed": {"microBatchSize": 2, "zeroStage": 2}}
    pod = world.trained("rlhf", "grpo", {**RECIPE, "beta": 0.01}, ranks=2, stage=stage, **settings)
    metrics = pod.report().metrics
    assert metrics["holdoutReward"] >= metrics["holdoutRewardBefore"] + 0.5


def test_what_can_not_be_reinforced_is_refused(world: World, prompts: str) -> None:
    unverified = make_prompts(
        store_in(world.folder), world.folder / "unverified", world.inputs.tokenizer, [world.prompts(2, 5), []]
    )
    cases = {
        "no-check": ({"data": unverified}, RECIPE, "PromptInvalid", "prompt 0: no field 'verifier'"),
        "no-reward": ({"data": prompts, "rewardFrom": world.base}, RECIPE, "WrongKind", "expected a reward model"),
        "pairs": ({"data": world.pairs}, RECIPE, "WrongKind", "a mixture of pairs; grpo needs one of prompts"),
        "too-long": (
            {"data": prompts}, {**RECIPE, "grpo": {"maxNewTokens": 60}}, "SequenceTooLong", "maxNewTokens 60"
        ),
    }  # fmt: skip
    for case, (stage, train, reason, words) in cases.items():
        pod = world.pod(f"refused-{case}", "grpo", train, stage=stage)
        code, stderr = pod.run(world.zygote)
        assert code == 64, f"{case}: {stderr}"
        error = pod.report().error
        assert error is not None
        assert (error.reason, words in error.message) == (reason, True), f"{case}: {error}"
