"""Items of every task in a bank: what is accepted, and one clear error for each that is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from bessemer_api.v1alpha1.tasks import TASKS
from bessemer_trainer.bank_items import Origin, parse_item
from bessemer_trainer.evals.formats import item_text

ASK = {"id": "i", "prompt": "What?"}
TALK = {"id": "i", "turns": ["Note this.", "Form?"]}
GOOD: dict[str, dict[str, Any]] = {
    "multipleChoice": {**ASK, "choices": ["a", "b"], "answer": 0},
    "bitsPerByte": {"id": "i", "text": "a b c"},
    "exactMatch": {**ASK, "answers": ["tin"], "stop": ["."]},
    "jsonAnswer": {**ASK, "answer": {"a": 1}},
    "reasoningGym": {
        **ASK,
        "verifier": {"kind": "reasoningGym", "generator": "chain_sum", "entry": {"answer": "1", "metadata": {}}},
    },
    "verifiableConstraints": {**ASK, "constraints": [{"type": "json"}]},
    "distinctValidNovel": {**ASK, "verifier": {"kind": "matches", "pattern": "a"}},
    "toolCall": {**ASK, "tool": {"name": "f", "arguments": {"a": 1}}},
    "handoff": {**TALK, "payload": {"a": 1}},
    "verified": {**ASK, "verifier": {"kind": "exactMatch", "answers": ["a"]}},
    "firstTokenLatency": {"id": "i", "prompt": [{"role": "user", "content": "What?"}]},
    "sessionCost": {**TALK, "price": {"output": 4}},
    "lmEval": {**ASK, "doc": {}},
}
BAD = [
    ("exactMatch", {"answers": None}, "field 'answers'"),
    ("exactMatch", {"prompt": " "}, "field 'prompt': expected a string that is not blank"),
    ("exactMatch", {"prompt": [{"role": "user"}]}, "is no message"),
    ("exactMatch", {"prompt": [{"role": "system", "content": "a"}]}, "no message of the user"),
    ("exactMatch", {"stop": "."}, "field 'stop'"),
    ("jsonAnswer", {"answer": "a"}, "field 'answer': expected a JSON object"),
    ("toolCall", {"tool": {"name": "f"}}, "field 'tool'"),
    ("verifiableConstraints", {"constraints": [{"type": "json", "keys": "a"}]}, "constraint 1: json: 'keys' is 'a'"),
    ("distinctValidNovel", {"verifier": None}, "field 'verifier'"),
    ("handoff", {"turns": ["one"]}, "at least 2"),
    ("handoff", {"payload": []}, "field 'payload'"),
    ("sessionCost", {"price": {"input": 0}}, "field 'price'"),
    ("sessionCost", {"turns": []}, "field 'turns'"),
    ("verified", {"verifier": {"kind": "judge"}}, "expected one of exactMatch"),
    ("exactMatch", {"answers": ["\ud800"]}, "half a surrogate pair"),
    ("multipleChoice", {"answer": 2}, "expected an index from 0 to 1"),
]  # fmt: skip


def parse(task: Any, document: dict[str, Any], labels: tuple[str, ...] = ()) -> Any:
    return parse_item(json.dumps(document).encode(), Origin(None, task, labels, 0, 0, Path()))  # type: ignore[arg-type]


def test_there_is_a_good_item_for_every_task() -> None:
    assert GOOD.keys() == TASKS.keys()


@pytest.mark.parametrize("task", GOOD)
def test_an_item_as_it_is_documented_is_accepted(task: str) -> None:
    assert parse(task, GOOD[task])["id"] == "i"


@pytest.mark.parametrize(("task", "change", "words"), BAD, ids=[f"{t}-{w}" for t, _, w in BAD])
def test_a_bad_item_is_one_clear_error(task: str, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(task, GOOD[task] | change)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_item_without_its_stratum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"field 'family': expected the name of the item's cluster or stratum"):
        parse("exactMatch", GOOD["exactMatch"], ("family",))


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("multipleChoice", "What? a"),
        ("bitsPerByte", "a b c"),
        ("exactMatch", "What? tin"),
        ("jsonAnswer", "What? 1"),
        ("handoff", "Note this. Form?"),
        ("firstTokenLatency", "What?"),
        ("verifiableConstraints", "What?"),
    ],
)
def test_what_must_not_be_trained_on_is_the_question_with_its_answer(task: str, text: str) -> None:
    assert item_text(GOOD[task]) == text
