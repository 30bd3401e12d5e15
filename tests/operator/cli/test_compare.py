"""`bessemer compare`: two pipelines side by side, run by the real operator on a directory cluster; nodes are played."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline
from bessemer_operator.cli.compare import document, read, show_comparison
from bessemer_operator.cli.place import Place
from bessemer_operator.cli.problems import UserError
from bessemer_operator.cli.target import find_target
from bessemer_operator.core.profile import Profile
from bessemer_operator.core.strategies import Strategy, differences, path_to, scenarios, seeds_sentence, settings_of
from tests.api.documents import PIPELINE, edited
from tests.support.world import World, memory_folder

PROFILES = {"default": Profile(image="trainer", cpu="1", memory="1Gi", gpus=4)}
OTHER = edited(PIPELINE, {"metadata.name": "faster", "spec.stages.2.train.learningRate": 1e-4})
BRANCH = {"name": "side", "method": "cpt", "from": "pretrain", "data": PIPELINE["spec"]["stages"][2]["data"]}


@pytest.fixture(scope="module")
def places() -> Any:
    """Files of two pipelines, and the state of a run of both: the first is promoted, the second is not shown to win."""
    with memory_folder() as folder:
        asyncio.run(_run(folder))
        files = []
        for pipeline in (PIPELINE, OTHER):
            path = folder / f"{pipeline['metadata']['name']}.json"
            path.write_text(json.dumps(pipeline))
            files.append(str(path))
        yield files, Place(state=str(folder))


async def _run(folder: Path) -> None:
    world = World(folder / "cluster", PROFILES)
    await world.apply(PIPELINE)
    await world.settle()
    world.store.verdicts = {("release", 1): "unclear", ("release", 2): "unclear"}
    await world.apply(OTHER)
    await world.settle()
    await world.cluster.close()


async def _both(places: Any) -> list[Strategy]:
    files, place = places
    return [strategy for file in files for strategy in await read(find_target(file, place), PROFILES)]


def test_approach_differences_benefits_and_direct_comparison(places: Any) -> None:
    one, other = asyncio.run(_both(places))
    told = document([one, other])
    assert (one.name, other.name) == ("poems/cpt", "faster/cpt")
    assert told["strategies"][0]["approach"] == ["tokenizer", "pretrain", "cpt"]
    assert told["differences"] == {"cpt.train.learningRate": ["2e-05", "0.0001"]}
    (gate,) = [gate for gate in told["strategies"][0]["gates"] if gate["name"] == "release"]
    assert (gate["verdict"], gate["axes"][0]["state"], gate["axes"][0]["delta"]) == ("Passed", "Won", 0.2)
    # The second was judged against what the first had promoted: exactly this comparison is stored, and no other.
    assert [(item["candidate"], item["against"]) for item in told["direct"]] == [("faster/cpt", "poems/cpt")]
    assert told["direct"][0]["gate"]["baseline"] == one.digest
    assert told["seeds"].startswith("One seed")


def test_resources_are_those_of_the_attempts_and_reuse_costs_nothing(places: Any) -> None:
    one, other = asyncio.run(_both(places))
    assert one.resources.attempts == 5 and one.resources.reused == ()
    assert set(other.resources.reused) == {"words", "pretrain-data", "pretrain", "cpt-data"}
    assert other.resources.attempts == 1
    assert one.resources.unknown == other.resources.unknown == ()


def test_the_text_says_it_all_and_never_more_than_is_stored(places: Any, capsys: pytest.CaptureFixture[str]) -> None:
    files, place = places
    asyncio.run(show_comparison(files, place, PROFILES, "text"))
    text = capsys.readouterr().out
    for words in (
        "poems/cpt: tokenizer -> pretrain -> cpt (sha256:",
        "cpt.train.learningRate  2e-05",
        "+0.2000 [+0.1980, +0.2020] Won, n 200",
        "+0.0000 [-0.0020, +0.0020] NotShown, n 400",
        "faster/cpt was compared with poems/cpt itself.",
        "faster/cpt: loss was not shown to hold",
        "poems/cpt: where loss counts: it was shown to gain",
        "3 seeds of each recipe are needed",
    ):
        assert words in text
    asyncio.run(show_comparison(files, place, PROFILES, "json"))
    assert json.loads(capsys.readouterr().out)["sameBaseline"] is False


def test_one_candidate_alone_is_no_comparison(places: Any) -> None:
    files, place = places
    with pytest.raises(UserError, match="one candidate only"):
        asyncio.run(show_comparison(files[:1], place, PROFILES, "text"))


def test_candidates_of_one_pipeline_are_compared_by_their_own_paths() -> None:
    merged = {"name": "mean", "method": "linear", "parents": [{"stage": "cpt"}, {"stage": "side"}], "weights": [1, 1]}
    edits = {
        "spec.stages": [*PIPELINE["spec"]["stages"], {**BRANCH, "train": {"maxSteps": 5, "globalBatchTokens": 512}}]
    }
    spec = AdaptationPipeline.model_validate(edited(PIPELINE, {**edits, "spec.merges": [merged]})).spec
    assert path_to(spec, "side") == ("words", "pretrain", "side")
    assert path_to(spec, "mean") == ("words", "pretrain", "cpt", "side", "mean")
    assert settings_of(spec, path_to(spec, "side"))["side.train.maxSteps"] == "5"
    assert "cpt.train.maxSteps" not in settings_of(spec, path_to(spec, "side"))


def test_three_seeds_of_each_recipe_allow_to_speak_of_recipes(places: Any) -> None:
    one, other = asyncio.run(_both(places))
    many = [replace(item, seed=seed) for item in (one, other) for seed in (1, 2, 3)]
    assert seeds_sentence(many) == "3 seeds or more of each recipe."
    assert seeds_sentence(many[:5]).startswith("2 seeds")
    assert differences([one, replace(one, seed=9)]) == {}


def test_nobody_is_recommended_without_a_verdict(places: Any) -> None:
    one, _ = asyncio.run(_both(places))
    assert scenarios(replace(one, gates=())) == ("not judged",)
