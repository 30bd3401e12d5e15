"""Tasks of lm-evaluation-harness on our model, beside the harness' own model (HFLM) on the same weights."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.v1alpha1.evaluation import Axis
from bessemer_trainer.errors import PermanentError
from bessemer_trainer.evals import harness, lm_eval_task, multiple_choice
from bessemer_trainer.evals.items import Item
from bessemer_trainer.evals.subject import Subject, load_subject
from tests.trainer.evaluation.tiny import World, multiple_choice_items

CHOICE = """
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl, train: shots.jsonl}}
test_split: test
training_split: train
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
WRITTEN = """
task: written
include: colours.yaml
output_type: generate_until
doc_to_choice: null
doc_to_target: "{{choices[answer].strip()}}"
generation_kwargs: {until: ["."], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
filter_list: [{name: strip, filter: [{function: regex, regex_pattern: "([a-z]+)"}, {function: take_first}]}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    (made / "colours.yaml").write_text(CHOICE)
    (made / "written.yaml").write_text(WRITTEN)
    for name, items in (("colours", multiple_choice_items()[:40]), ("shots", multiple_choice_items()[40:44])):
        (made / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return made


@pytest.fixture(scope="module")
def subject(world: World) -> Subject:
    return load_subject(world.store().fetch(world.good), "fp32")


def peer(subject: Subject) -> Any:
    """The harness' own model class on the same weights and tokenizer."""
    from transformers import PreTrainedTokenizerFast

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.models.huggingface import HFLM

        tokenizer = PreTrainedTokenizerFast.from_pretrained(subject.folder)
        return HFLM(pretrained=subject.model, tokenizer=tokenizer, batch_size=4, device="cpu")


def items_of(folder: Path, name: str) -> list[Item]:
    return [Item(document["id"], document, name) for document in harness.bank_items(folder, name)]


def test_log_probabilities_agree_with_those_of_the_harness(subject: Subject, folder: Path) -> None:
    from lm_eval.api.instance import Instance

    items = multiple_choice_items()[:24]
    pairs = [(item["prompt"], choice) for item in items for choice in item["choices"]]
    instances = [Instance("loglikelihood", {}, pair, k) for k, pair in enumerate(pairs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer(subject).loglikelihood(instances, disable_tqdm=True)
    encoded = [lm_eval_task.encode_pair(subject, *pair) for pair in pairs]
    ours = lm_eval_task.log_likelihoods(subject.model, encoded, lambda done: None)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    axis = Axis.model_validate({"name": "a", "task": "multipleChoice"})
    found = multiple_choice.measure(subject, [Item(i["id"], i, "t") for i in items], axis, lambda done: None)
    flat = [value for sample in found for value in sample.detail["logLikelihoods"]]
    assert flat == pytest.approx([value for value, _ in theirs], abs=1e-4)


@pytest.mark.parametrize(("task", "metric"), [("colours", "acc"), ("written", "exact_match")])
def test_the_score_of_a_task_is_what_the_harness_gives(subject: Subject, folder: Path, task: str, metric: str) -> None:
    items = items_of(folder, task)
    axis = Axis.model_validate({"name": "a", "task": "lmEval", "metric": metric})
    ours = lm_eval_task.measure(subject, items, axis, lambda done: None)
    config = harness.read_task(folder, task)
    built = harness.build_task(config, {"test": [item.fields["doc"] for item in items], "train": []} | shots(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.evaluator import simple_evaluate

        theirs = simple_evaluate(model=peer(subject), tasks=[built], bootstrap_iters=0, log_samples=True)
    scores = [sample[metric] for sample in theirs["samples"][task]]
    assert [sample.score for sample in ours] == scores
    assert sum(scores) / len(scores) >= 0.5


def shots(folder: Path) -> dict[str, Any]:
    return {"train": [json.loads(line) for line in (folder / "shots.jsonl").read_text().splitlines()]}


def test_few_shot_examples_stand_in_the_prompt_that_the_bank_keeps(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "colours.yaml").write_text(CHOICE + "num_fewshot: 2\n")
    first, again = (items_of(tmp_path, "colours")[0].fields for _ in range(2))
    assert first == again
    assert first["prompt"].count("The colour of") == 3
    assert first["answer"] == multiple_choice_items()[0]["choices"][multiple_choice_items()[0]["answer"]]


BAD = {
    "no such task": ("", "no YAML file of the folder has `task: wanted`"),
    "code": ("task: wanted\nprocess_docs: !function tools.clean\n", "is code"),
    "a hub": ("task: wanted\ndataset_path: openai/gsm8k\n", "expected json with data_files"),
    "another output": ("task: wanted\noutput_type: loglikelihood_rolling\n", "expected one of multiple_choice"),
    "no split": (
        "task: wanted\ndataset_path: json\ndataset_kwargs: {data_files: {test: colours.jsonl}}\n", "neither test_split",
    ),
    "a file outside": (
        "task: wanted\ndataset_path: json\ntest_split: test\ndataset_kwargs: {data_files: {test: ../x}}\n",
        "no file of the folder",
    ),
    "an include outside": ("task: wanted\ninclude: ../../etc/passwd\n", "is no file of the folder"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_a_task_that_can_not_be_used_is_one_clear_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(ValueError) as error:
        list(harness.bank_items(tmp_path, "wanted"))
    assert words in str(error.value)


def test_templates_run_in_a_sandbox(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    escape = CHOICE.replace('"{{prompt}}"', "\"{{ ''.__class__.__mro__[1].__subclasses__() }}\"")
    (tmp_path / "colours.yaml").write_text(escape)
    with pytest.raises(Exception, match="unsafe"):
        list(harness.bank_items(tmp_path, "colours"))


def test_a_metric_that_the_task_does_not_give_is_named(subject: Subject, folder: Path) -> None:
    axis = Axis.model_validate({"name": "a", "task": "lmEval", "metric": "f1"})
    with pytest.raises(PermanentError, match="gives no f1; it gives acc, acc_norm"):
        lm_eval_task.measure(subject, items_of(folder, "colours")[:2], axis, lambda done: None)
