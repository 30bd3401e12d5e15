"""Sentences for what pydantic refuses: what was wrong, what was expected, what to do. Pure."""

import json
from typing import Any, get_args

from pydantic import BaseModel

from bessemer_api.fields import DIGEST_PATTERN, NAME_PATTERN, AxisName, Duration, StoreUrl, Uri
from bessemer_api.structural import structural_schema
from bessemer_operator.core.findings import Path, nearest

Schema = dict[str, Any]
_WANTED = {"float": "a number", "int": "a whole number", "string": "text", "bool": "true or false", "list": "a list"}


def explain(model: type[BaseModel], error: dict[str, Any]) -> tuple[Path, str, str]:
    """Path, message and fix of one of pydantic's errors about a document of `model`."""
    path = tuple(part for part in error["loc"] if part != "[key]")
    schema = _schema_at(model, path)
    kind, value = str(error["type"]), error.get("input")
    if kind == "extra_forbidden":
        return path, f'there is no field "{path[-1]}"', _suggest(model, path)
    if kind == "missing":
        return path, "is required", _description(schema) or "add it"
    if kind == "value_error":
        return path, str(error["ctx"]["error"]), ""
    if kind == "literal_error":
        choices = schema.get("enum", [])
        return path, f"{_shown(value)} is not known here", nearest(str(value), map(str, choices))
    if kind == "string_pattern_mismatch":
        return path, f"{_shown(value)} has a form that is not allowed", _form(str(error["ctx"]["pattern"]))
    if kind.endswith("_type") or kind.startswith(("int_", "bool_", "model_")):
        return path, f"{_shown(value)} is not {_wanted(schema, kind)}", _retype(schema, value)
    return path, f"{_shown(value)}: {_lowered(error['msg'])}", _description(schema)


def _schema_at(model: type[BaseModel], path: Path) -> Schema:
    """Schema of the field at `path`; empty where there is none."""
    if not path or path[0] not in {"spec", "status"}:
        return {}
    field = model.model_fields[str(path[0])].annotation
    schema: Schema = structural_schema(field) if isinstance(field, type) and issubclass(field, BaseModel) else {}
    for part in path[1:]:
        inside = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
        schema = inside or schema.get("additionalProperties") or {}
    return schema


def _suggest(model: type[BaseModel], path: Path) -> str:
    fields = _schema_at(model, path[:-1]).get("properties", {})
    if len(path) == 1:
        fields = dict.fromkeys(("apiVersion", "kind", "metadata", "spec"))
    return nearest(str(path[-1]), fields)


def _description(schema: Schema) -> str:
    return _lowered(str(schema.get("description", "")).split(". ")[0])


def _form(pattern: str) -> str:
    words = {
        NAME_PATTERN: "expected lower-case letters, digits and hyphens, as in `release-bank`",
        DIGEST_PATTERN: "expected `sha256:` and 64 hexadecimal digits",
        _pattern(StoreUrl): "expected file:///absolute/folder or s3://bucket/prefix, without spaces",
        _pattern(Duration): "expected a duration such as 90s, 30m, 48h or 7d",
        _pattern(AxisName): "expected letters, digits and hyphens, beginning with a letter",
        _pattern(Uri): "expected a path, file:// or s3://, without spaces",
    }
    return words.get(pattern, f"expected the form {pattern}")


def _pattern(kind: Any) -> str:  # noqa: ANN401 - an annotated string
    (field,) = get_args(kind)[1:]
    return next(str(item.pattern) for item in field.metadata if getattr(item, "pattern", None))


def _wanted(schema: Schema, kind: str) -> str:
    shapes = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    shapes |= {"array": "a list", "object": "a mapping of fields"}
    return shapes.get(schema.get("type", "")) or _WANTED.get(kind.split("_", maxsplit=1)[0], "a mapping of fields")


def _retype(schema: Schema, value: Any) -> str:  # noqa: ANN401 - any JSON value
    wanted = schema.get("type")
    if isinstance(value, str) and wanted in {"number", "integer", "boolean"}:
        return "remove the quotes" if _is_number(value) or value in {"true", "false"} else _description(schema)
    if wanted == "string" and value is not None and not isinstance(value, (dict, list)):
        return "put it in quotes"
    if wanted == "array" and isinstance(value, dict):
        return "begin each item with `- `"
    return _description(schema)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """The value on one line, cut short."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".") if text[1:2].islower() else text.rstrip(".")
