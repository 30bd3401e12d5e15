"""Pages of docs/methods show the stages of examples/instructions as they stand there; the example has no finding."""

from pathlib import Path

import pytest

from tests.examples.pages import assert_shown, assert_without_a_finding, make_data, sources_of

EXAMPLE = "instructions"


@pytest.mark.parametrize("method", ["tokenizer", "pretrain", "cpt", "sft"])
def test_a_page_shows_the_stage_that_the_example_runs(method: str) -> None:
    assert_shown(EXAMPLE, method)


def test_the_example_is_a_pipeline_without_a_finding() -> None:
    assert_without_a_finding(EXAMPLE)


def test_the_data_are_what_the_pipeline_reads(tmp_path: Path) -> None:
    assert make_data(EXAMPLE, tmp_path) == sources_of(EXAMPLE)
