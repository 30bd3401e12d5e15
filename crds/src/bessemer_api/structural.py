"""Structural OpenAPI v3 schema of a pydantic model, as a Kubernetes CRD takes it.

Overrides what pydantic's generator emits, kind of type by kind of type, and then inlines `$ref` once. It must not
rewrite finished dictionaries by key name: a field of a model may itself be called `title` or `const`.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

Schema = dict[str, Any]

REF_PREFIX = "#/$defs/"
NULL = {"type": "null"}
_RULES = "x-kubernetes-validations"


def structural_schema(model: type[BaseModel]) -> Schema:
    """The schema of `model` without `$ref`. Raises ValueError for what no CRD can hold (recursion, unions)."""
    document = model.model_json_schema(by_alias=True, schema_generator=_Structural)
    definitions = document.pop("$defs", {})
    inlined: Schema = _inline(document, definitions, ())
    return inlined


class _Structural(GenerateJsonSchema):
    """pydantic's generator with the shapes that Kubernetes refuses replaced by those that it accepts."""

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        """Fields keep the order of the model."""
        return value

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - pydantic's signature
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """`X | None` is an optional X: absence is the only null."""
        return self.generate_inner(schema["schema"])

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        kinds = {str: "string", int: "integer"}
        return {"type": kinds[type(schema["expected"][0])], "enum": list(schema["expected"])}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Only scalar defaults: the server persists them, and a nested one would freeze today's defaults below it."""
        inner = self.generate_inner(schema["schema"])
        default = schema.get("default")
        return {**inner, "default": default} if isinstance(default, (str, int, float, bool)) else inner

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _boolean_exclusive({**super().int_schema(schema), "format": "int64"})

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _boolean_exclusive(super().float_schema(schema))

    def list_schema(self, schema: core_schema.ListSchema) -> JsonSchemaValue:
        return {"x-kubernetes-list-type": "atomic", **super().list_schema(schema)}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """A map. CEL can bound the length of its keys; a pattern over them would exceed the cost that CEL may have."""
        values = self.generate_inner(schema["values_schema"])
        result: JsonSchemaValue = {"type": "object", "additionalProperties": values}
        self.update_with_validations(result, schema, self.ValidationsMapping.object)
        longest = schema["keys_schema"].get("max_length")
        if longest is None:
            raise ValueError(f"a map needs keys with a maximum length: {schema}")
        rule = {"rule": f"self.all(k, k.size() <= {longest})", "message": f"a key has at most {longest} characters"}
        return {**result, "x-kubernetes-validations": [rule]}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """An object: closed by pruning instead of additionalProperties, with the CEL rules of the model."""
        dropped = {"title", "additionalProperties"}
        result = {key: value for key, value in super().model_schema(schema).items() if key not in dropped}
        rules = [{"rule": rule, "message": message} for rule, message in getattr(schema["cls"], "cel", ())]
        return {**result, "x-kubernetes-validations": rules} if rules else result

    def union_schema(self, schema: core_schema.UnionSchema) -> JsonSchemaValue:
        raise ValueError(f"a union is not structural: {schema['choices']}")


def _boolean_exclusive(schema: JsonSchemaValue) -> JsonSchemaValue:
    """OpenAPI v3.0 has a number and a flag where JSON Schema has one number.

    The API server truncates a bound to an integer before it compares an integer (`0` < 0.5 becomes 0 < 0), which does
    no harm to an inclusive maximum; any other fractional bound raises ValueError.
    """
    result = dict(schema)
    for name in ("minimum", "exclusiveMinimum", "exclusiveMaximum"):
        if result.get(name, 0) % 1:
            raise ValueError(f"the API server truncates the fractional bound {name}: {result[name]}")
    for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if flag in result:
            result |= {bound: result[flag], flag: True}
    return result


def _inline(node: Any, definitions: Schema, inside: tuple[str, ...]) -> Any:  # noqa: ANN401 - any JSON document
    """`node` with every `$ref` replaced by its definition; what stands beside the `$ref` wins, and rules add up."""
    if isinstance(node, list):
        return [_inline(item, definitions, inside) for item in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("description"), str):
        node = {"description": node["description"], **node}
    if isinstance(node.get("$ref"), str):
        name = node["$ref"].removeprefix(REF_PREFIX)
        if name in inside:
            raise ValueError(f"{name} contains itself; a CRD can not")
        beside = {key: value for key, value in node.items() if key != "$ref"}
        found = _inline(definitions[name], definitions, (*inside, name))
        rules = [*beside.get(_RULES, ()), *found.get(_RULES, ())]
        return {**beside, **found, **beside, **({_RULES: rules} if rules else {})}
    return {key: _inline(value, definitions, inside) for key, value in node.items()}
