"""mergekit's document, built from typed fields: no text of a user gets into it but filters of tensor names."""

from collections.abc import Sequence
from typing import Any

from bessemer_api.v1alpha1.merge import TASK_METHODS, Interpolation, MergeInputs

PARENT, BASE = "parent-{}", "base"
"""Names of the folders that the document refers to, beside it."""
_METHODS = {"taskArithmetic": "task_arithmetic", "dareTies": "dare_ties"}
_FORMATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Document = dict[str, Any]


def build_document(inputs: MergeInputs, layers: int, dtype: str) -> Document:
    """The document for parents of `layers` layers whose weights have the number format `dtype` (as safetensors says).

    linear and slerp are computed in single precision whatever the weights are; for the other methods mergekit would
    compute differences in the format of the weights, so they are widened and rounded once at the end.
    """
    method = _method(inputs)
    sources = [
        {"model": PARENT.format(index), "layer_range": [0, layers], "parameters": _of_parent(inputs, method, index)}
        for index in range(len(inputs.parents))
    ]
    sources = [{key: value for key, value in source.items() if value != {}} for source in sources]
    if inputs.base is not None and method != "linear":
        sources.append({"model": BASE, "layer_range": [0, layers]})
    document: Document = {"merge_method": method, "slices": [{"sources": sources}]}
    if method == "slerp":
        document["base_model"] = PARENT.format(0)
    elif inputs.base is not None and method != "linear":
        document["base_model"] = BASE
    shared = _shared(inputs, method)
    if shared:
        document["parameters"] = shared
    if method not in {"linear", "slerp"}:
        document |= {"dtype": "float32", "out_dtype": _FORMATS[dtype]}
    return document


def _method(inputs: MergeInputs) -> str:
    """Task vectors are interpolated on the sphere by mergekit's nuslerp, which takes a base; slerp takes none."""
    if inputs.method == "slerp" and inputs.space == "taskVectors":
        return "nuslerp"
    return _METHODS.get(inputs.method, inputs.method)


def _of_parent(inputs: MergeInputs, method: str, index: int) -> Document:
    if method == "slerp":
        return {}
    if inputs.t is not None:
        return {"weight": _settings(inputs.t, first=index == 0)}
    weight = inputs.weights[index] if inputs.weights else 1.0
    return {"weight": weight} | ({"density": inputs.density} if inputs.density is not None else {})


def _shared(inputs: MergeInputs, method: str) -> Document:
    if method == "slerp":
        return {"t": _settings(inputs.t or [], first=False)}
    if method == "nuslerp":
        is_whole = inputs.granularity != "row"
        return {"nuslerp_flatten": is_whole, "nuslerp_row_wise": False}
    if inputs.method in TASK_METHODS:
        return {"lambda": 1.0 if inputs.lambda_ is None else inputs.lambda_, "normalize": inputs.method == "ties"}
    return {}


def _settings(entries: Sequence[Interpolation], *, first: bool) -> list[Document]:
    """Factors as mergekit reads them; for the first of two parents what is left of 1."""
    return [
        ({"filter": entry.filter} if entry.filter is not None else {})
        | {"value": [1 - value if first else value for value in entry.value]}
        for entry in entries
    ]
