"""The CRDs are what the models say, and nothing that a Kubernetes API server refuses or can not bound."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from ruamel.yaml import YAML

from bessemer_api.crdgen import build_crd, main, to_yaml
from bessemer_api.structural import structural_schema
from bessemer_api.v1alpha1 import KINDS
from bessemer_api.v1alpha1.evaluation import Evaluation

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    *("$ref", "$defs", "const", "title", "examples", "prefixItems", "propertyNames", "patternProperties"),
    *("anyOf", "oneOf", "allOf", "not", "discriminator", "uniqueItems", "nullable", "definitions", "id"),
}

Node = dict[str, Any]


def nodes(path: str, node: Node) -> Iterator[tuple[str, Node]]:
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from nodes(f"{path}.{name}", field)
    for inner, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if inner in node:
            yield from nodes(path + mark, node[inner])


def schema_of(kind: type[BaseModel]) -> Node:
    schema: Node = build_crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


EVERY_NODE = [
    pytest.param(path, node, id=path)
    for kind in KINDS
    for part in ("spec", "status")
    for path, node in nodes(f"{kind.__name__}.{part}", schema_of(kind)["properties"][part])
]


def test_the_committed_files_are_what_the_models_generate(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--check", str(ROOT / "crds")])
    assert (code, capsys.readouterr().err) == (0, "")


def test_check_names_missing_changed_and_left_over_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "crds"
    assert main([str(folder)]) == 0
    assert main(["--check", str(folder)]) == 0
    (folder / "bessemer.dev_evaluations.yaml").unlink()
    (folder / "bessemer.dev_mergejobs.yaml").write_text("{}")
    (folder / "old.yaml").write_text("{}")
    (tmp_path / "docs/reference/evaluation.md").write_text("")
    assert main(["--check", str(folder)]) == 1
    named = [Path(line.split()[0]).name for line in capsys.readouterr().err.splitlines()]
    assert sorted(named) == [
        "bessemer.dev_evaluations.yaml",
        "bessemer.dev_mergejobs.yaml",
        "evaluation.md",
        "old.yaml",
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_committed_file_reads_back_as_the_document(kind: type[BaseModel]) -> None:
    crd = build_crd(kind)
    path = ROOT / "crds" / f"bessemer.dev_{crd['spec']['names']['plural']}.yaml"
    assert YAML(typ="safe", pure=True).load(path) == crd


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_written_yaml_reads_back_in_both_versions_of_yaml(version: str) -> None:
    document = {
        "on": "yes",
        "a-b": [[1, [2]], {}, {"c": [], "d": 2e-5}],
        "e": "x: y # z\n\u00e9'\"",
        "f": None,
        "1e5": 1e300,
    }
    yaml = YAML(typ="safe", pure=True)
    yaml.version = version
    assert yaml.load(to_yaml(document)) == document


@pytest.mark.parametrize(("path", "node"), EVERY_NODE)
def test_a_field_is_structural_bounded_and_described(path: str, node: Node) -> None:
    assert not FORBIDDEN & node.keys()
    assert node["type"] in {"string", "integer", "number", "boolean", "object", "array"}
    if node["type"] == "string":
        assert "maxLength" in node or "enum" in node
    if node["type"] == "array":
        assert node["maxItems"] > 0 and node["x-kubernetes-list-type"] in {"atomic", "set", "map"}
    if node["type"] == "object":
        assert ("properties" in node) != ("maxProperties" in node and "additionalProperties" in node)
    assert isinstance(node.get("exclusiveMinimum", True), bool) and isinstance(node.get("exclusiveMaximum", True), bool)
    is_a_field = not path.endswith(("[]", "{}"))
    assert not is_a_field or node["description"].strip()


@pytest.mark.parametrize(("path", "node"), EVERY_NODE)
def test_only_scalars_have_defaults(path: str, node: Node) -> None:
    assert "default" not in node or node["type"] not in {"object", "array"}
    assert not ("default" in node and node["default"] is None)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_crd_has_status_columns_and_categories(kind: type[BaseModel]) -> None:
    crd = build_crd(kind)
    (version,) = crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    assert version["subresources"] == {"status": {}}
    assert [column["name"] for column in version["additionalPrinterColumns"]][-2:] == ["Ready", "Age"]
    assert crd["spec"]["names"]["categories"] == ["bessemer"]
    assert schema["required"] == ["spec"]
    assert schema["properties"]["metadata"] == {"type": "object"}
    conditions = schema["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: kind.__name__)
def test_inputs_are_immutable(kind: type[BaseModel]) -> None:
    spec = schema_of(kind)["properties"]["spec"]["properties"]
    for name in ("inputs", "inputDigest"):
        rule = {"rule": "self == oldSelf", "message": f"spec.{name} is immutable"}
        assert rule in spec[name]["x-kubernetes-validations"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_store_is_immutable(kind: type[BaseModel]) -> None:
    (rule,) = schema_of(kind)["properties"]["spec"]["properties"]["store"]["x-kubernetes-validations"]
    assert rule["rule"] == "self == oldSelf"
    assert rule["message"].startswith("spec.store is immutable: ")


def test_a_field_that_is_immutable_keeps_the_rules_of_its_model() -> None:
    inputs = schema_of(Evaluation)["properties"]["spec"]["properties"]["inputs"]
    assert [item["rule"] for item in inputs["x-kubernetes-validations"]] == ["self == oldSelf", "self.end > self.start"]


def test_an_optional_field_is_its_type_and_not_required() -> None:
    class Optional(BaseModel):
        title: Annotated[str, Field(max_length=3)] | None = Field(None, description="A field may be called title.")
        const: float = Field(description="Or const.", gt=0, lt=1)

    assert structural_schema(Optional) == {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 3, "description": "A field may be called title."},
            "const": {
                "type": "number",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
                "description": "Or const.",
            },
        },
        "required": ["const"],
    }


class Tree(BaseModel):
    branches: list["Tree"]


class Either(BaseModel):
    value: int | str


class Loose(BaseModel):
    values: dict[str, int]


class Half(BaseModel):
    share: Annotated[float, Field(lt=0.5)]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Tree, "contains itself"),
        (Either, "union is not structural"),
        (Loose, "keys with a maximum length"),
        (Half, "truncates"),
    ],
    ids=["recursion", "a_union", "a_map_with_unbounded_keys", "a_fractional_exclusive_bound"],
)
def test_what_no_crd_can_hold_is_refused(model: type[BaseModel], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        structural_schema(model)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_reference_page_has_every_field(kind: type[BaseModel]) -> None:
    page = (ROOT / "docs/reference" / f"{kind.__name__.lower()}.md").read_text()
    for part in ("spec", "status"):
        for path, node in nodes(part, schema_of(kind)["properties"][part]):
            if not path.endswith(("[]", "{}")):
                row = f"| `{path.replace('{}', '.<name>')}` |"
                assert row in page, row
                assert node["description"].replace("\n", " ") in page


def test_documents_are_plain_json() -> None:
    for kind in KINDS:
        assert json.loads(json.dumps(build_crd(kind), allow_nan=False)) == build_crd(kind)
