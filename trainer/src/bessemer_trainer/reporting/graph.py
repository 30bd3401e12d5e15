"""A lineage as a figure: one node a row, lanes on the left, as version control draws history. Pure: nodes to SVG.

An output keeps its lane until the last node that reads it, so no line runs through a node that it does not concern.
One row a node reads on a phone, whatever the number of branches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bessemer_trainer.reporting.svg import circle, path, svg, text

_ROW, _LANE, _LEFT, _TOP, _WIDTH = 42, 15, 12, 20, 360
LANE_COLOURS = 6


@dataclass(frozen=True, slots=True)
class Node:
    """One row: `kind` gives its shape (data, stage, merge, gate, channel), `tone` its colour."""

    key: str
    name: str
    note: str
    kind: str
    tone: str
    sources: tuple[str, ...] = ()


def in_order(nodes: Sequence[Node]) -> list[Node]:
    """Every node after those that it reads; otherwise as they come. What is in a cycle keeps its place."""
    by_key = {node.key: node for node in nodes}
    done: dict[str, Node] = {}

    def visit(node: Node, path_: tuple[str, ...]) -> None:
        if node.key in done or node.key in path_:
            return
        for source in node.sources:
            if source in by_key:
                visit(by_key[source], (*path_, node.key))
        done[node.key] = node

    for node in nodes:
        visit(node, ())
    return list(done.values())


def lanes(nodes: Sequence[Node]) -> dict[str, int]:
    """The lane of every node. A node takes over the lane of what it is the last to read, else the first free one."""
    last = {source: row for row, node in enumerate(nodes) for source in node.sources}
    found: dict[str, int] = {}
    free_from: list[int] = []  # by lane: the row from which it is free
    for row, node in enumerate(nodes):
        ending = [found[s] for s in node.sources if s in found and last[s] == row]
        free = [lane for lane, start in enumerate(free_from) if start <= row]
        lane = min(ending or free or [len(free_from)])
        if lane == len(free_from):
            free_from.append(0)
        found[node.key] = lane
        free_from[lane] = last.get(node.key, row) + 1
    return found


def draw(nodes: Sequence[Node]) -> Markup:
    """The figure. `nodes` in an order in which each stands below what it reads."""
    lane, row = lanes(nodes), {node.key: i for i, node in enumerate(nodes)}
    left = _LEFT + (max(lane.values()) + 1) * _LANE
    edges = [
        _edge((lane[source], row[source]), (lane[node.key], row[node.key]))
        for node in nodes
        for source in dict.fromkeys(node.sources)
        if source in row and row[source] < row[node.key]
    ]
    marks = [mark for node in nodes for mark in _row(node, _at(lane[node.key], row[node.key]), left)]
    height = _TOP + len(nodes) * _ROW - 10
    return svg(max(_WIDTH, left + 240), height, _words(nodes), [*edges, *marks], "lineage")


def _at(lane: int, row: int) -> tuple[float, float]:
    return (_LEFT + lane * _LANE, _TOP + row * _ROW)


def _edge(start: tuple[int, int], end: tuple[int, int]) -> Markup:
    """Down its own lane to just above the reader, then over to it."""
    (x0, y0), (x1, y1) = _at(*start), _at(*end)
    bend = y1 - _ROW * 0.85
    data = f"M{x0:g} {y0:g} L{x0:g} {bend:g} C{x0:g} {y1 - 12:g} {x1:g} {y1 - 24:g} {x1:g} {y1:g}"
    return path(f"edge lane{start[0] % LANE_COLOURS}", data)


def _row(node: Node, at: tuple[float, float], left: float) -> list[Markup]:
    x, y = at
    name = text("name", (left, y + 1), _cut(node.name, 34), "start")
    note = text("tick", (left, y + 15), _cut(node.note, 46), "start")
    return [_shape(node, x, y), name, note]


def _shape(node: Node, x: float, y: float) -> Markup:
    kind = f"node {node.tone}"
    if node.kind == "data":
        return path(kind, f"M{x - 5.5:g} {y - 5.5:g} h11 v11 h-11 z")
    if node.kind == "gate":
        return path(kind, f"M{x:g} {y - 8:g} l8 8 l-8 8 l-8 -8 z")
    if node.kind == "channel":
        return path(kind, f"M{x - 7:g} {y + 6:g} l7 -13 l7 13 z")
    if node.kind == "merge":
        return circle(kind, (x, y), 6.5) + circle("eye", (x, y), 2.5)
    return circle(kind, (x, y), 6.5)


def _cut(words: str, longest: int) -> str:
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def _words(nodes: Sequence[Node]) -> str:
    names: Mapping[str, str] = {node.key: node.name for node in nodes}
    made = [
        f"{node.name} from {', '.join(names[s] for s in dict.fromkeys(node.sources) if s in names)}"
        for node in nodes
        if any(s in names for s in node.sources)
    ]
    return f"Lineage of {len(nodes)} steps: {'; '.join(made)}"
