"""What an API server with our CRDs does to an object of ours before it is stored: defaults, rules, immutability.

Pure. The same models that generate the CRDs decide here, so a local run refuses what a cluster refuses.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from bessemer_api.crdgen import build_crd
from bessemer_api.v1alpha1 import KINDS

from .protocol import Invalid, Json, Obj

_MODELS: dict[str, type[BaseModel]] = {kind.__name__: kind for kind in KINDS}
_IMMUTABLE = "self == oldSelf"


def admit(old: Obj | None, new: Obj) -> Obj:
    """`new` with the CRD's defaults; other kinds as they are. `old` is what is stored, None for a creation.

    Raises Invalid, naming each field that is wrong.
    """
    _check_immutable_data(old, new)
    model = _MODELS.get(new["kind"])
    if model is None:
        return new
    what = f'{new["kind"]} "{new["metadata"].get("name")}" is invalid'
    schema = _schema(new["kind"])
    found: Obj = _with_defaults(new, schema)
    try:
        model.model_validate(found)
    except ValidationError as error:
        raise Invalid(f"{what}: {_explain(error)}") from None
    changed = _changed(old, found, schema) if old is not None else ""
    if changed:
        raise Invalid(f"{what}: {changed}")
    return found


def _check_immutable_data(old: Obj | None, new: Obj) -> None:
    """A ConfigMap or Secret marked `immutable` keeps its data and the mark."""
    if old is None or new["kind"] not in ("ConfigMap", "Secret") or not old.get("immutable"):
        return
    for key in ("immutable", "data", "binaryData"):
        if old.get(key) != new.get(key):
            what = f'{new["kind"]} "{new["metadata"]["name"]}" is invalid'
            raise Invalid(f"{what}: {key}: Forbidden: field is immutable when `immutable` is set")


@cache
def _schema(kind: str) -> dict[str, Any]:
    version = build_crd(_MODELS[kind])["spec"]["versions"][0]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def _with_defaults(value: Json, schema: dict[str, Any]) -> Json:
    """Scalar defaults in every object that is there, as structural schemas do."""
    if isinstance(value, dict):
        properties: dict[str, Any] = schema.get("properties") or {}
        rest = schema.get("additionalProperties")
        below = rest if isinstance(rest, dict) else {}
        missing = {key: item["default"] for key, item in properties.items() if "default" in item and key not in value}
        return {**{key: _with_defaults(item, properties.get(key, below)) for key, item in value.items()}, **missing}
    if isinstance(value, list):
        return [_with_defaults(item, schema.get("items") or {}) for item in value]
    return value


def _changed(old: Json, new: Json, schema: dict[str, Any]) -> str:
    """The message of the first immutability rule that a write breaks; empty if none."""
    rules = schema.get("x-kubernetes-validations") or ()
    for rule in rules:
        if rule["rule"] == _IMMUTABLE and old != new:
            return str(rule["message"])
    if isinstance(old, dict) and isinstance(new, dict):
        for key, item in (schema.get("properties") or {}).items():
            if key in old and key in new:
                message = _changed(old[key], new[key], item)
                if message:
                    return message
    return ""


def _explain(error: ValidationError) -> str:
    parts = []
    for found in error.errors(include_url=False, include_context=False)[:8]:
        where = ".".join(str(part) for part in found["loc"])
        parts.append(f"{where}: {found['msg']}" if where else found["msg"])
    return "; ".join(parts)
