"""Identities of the alignment methods and of tokenizer extensions, which must never change by themselves either."""

from typing import Any

import pytest

from bessemer_api.digest import input_digest
from bessemer_api.v1alpha1.stage import StageInputs

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
QA = {"parts": [{"name": "qa", "digest": A}], "tokenizer": B}
GOLDEN: dict[str, tuple[dict[str, Any], str]] = {
    "extension": (
        {
            "method": "tokenizer",
            "tokenizer": {"extend": 100},
            "mixture": {"parts": [{"name": "poems", "digest": A}]},
            "startFrom": B,
        },
        "a654c68b0092b0770c9c8ccd098eb0863fa3be16b2462fb107a9529243b14e52",
    ),
    "examples": (
        {"method": "mixture", "mixture": {**QA, "format": "examples", "lossOn": "assistant", "chatTemplate": "chatml"}},
        "78d5d70221565f76e6178867c36fc8790a8acd8bd5ef73a85b72d7b97b0cfc01",
    ),
    "pairs": (
        {"method": "mixture", "mixture": {**QA, "format": "pairs", "chatTemplate": "fromModel"}},
        "1cfe576b86a27a91b3e4124158b70a07237e7fe6e6743d57bd7b2c3cfca237b4",
    ),
    "prompts": (
        {"method": "mixture", "mixture": {**QA, "format": "prompts"}},
        "62728696c2605ca2d2aca42b7454c099c434093bde5850e26a056d90cdccaea5",
    ),
    "sft": (
        {"method": "sft", "train": {"epochs": 2, "neftuneAlpha": 5, "lora": {"r": 8}}, "startFrom": A, "data": B},
        "bc97dc1099cdbf775787d716afee7feb91554ceff584f592d9662dd9a1792620",
    ),
    "dpo": (
        {
            "method": "dpo",
            "train": {"epochs": 1, "beta": 0.05, "lossType": "ipo", "globalBatchExamples": 32},
            "startFrom": A,
            "data": B,
            "referenceFrom": C,
        },
        "ac44fb415d346429eed9034ff6bcdbdd89de2d7c67d92a2bd90e94becb8d53bd",
    ),
    "orpo": (
        {"method": "orpo", "train": {"epochs": 1}, "startFrom": A, "data": B},
        "e432dc0c824df52dae89134d755c09bd560fc10e797eb02cea0e42d262f56b32",
    ),
    "kto": (
        {"method": "kto", "train": {"epochs": 1}, "startFrom": A, "data": B},
        "69265f92754e2670055e3e59edcc2415b7c9949a2825ef6c111d0933bde02151",
    ),
    "reward": (
        {"method": "reward", "train": {"epochs": 1}, "startFrom": A, "data": B},
        "9b9a7ec243b858b2150e3495cab4e125f33a19b27e26c068471125272bf5cb52",
    ),
    "grpo": (
        {
            "method": "grpo",
            "train": {"maxSteps": 100, "grpo": {"samples": 4}},
            "startFrom": A,
            "data": B,
            "rewardFrom": C,
        },
        "dd6452dbf0be3088b2a4f72d8162a874e0ebd8e4ec62a81631ba0a2f1098b5f2",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_identity_of_a_method_is_as_it_was(name: str) -> None:
    inputs, digest = GOLDEN[name]
    assert input_digest(StageInputs.model_validate(inputs)) == f"sha256:{digest}"


@pytest.mark.parametrize(
    ("field", "default"),
    [("beta", 0.1), ("lossType", "sigmoid"), ("lossOn", "completion"), ("neftuneAlpha", 0.0), ("lora", None)],
)
def test_a_default_that_is_written_out_changes_no_identity_of_a_method(field: str, default: object) -> None:
    plain, _ = GOLDEN["orpo"]
    written = {**plain, "train": {**plain["train"], field: default}}
    assert input_digest(StageInputs.model_validate(written)) == input_digest(StageInputs.model_validate(plain))


@pytest.mark.parametrize("field", ["rewardFrom", "referenceFrom"])
def test_another_model_beside_is_another_result(field: str) -> None:
    inputs = GOLDEN["grpo"][0]
    assert input_digest(StageInputs.model_validate({**inputs, field: B})) != input_digest(
        StageInputs.model_validate(inputs)
    )
