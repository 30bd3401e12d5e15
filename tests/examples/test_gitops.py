"""examples/gitops: the pipeline lints, its git target is there, who acts is bound, addresses are named."""

from pathlib import Path
from typing import Any

import yaml

from bessemer_operator.cli.yamlfile import read_pipeline
from bessemer_operator.core.lint import lint

FOLDER = Path(__file__).parents[2] / "examples/gitops"
PIPELINE = FOLDER / "team/pipeline.yaml"


def read(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / path).read_text()))


def test_the_pipeline_lints_without_a_finding() -> None:
    assert lint(read_pipeline(str(PIPELINE))[0].spec) == ()


def test_the_git_target_is_a_scalar_of_the_manifest() -> None:
    ((pipeline,), (node,)) = read("team/pipeline.yaml"), read("deploy/service.yaml")
    (channel,) = pipeline["spec"]["promotion"]["channels"]
    for part in channel["git"]["key"].split("."):
        node = node[part]
    assert isinstance(node, str)


def test_git_declares_nothing_that_people_set_by_actions() -> None:
    (pipeline,) = read("team/pipeline.yaml")
    assert "suspend" not in pipeline["spec"] and "annotations" not in pipeline["metadata"]


def test_who_may_act_is_bound_where_the_application_is_applied() -> None:
    (application,), (binding, rbac) = read("platform/application.yaml"), read("platform/access.yaml")
    assert binding["metadata"]["namespace"] == application["spec"]["destination"]["namespace"]
    rules = [line.split(", ") for line in rbac["data"]["policy.csv"].splitlines()]
    name = f"{application['spec']['project']}/{application['metadata']['name']}"
    assert {rule[4] for rule in rules if rule[0] == "p"} == {name}
    acting = {rule[1] for rule in rules if rule[0] == "p" and rule[3].startswith("action/")}
    assert acting == {"role:release-owner"}


def test_the_addresses_to_fill_in_are_named_and_there() -> None:
    page = (FOLDER / "README.md").read_text()
    files = "".join(path.read_text() for path in FOLDER.glob("*/*.yaml"))
    for address in ("https://git.example.com/org/pipelines.git", "https://git.example.com/org/deploy.git"):
        assert address in page and address in files
    assert "s3://models" in page and "s3://datasets" in page
    rest = files.replace("s3://models", "").replace("s3://datasets", "")
    assert "s3://" not in rest
