"""Rules over data sets that are derived from others. Pure.

As lint.py, of which this is a part. What a single data set can decide alone is checked by its model.
"""

from collections.abc import Iterator

from bessemer_api.v1alpha1.data import DERIVED
from bessemer_api.v1alpha1.pipeline import PipelineSpec
from bessemer_operator.core.findings import Finding, error, unknown
from bessemer_operator.core.lineage import ordered_data


def missing_parents(spec: PipelineSpec) -> Iterator[Finding]:
    """A set that is derived from none that there is."""
    for name, data in spec.data.items():
        if data.derive is not None and data.derive.from_ not in spec.data:
            path = ("spec", "data", name, "derive", "from")
            yield unknown(path, "data set", data.derive.from_, spec.data, "declare it in spec.data")


def data_findings(spec: PipelineSpec) -> Iterator[Finding]:
    """Cycles, and rules that read another kind; only where all references hold."""
    try:
        ordered_data(spec)
    except ValueError as cycle:
        yield error(("spec", "data"), "Cycle", str(cycle), "a derived set waits for its `from`; change one of them")
    yield from _wrong_parents(spec)


def _wrong_parents(spec: PipelineSpec) -> Iterator[Finding]:
    for name, data in spec.data.items():
        if data.derive is None:
            continue
        found, needed = spec.data[data.derive.from_].kind, DERIVED[data.derive.rule][0]
        if found != needed:
            message = f'{data.derive.rule} reads rows of kind {needed}, but "{data.derive.from_}" is of kind {found}'
            yield error(("spec", "data", name, "derive", "from"), "WrongKind", message, "name a set of that kind")
