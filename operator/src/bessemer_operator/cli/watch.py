"""`bessemer watch`: a pipeline as a live tree until it has settled. On a pipe: a line for each piece of news.

It only looks; closing it changes nothing.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from rich.console import Console
from rich.live import Live

from bessemer_operator.cli.problems import EXIT_NOT_FOUND, UserError
from bessemer_operator.cli.run import LineScreen
from bessemer_operator.cli.story import newest_losses, outcome
from bessemer_operator.cli.target import KIND, Target, as_pipeline, opened
from bessemer_operator.cli.tree import tree
from bessemer_operator.cluster.follow import follow
from bessemer_operator.cluster.protocol import Cluster
from bessemer_operator.local import is_settled

Json = dict[str, Any]
CHILDREN = ("TrainingStage", "MergeJob", "Evaluation")


class Seen:
    """The newest version of a pipeline and of its children."""

    def __init__(self, pipeline: Json) -> None:
        self.pipeline = pipeline
        self._children: dict[str, Json] = {}

    def take(self, event_type: str, obj: Json) -> bool:
        """Take one event in; whether it is about this pipeline. A BOOKMARK is about nothing."""
        metadata = obj["metadata"]
        if event_type == "BOOKMARK":
            return False
        if obj["kind"] == KIND:
            is_it = bool(metadata["name"] == self.pipeline["metadata"]["name"])
            if is_it and event_type == "DELETED":
                raise UserError(f"{metadata['name']} was deleted.", EXIT_NOT_FOUND)
            self.pipeline = obj if is_it else self.pipeline
            return is_it
        uid = self.pipeline["metadata"]["uid"]
        if not any(owner["uid"] == uid for owner in metadata.get("ownerReferences") or []):
            return False
        if event_type == "DELETED":
            self._children.pop(metadata["uid"], None)
        else:
            self._children[metadata["uid"]] = obj
        return True

    @property
    def children(self) -> list[Json]:
        """What the pipeline is made of now: what an edit left behind is not shown."""
        rows = {row.get("object") for row in (self.pipeline.get("status") or {}).get("stages") or []}
        return [item for item in self._children.values() if item["kind"] == "Evaluation" or _name(item) in rows]

    @property
    def losses(self) -> dict[str, float]:
        """Newest loss by stage."""
        rows = {row.get("object"): row["name"] for row in (self.pipeline.get("status") or {}).get("stages") or []}
        running = [item for item in self.children if (item.get("status") or {}).get("phase") == "Running"]
        told = [
            (rows.get(_name(item)), (item["status"].get("progress") or {}).get("metrics") or {}) for item in running
        ]
        return newest_losses((name, metrics) for name, metrics in told if name is not None)


def _name(item: Json) -> str:
    return str(item["metadata"]["name"])


async def watch(target: Target) -> int:
    """Show the pipeline until it has settled; the exit code says how."""
    async with opened(target) as cluster:
        seen = Seen(await cluster.get(target.ref))
        for kind in CHILDREN:
            for item in (await cluster.list(kind, target.ref.namespace)).items:
                seen.take("ADDED", item)
        console = Console()
        await (_draw(cluster, target, seen, console) if console.is_terminal else _tell(cluster, target, seen))
    pipeline = as_pipeline(seen.pipeline)
    if console.is_terminal:
        console.print(tree(pipeline, seen.children))
    else:
        print(outcome(pipeline).sentence)
    return outcome(pipeline).code


async def _draw(cluster: Cluster, target: Target, seen: Seen, console: Console) -> None:
    with Live(tree(as_pipeline(seen.pipeline), seen.children), console=console, transient=True) as live:
        async for _ in _changes(cluster, target, seen):
            live.update(tree(as_pipeline(seen.pipeline), seen.children))


async def _tell(cluster: Cluster, target: Target, seen: Seen) -> None:
    screen = LineScreen()
    screen.show(as_pipeline(seen.pipeline), seen.losses)
    async for kind in _changes(cluster, target, seen):
        if kind == KIND:
            screen.show(as_pipeline(seen.pipeline), seen.losses)


async def _changes(cluster: Cluster, target: Target, seen: Seen) -> AsyncIterator[str]:
    """The kind of each object that changed, until the pipeline has settled."""
    if is_settled(seen.pipeline):
        return
    async with aclosing(follow(cluster, (KIND, *CHILDREN), target.ref.namespace)) as events:
        async for event in events:
            if seen.take(event.type, event.obj):
                yield event.obj["kind"]
            if is_settled(seen.pipeline):
                return
