"""`bessemer status` without a name: every pipeline of a namespace, or of all, a line each. Pure but for printing."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bessemer_operator.cli.problems import as_yaml, printable, printable_json
from bessemer_operator.cli.story import span
from bessemer_operator.cluster.clock import utc_now
from bessemer_operator.core import conditions as c

Json = dict[str, Any]
_RESOURCE = "adaptationpipeline.bessemer.dev"
_COLUMNS: Mapping[str, str] = {
    "STAGE": "currentStage",
    "PROGRESS": "progress",
    "GATE": "gate",
    "PROMOTED": "promoted",
}


def show(items: Iterable[Json], output: str, *, is_everywhere: bool) -> None:
    """Print these pipelines in the form that was asked for."""
    found = list(items)
    if output == "name":
        print("\n".join(name_of(item) for item in found))
    elif output in {"json", "yaml"}:
        document = {"apiVersion": "v1", "kind": "List", "items": found}
        print(printable_json(document) if output == "json" else as_yaml(document))
    else:
        table = _table(found, is_wide=output == "wide", is_everywhere=is_everywhere)
        Console(width=None if Console().is_terminal else 400).print(table)


def name_of(item: Json) -> str:
    """As `kubectl get -o name` writes it."""
    return printable(f"{_RESOURCE}/{item['metadata']['name']}")


def _table(items: list[Json], *, is_wide: bool, is_everywhere: bool) -> Table:
    titles = [*(["NAMESPACE"] if is_everywhere else []), "NAME", *_COLUMNS, "READY", "AGE"]
    table = Table(box=None, pad_edge=False, header_style="")
    for title in [*titles, *(["WHY"] if is_wide else [])]:
        table.add_column(title, no_wrap=True)
    now = utc_now()
    for item in items:
        status, metadata = item.get("status") or {}, item["metadata"]
        ready: Json = next((x for x in status.get("conditions") or [] if x["type"] == c.READY), {})
        words = [
            *([metadata["namespace"]] if is_everywhere else []),
            metadata["name"],
            *(status.get(key) or "" for key in _COLUMNS.values()),
            ready.get("status", ""),
            _age(metadata.get("creationTimestamp", ""), now),
            *([f"{ready.get('reason', '')}: {ready.get('message', '')}".strip(": ")] if is_wide else []),
        ]
        table.add_row(*(Text(printable(word)) for word in words))
    return table


def _age(created: str, now: datetime) -> str:
    return span(max(0, int((now - datetime.fromisoformat(created)).total_seconds()))) if created else ""
