"""Quality against quantity: the example is two branches that differ in their data alone, and one gate for both."""

from pathlib import Path

from bessemer_operator.cli.yamlfile import read_pipeline
from bessemer_operator.core.lineage import ordered_data
from bessemer_operator.core.lint import lint

EXAMPLE = Path(__file__).parents[2] / "examples/quality-or-quantity/pipeline.yaml"


def test_the_example_is_two_branches_on_one_gate_and_has_no_finding() -> None:
    spec = read_pipeline(str(EXAMPLE))[0].spec
    assert lint(spec) == ()
    assert spec.promotion and spec.promotion.candidates == ["all", "best"]
    one, two = spec.stages
    same = {"name": "", "data": one.data}
    assert one.model_copy(update=same) == two.model_copy(update=same)
    assert one.data != two.data
    assert one.train and one.train.max_tokens
    assert list(ordered_data(spec)) == ["everything", "good", "reading"]
