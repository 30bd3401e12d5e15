"""Rules over data sets: what a set is derived from, and whether a stage can read rows of that kind. Pure.

As lint.py, of which this is a part. What a single data set can decide alone is checked by its model.
"""

from collections.abc import Iterator, Mapping

from bessemer_api.v1alpha1.data import DERIVED, DataKind
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_operator.core.findings import Finding, error, unknown
from bessemer_operator.core.lineage import ordered_data

_PAIRS: tuple[DataKind, ...] = ("preference",)
_KINDS: Mapping[str, tuple[DataKind, ...]] = {
    "sft": ("text", "messages", "promptCompletion"),
    "dpo": _PAIRS,
    "orpo": _PAIRS,
    "kto": _PAIRS,
    "reward": _PAIRS,
    "grpo": ("prompts",),
}
"""Kinds of rows that a method can read; a method that is not here reads the text of any kind."""


def missing_parents(spec: PipelineSpec) -> Iterator[Finding]:
    """A set that is derived from none that there is."""
    for name, data in spec.data.items():
        if data.derive is not None and data.derive.from_ not in spec.data:
            path = ("spec", "data", name, "derive", "from")
            yield unknown(path, "data set", data.derive.from_, spec.data, "declare it in spec.data")


def data_findings(spec: PipelineSpec) -> Iterator[Finding]:
    """Cycles and kinds; only where all references hold."""
    try:
        ordered_data(spec)
    except ValueError as cycle:
        yield error(("spec", "data"), "Cycle", str(cycle), "a derived set waits for its `from`; change one of them")
    yield from _wrong_parents(spec)
    yield from _wrong_kinds(spec)


def _wrong_parents(spec: PipelineSpec) -> Iterator[Finding]:
    for name, data in spec.data.items():
        if data.derive is None:
            continue
        found, needed = spec.data[data.derive.from_].kind, DERIVED[data.derive.rule][0]
        if found != needed:
            message = f'{data.derive.rule} reads rows of kind {needed}, but "{data.derive.from_}" is of kind {found}'
            yield error(("spec", "data", name, "derive", "from"), "WrongKind", message, "name a set of that kind")


def _wrong_kinds(spec: PipelineSpec) -> Iterator[Finding]:
    for index, stage in enumerate(spec.stages):
        kinds = _KINDS.get(stage.method)
        for place, entry in enumerate(stage.data.mixture):
            kind = spec.data[entry.ref].kind
            if kinds is not None and kind not in kinds:
                path = ("spec", "stages", index, "data", "mixture", place, "ref")
                message = f'{stage.method} reads rows of kind {" or ".join(kinds)}, but "{entry.ref}" is of kind {kind}'
                yield error(path, "WrongKind", message, "name a set of that kind, or set its `kind` if it is")
