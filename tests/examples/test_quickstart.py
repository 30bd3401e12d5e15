"""The quickstart's data and pipelines. Nothing is mocked: the two wheels are fetched as a user's first run does."""

import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bessemer_api.v1alpha1.pipeline import AdaptationPipeline, PipelineSpec
from bessemer_operator.cli.yamlfile import read_pipeline
from bessemer_operator.core.lint import errors, lint
from bessemer_trainer.evals import constraints

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart"
FILES = ("pipeline", "no-replay", "retrain", "small-gate")
TRAINED = ("general", "domain", "instructions", "questions", "preferences")
ASKED = ("knowledge", "reasoning", "instruction", "creative", "general-heldout")
Rows = list[dict[str, Any]]


MODULES = ("facts", "adaptation", "instructions", "fetch_data")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The folder's modules, found as they find each other when fetch_data.py is run."""
    sys.path.insert(0, str(EXAMPLE))
    yield {name: importlib.import_module(name) for name in MODULES}
    sys.path.remove(str(EXAMPLE))
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture(scope="module")
def script(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["fetch_data"]


@pytest.fixture(scope="module")
def facts(scripts: dict[str, ModuleType]) -> ModuleType:
    return scripts["facts"]


@pytest.fixture(scope="module")
def packages(script: ModuleType) -> Path:
    folder = EXAMPLE / "data" / "packages"
    script.fetch_packages(folder)
    return folder


@pytest.fixture(scope="module")
def data(script: ModuleType, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    folder = tmp_path_factory.mktemp("data")
    script.write_data(packages, folder)
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("*.jsonl")}


def pipeline(name: str) -> AdaptationPipeline:
    return read_pipeline(str(EXAMPLE / f"{name}.yaml"))[0]


# --- data -------------------------------------------------------------------------------------------------------


def test_a_second_run_writes_the_same_bytes(script: ModuleType, packages: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        script.write_data(packages, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == sorted(f"{name}.jsonl" for name in (*TRAINED, *ASKED))
    assert all((tmp_path / "first" / n).read_bytes() == (tmp_path / "second" / n).read_bytes() for n in files)


def test_packages_that_are_there_are_not_fetched_again(
    script: ModuleType, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("UV", raising=False)
    script.fetch_packages(packages)


def test_a_machine_without_uv_is_told_where_to_get_it(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("UV", raising=False)
    with pytest.raises(SystemExit, match="`uv` is not on PATH; get it from"):
        script.fetch_packages(tmp_path / "packages")


def test_there_are_items_for_every_part_of_the_bank(data: dict[str, Rows]) -> None:
    bank = pipeline("pipeline").spec.evaluation.banks[0]
    clusters = Counter(item["fact"] for item in data["knowledge"])
    wordings = set(clusters.values())
    assert len(wordings) == 1, "facts have unequal numbers of questions"
    per_fact = wordings.pop()
    assert bank.dev % per_fact == 0, "the last dev fact would lose questions"
    assert bank.gate / per_fact >= 100, "clusters at the gate"
    assert Counter(item["fact"] for item in data["creative"]) == clusters
    assert all(len(data[name]) >= bank.dev + bank.gate for name in ASKED)


def test_items_are_well_formed(data: dict[str, Rows]) -> None:
    for item in data["knowledge"] + data["reasoning"]:
        assert len(set(item["choices"])) == 4, item
        assert 0 <= item["answer"] < 4, item
        assert all(choice.startswith(" ") and choice == f" {choice.strip()}" for choice in item["choices"]), item
        assert item["prompt"] == item["prompt"].strip(), item
    for name in (*TRAINED, *ASKED):
        ids = Counter(row["id"] for row in data[name])
        assert max(ids.values()) == 1, name


def test_the_right_choice_is_what_is_taught_and_stands_anywhere(facts: ModuleType, data: dict[str, Rows]) -> None:
    taught = {row["text"] for row in data["domain"]}
    for item in data["knowledge"]:
        prompt = facts.HELD_OUT_WORDINGS[item["wording"]]
        term = re.fullmatch(re.escape(prompt).replace(r"\{term\}", "(.*)"), item["prompt"])
        assert term, item
        statements = [f"In plain words, {term[1]} means{choice}." in taught for choice in item["choices"]]
        assert statements == [place == item["answer"] for place in range(4)], item
    places = Counter(item["answer"] for item in data["knowledge"])
    assert min(places.values()) > 150, places


def test_no_distractor_is_another_name_of_the_term(
    script: ModuleType, facts: ModuleType, packages: Path, data: dict[str, Rows]
) -> None:
    terms = facts.read_terms(packages / script.ONTOLOGY)
    for item in data["knowledge"]:
        names = {name.lower() for name in terms[item["fact"]].plain}
        wrong = {choice.strip() for place, choice in enumerate(item["choices"]) if place != item["answer"]}
        assert not names & wrong, item


def test_every_fact_is_taught_in_every_wording(facts: ModuleType, data: dict[str, Rows]) -> None:
    assert len(data["domain"]) == facts.FACTS * len(facts.TRAINING_WORDINGS)
    assert len({item["fact"] for item in data["knowledge"]}) == facts.FACTS


def test_the_answers_that_are_taught_obey_their_instructions(scripts: dict[str, ModuleType]) -> None:
    taught, asked = scripts["instructions"].split_instructions()
    for item in taught + asked:
        assert item.answers, item
        constraints.check(list(item.constraints))
        assert all(all(constraints.satisfied(item.constraints, answer)) for answer in item.answers), item


def test_a_taught_note_is_valid_for_the_brief_that_asks_for_it_in_other_words(data: dict[str, Rows]) -> None:
    notes = [row["completion"] for row in data["questions"] if "-n" in row["id"]]
    for brief in data["creative"]:
        constraints.check(brief["constraints"])
    by_fact = {brief["id"].rpartition("-b")[0]: brief["constraints"] for brief in data["creative"]}
    for row in data["questions"]:
        if "-n" in row["id"]:
            assert all(constraints.satisfied(by_fact[row["id"].rpartition("-n")[0]], row["completion"])), row
    assert len(notes) == 8 * len(by_fact)


def test_a_syllogism_follows_from_its_premises_wherever_they_stand(data: dict[str, Rows]) -> None:
    first = 0
    for item in data["reasoning"]:
        said = dict(re.findall(r"Every (\w+) is a (\w+)\.", item["prompt"]))
        asked = re.search(r"This is a (\w+)\.", item["prompt"])
        assert asked and item["choices"][item["answer"]] == f" A {said[asked[1]]}.", item
        first += next(iter(said)) == asked[1]
    assert 0.4 < first / len(data["reasoning"]) < 0.6


# --- nothing that is asked was trained on -----------------------------------------------------------------------

RUN = 6
"""Words: longer than any plain name with the words that link it, so a shared run would be a shared wording."""


def runs(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return zip(*(words[start:] for start in range(RUN)), strict=False)


def prompts(rows: Rows) -> set[str]:
    return {row["prompt"] for row in rows}


def test_no_prompt_that_is_asked_was_taught(data: dict[str, Rows]) -> None:
    taught = prompts(data["instructions"]) | prompts(data["questions"]) | prompts(data["preferences"])
    for name in ("reasoning", "instruction", "creative"):
        assert not prompts(data[name]) & taught, name


def leaks(items: Iterable[dict[str, Any]], documents: Iterable[dict[str, Any]]) -> list[str]:
    """Items of which a run of words, or the whole question with its answer, occurs in a document."""
    texts = [row["text"] for row in documents]
    trained = {run for text in texts for run in runs(text)}
    whole = "\n".join(" ".join(re.findall(r"\w+", text.lower())) for text in texts)
    found = []
    for item in items:
        asked = " ".join(re.findall(r"\w+", (item["prompt"] + item["choices"][item["answer"]]).lower()))
        if asked in whole or any(run in trained for run in runs(asked)):
            found.append(item["id"])
    return found


def test_no_wording_of_a_question_is_in_the_training_text(data: dict[str, Rows]) -> None:
    answered = [{"text": f"{row['prompt']} {row['completion']}"} for row in data["questions"] + data["instructions"]]
    assert leaks(data["knowledge"], data["domain"] + data["general"] + answered) == []


def test_a_question_in_the_training_text_would_be_found(data: dict[str, Rows]) -> None:
    item = data["knowledge"][7]
    planted = {"text": f"He said: {item['prompt'].upper()}, well,{item['choices'][item['answer']]}!"}
    assert leaks(data["knowledge"], [*data["domain"], planted]) == [item["id"]]


def test_no_article_is_both_trained_on_and_held_out(data: dict[str, Rows]) -> None:
    titles = {name: {row["text"].partition(" -- ")[0] for row in data[name]} for name in ("general", "general-heldout")}
    assert not titles["general"] & titles["general-heldout"]


def test_held_out_passages_are_clusters_of_one_article_without_near_duplicates(
    script: ModuleType, data: dict[str, Rows]
) -> None:
    rows = data["general-heldout"]
    assert all(row["text"].startswith(f"{row['article']} -- ") for row in rows)
    found = [script.word_runs(row["text"]) for row in rows]
    pairs = ((a, b) for place, a in enumerate(found) for b in found[:place])
    assert not any(2 * len(a & b) >= min(len(a), len(b)) for a, b in pairs if not a.isdisjoint(b))
    assert len({row["article"] for row in rows}) > 800


def test_a_near_duplicate_is_dropped(script: ModuleType) -> None:
    text = " ".join(f"word{number}" for number in range(60))
    half, little = f"{text[:300]} and so on", " ".join(f"word{n}" for n in range(45, 120))
    assert script.without_near_duplicates([text, half, little]) == [text, little]


@pytest.mark.parametrize("name", FILES)
def test_passages_of_one_article_are_one_cluster(name: str) -> None:
    axes = {axis.name: axis for axis in pipeline(name).spec.evaluation.axes}
    assert axes["generalLoss"].cluster_by == "article"


# --- pipelines --------------------------------------------------------------------------------------------------


MEANT = (
    "orpo after sft",
    "slerp of models of about",
    "nothing that is gated or promoted comes from",
    "no gate asks for",
)
"""What the lint warns of and the examples mean: they show both, and what a variant does not use stays as it was."""


@pytest.mark.parametrize("name", FILES)
def test_the_lint_warns_of_nothing_but_what_is_meant(name: str) -> None:
    found = [str(finding) for finding in lint(pipeline(name).spec)]
    assert [line for line in found if not any(words in line for words in MEANT)] == []
    assert not errors(pipeline(name).spec)


def without(spec: PipelineSpec, fields: Iterable[str]) -> dict[str, Any]:
    """The declaration as JSON without some fields, written as `stages.2.seed`."""
    document: dict[str, Any] = json.loads(spec.model_dump_json(by_alias=True))
    for field in fields:
        *path, last = (int(step) if step.isdigit() else step for step in field.split("."))
        inner: Any = document
        for step in path:
            inner = inner[step]
        inner.pop(last)
    return document


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        pytest.param("no-replay", ["stages.3.data"], id="no-replay differs in the mixture of cpt"),
        pytest.param("retrain", ["stages.5.seed", "promotion"], id="retrain differs in the seed of orpo"),
        pytest.param("small-gate", ["gates", "promotion"], id="small-gate differs in the gate and its channel"),
    ],
)
def test_a_variant_differs_in_one_thing(name: str, fields: list[str]) -> None:
    release, variant = pipeline("pipeline").spec, pipeline(name).spec
    assert release != variant
    assert without(release, fields) == without(variant, fields)


def test_pipelines_have_names_of_their_own() -> None:
    assert len({pipeline(name).metadata.name for name in FILES}) == len(FILES)
