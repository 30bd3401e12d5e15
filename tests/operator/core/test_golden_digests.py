"""Identities that must never change by themselves: an upgrade of the operator must not train a model again.

A field that is added with a default changes none of them. Where a change is meant, `recipe` of that method is raised;
these literals are then replaced in the same commit, and the changelog says what runs again.
"""

from typing import Any

import pytest

from bessemer_api.digest import input_digest
from bessemer_api.v1alpha1.evaluation import EvaluationInputs
from bessemer_api.v1alpha1.stage import StageInputs

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PREPARE = {
    "method": "prepare",
    "prepare": {
        "sources": [{"uri": "s3://raw/poems.jsonl"}],
        "content": A,
        "rules": {"filters": [{"name": "c4"}], "dedupe": {"minhash": {}}, "decontaminate": {"against": ["bank"]}},
        "banks": [B],
        "holdout": 0.01,
    },
}
BANK = {"method": "bank", "bank": {"tasks": {"loss": {"uri": "s3://i"}}, "content": A, "dev": 10, "gate": 400}}
TOKENIZER = {
    "method": "tokenizer",
    "tokenizer": {"vocabularySize": 4096},
    "mixture": {"parts": [{"name": "poems", "digest": A}]},
}
MIXTURE = {
    "method": "mixture",
    "seed": 17,
    "mixture": {"parts": [{"name": "poems", "digest": A, "weight": 0.5}], "sequenceLength": 512, "tokenizer": B},
}
PRETRAIN = {
    "method": "pretrain",
    "model": {"hiddenSize": 64, "intermediateSize": 128, "layers": 2, "heads": 4},
    "train": {"epochs": 1, "globalBatchTokens": 512},
    "startFrom": A,
    "data": B,
}
CPT = {"method": "cpt", "train": {"maxSteps": 10, "learningRate": 2e-5}, "startFrom": A, "data": B}
EVALUATION = {
    "checkpoint": A,
    "bank": B,
    "axes": [{"name": "loss", "task": "bitsPerByte"}, {"name": "quiz", "task": "multipleChoice", "clusterBy": "fact"}],
    "part": "gate",
    "start": 0,
    "end": 200,
}


@pytest.mark.parametrize(
    ("inputs", "digest"),
    [
        pytest.param(PREPARE, "sha256:57d8fab940324a7f15b48f401ec518bba23e3ffa4343170b04ca4769ca03420d", id="prepare"),
        pytest.param(BANK, "sha256:82c5e7c3bf095ee4249d5214a208ed1c0021c4ca2f4c17620a952754de50fff5", id="bank"),
        pytest.param(
            TOKENIZER, "sha256:ada78dce3659dd770c0232a9c9f53abc4579ca5e0295516ad694c812a46fea67", id="tokenizer"
        ),
        pytest.param(MIXTURE, "sha256:30d7063b46242928558af44d8bda65858ec0bfae5ac2042806a57a49725ad283", id="mixture"),
        pytest.param(
            PRETRAIN, "sha256:7dd52496e9556edcf3dfe07fa3df9b782edeb68b23eb7d3c27fa553d70f7b868", id="pretrain"
        ),
        pytest.param(CPT, "sha256:327e6dc4561784f1514af34f72f53af42760d9e9773a04823a32036f72d91c35", id="cpt"),
    ],
)
def test_the_identity_of_a_stage_is_as_it_was(inputs: dict[str, Any], digest: str) -> None:
    assert input_digest(StageInputs.model_validate(inputs)) == digest


def test_the_identity_of_an_evaluation_is_as_it_was() -> None:
    assert (
        input_digest(EvaluationInputs.model_validate(EVALUATION))
        == "sha256:6168113d7fcf2516b4ded152c4a4235c2c8456bbd48d17b525beef01f2c7427f"
    )


@pytest.mark.parametrize(
    ("path", "default"),
    [(("train", "learningRate"), 2e-5), (("train", "weightDecay"), 0.1), (("seed",), 0), (("recipe",), 1)],
    ids=["learning_rate", "weight_decay", "seed", "recipe"],
)
def test_a_default_that_is_written_out_changes_no_identity(path: tuple[str, ...], default: object) -> None:
    written: dict[str, Any] = {**CPT, "train": {**CPT["train"]}}  # type: ignore[dict-item]
    target = written if len(path) == 1 else written[path[0]]
    target[path[-1]] = default
    assert input_digest(StageInputs.model_validate(written)) == input_digest(StageInputs.model_validate(CPT))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"recipe": 2},
        {"rerun": "2"},
        {"startFrom": B},
        {"data": A},
        {"train": {"maxSteps": 11, "learningRate": 2e-5}},
        {"train": {"maxSteps": 10, "learningRate": 2.1e-5}},
        {"train": {"maxSteps": 10, "precision": "fp32"}},
    ],
    ids=str,
)
def test_what_determines_the_result_changes_the_identity(change: dict[str, Any]) -> None:
    assert input_digest(StageInputs.model_validate({**CPT, **change})) != input_digest(StageInputs.model_validate(CPT))
