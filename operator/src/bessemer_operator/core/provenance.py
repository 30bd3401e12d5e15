"""What a candidate was made by, for its model card. Pure; it follows digests and not names."""

import re
from collections.abc import Mapping

from bessemer_api.digest import canonical_json
from bessemer_api.job import Made
from bessemer_api.v1alpha1.merge import MergeInputs
from bessemer_api.v1alpha1.stage import StageInputs
from bessemer_operator.core.lineage import Node, ancestors


def made_by(nodes: Mapping[str, Node], name: str) -> tuple[Made, ...]:
    """Every piece of work whose output went into that of `name`, and its own; each after what went into it.

    Followed by digests and not by names: what was only waited for, or compared with, made nothing. The order does not
    depend on that of the nodes: an API server sorts the keys that a file has in its author's order.
    """
    last_first = sorted(nodes.values(), key=lambda node: (len(ancestors(nodes, node.name)), node.name), reverse=True)
    makers = {node.output: node.name for node in last_first} | {nodes[name].output: name}
    depths: dict[str, int] = {}

    def depth(node: Node) -> int:
        """Length of the longest chain of work behind it."""
        if node.name not in depths:
            depths[node.name] = 0  # what made the same as a part of it may stand behind itself
            behind = {makers.get(digest, node.name) for digest in _digests(node.inputs)} - {node.name}
            depths[node.name] = max((depth(nodes[other]) + 1 for other in behind), default=0)
        return depths[node.name]

    depth(nodes[name])
    return tuple(_made(nodes[found]) for found in sorted(depths, key=lambda found: (depths[found], found)))


def _digests(inputs: StageInputs | MergeInputs | None) -> set[str]:
    """Every digest that stands in the inputs."""
    return set(re.findall(r"sha256:[0-9a-f]{64}", canonical_json(inputs.wire()).decode())) if inputs else set()


def _made(node: Node) -> Made:
    inputs = {"merge" if isinstance(node.inputs, MergeInputs) else "stage": node.inputs}
    return Made.model_validate({"name": node.name, "output": node.output, **inputs})
