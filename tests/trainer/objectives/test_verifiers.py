"""Rewards that a program can check: a table."""

from typing import Any

import pytest

from bessemer_trainer.errors import PermanentError
from bessemer_trainer.verifiers import check_row, verified_reward


@pytest.mark.parametrize(
    ("asked", "answer", "reward"),
    [
        pytest.param({"exact": "42"}, " 42\n", 1.0, id="exact looks at no space around"),
        pytest.param({"exact": ["42", "forty-two"]}, "forty-two", 1.0, id="exact takes one of several"),
        pytest.param({"exact": "42"}, "It is 42", 0.0, id="exact is exact"),
        pytest.param({"contains": ["iron", "nickel"]}, "iron and tin", 0.5, id="each text counts"),
        pytest.param({"avoids": "tin"}, "iron and tin", 0.0, id="a forbidden text"),
        pytest.param({"json": True}, '{"a": 1}', 1.0, id="valid JSON"),
        pytest.param({"json": True}, "{a: 1}", 0.0, id="invalid JSON"),
        pytest.param({"minWords": 2, "maxWords": 3}, "one two three four", 0.5, id="bounds count each"),
        pytest.param({"minCharacters": 1}, "  ", 0.0, id="nothing but space is empty"),
        pytest.param({"startsWith": "Yes", "endsWith": "."}, " Yes, it is. ", 1.0, id="starts and ends"),
    ],
)
def test_the_reward_is_the_share_of_checks_that_hold(asked: dict[str, Any], answer: str, reward: float) -> None:
    row = {"id": "1", "verify": asked}
    check_row(row)
    assert verified_reward(row, answer) == reward


@pytest.mark.parametrize(
    ("row", "said"),
    [
        pytest.param({"id": "7"}, "prompt 7: verify: names no check", id="no verifier"),
        pytest.param({"id": "7", "verify": {"matches": "x"}}, "prompt 7: verify.matches", id="unknown check"),
        pytest.param({"id": "7", "verify": {"maxWords": "few"}}, "verify.maxWords: 'few' is no number", id="no number"),
    ],
)
def test_a_row_that_can_not_be_verified_is_refused_by_name(row: dict[str, Any], said: str) -> None:
    with pytest.raises(PermanentError, match=said):
        check_row(row)
