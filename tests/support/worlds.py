"""What a pipeline left behind, so that two worlds can be compared: what it decided, and every byte that it stored.

It must not know which world it looks at, and it starts nothing.
"""

import json
from pathlib import Path
from typing import Any

from tests.support.localrun import Obj, conditions_of, summary_of

OWN = {"at", "pipeline"}
"""When and in which namespace: of what the store keeps for good, all that two runs of the same work do not share."""


def decided(pipeline: Obj) -> dict[str, Any]:
    """Identities, artifacts, who was nominated and why, verdicts with their numbers, channels, conditions."""
    status = pipeline["status"]
    shown = {name: status.get(name) for name in ("candidates", "nomination", "merges")}
    return {**summary_of(pipeline), **shown, "conditions": conditions_of(pipeline)}


def artifacts(store: Path) -> dict[str, bytes]:
    """Every file of every artifact. Each is determined by what it was made from, bit for bit."""
    folder = store / "artifacts"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kinds(store: Path) -> set[str]:
    """The kinds of artifacts that there are."""
    found = (store / "artifacts").glob("*/manifest.json")
    return {json.loads(path.read_bytes())["kind"] for path in found}


def results(store: Path) -> dict[str, str]:
    """What each piece of work made, by the digest of its inputs."""
    return {
        path.parent.name: json.loads(path.read_bytes())["output"] for path in (store / "runs").glob("*/result.json")
    }


def losses(store: Path) -> dict[str, list[tuple[int, float]]]:
    """The loss of each logged step, by run."""
    found = {}
    for path in (store / "runs").glob("*/metrics.jsonl"):
        lines = (json.loads(line) for line in path.read_text().splitlines())
        found[path.parent.name] = [(line["step"], line["loss"]) for line in lines]
    return found


def channel_files(store: Path) -> dict[str, Obj]:
    """Records and tries, without when and where they were made."""
    folder = store / "channels"
    read = {str(path.relative_to(folder)): json.loads(path.read_bytes()) for path in folder.rglob("*.json")}
    return {name: {key: value for key, value in row.items() if key not in OWN} for name, row in read.items()}
