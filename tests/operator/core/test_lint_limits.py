"""The rules about what fits in the report of a pod: at the limit there is no finding, beyond it there is an error."""

from typing import Any

import pytest

from bessemer_operator.core.lint import errors
from tests.operator.core.test_lint import BANK, FORGETTING, POEMS, RELEASE, Case, axis, shown, spec_of


def many_data(count: int) -> dict[str, Any]:
    """So many data sets, and one bank."""
    return {"spec.data": {"poems": POEMS, **{f"d{n}": POEMS for n in range(1, count)}}}


def many_axes(count: int, gate: str) -> dict[str, Any]:
    """A gate on so many axes, all measured."""
    names = ["loss", *(f"loss{n}" for n in range(1, count))]
    tasks = {name: {"uri": f"s3://raw/{name}.jsonl"} for name in names}
    axes = [{"name": name, "task": "bitsPerByte"} for name in names]
    evaluation = {"banks": [{**BANK, "tasks": tasks}], "axes": axes}
    return {"spec.evaluation": evaluation, f"{gate}.axes": [axis(name) for name in names]}


CASES = (
    Case("thirty_data_sets_and_banks_can_be_reported", many_data(29)),
    Case(
        "more_than_thirty_data_sets_and_banks_can_not_be_reported",
        many_data(30),
        ("TooManySources at spec.data",),
        "31 data sets and banks: a pod can report the contents of 30",
    ),
    Case("eight_axes_against_a_stage_can_be_reported", many_axes(8, FORGETTING)),
    Case(
        "nine_axes_against_a_stage_can_not_be_reported",
        many_axes(9, FORGETTING),
        ("TooManyAxes at spec.gates[0].axes",),
        "9 axes against this baseline: a pod can report 8",
    ),
    Case("four_axes_against_a_channel_can_be_reported", many_axes(4, RELEASE)),
    Case(
        "five_axes_against_a_channel_can_not_be_reported",
        many_axes(5, RELEASE),
        ("TooManyAxes at spec.gates[1].axes",),
        "5 axes against a channel, whose anchors count too: a pod can report 4",
    ),
    Case(
        "four_axes_against_a_channel_and_one_against_a_stage_besides_can_be_reported",
        {**many_axes(4, RELEASE), f"{RELEASE}.alsoAgainst": {"pretrain": ["loss"]}},
    ),
    Case(
        "four_axes_against_a_channel_and_two_besides_can_not_be_reported",
        {**many_axes(4, RELEASE), f"{RELEASE}.alsoAgainst": {"pretrain": ["loss", "loss1"]}},
        ("TooManyAxes at spec.gates[1].axes",),
        "4 axes against a channel, whose anchors count too, and 2 further comparisons: a pod can report 3",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_a_pod_can_not_report_is_an_error(case: Case) -> None:
    findings = errors(spec_of(case))
    assert tuple(shown(finding) for finding in findings) == case.found
    assert case.message in "\n".join(map(str, findings))
