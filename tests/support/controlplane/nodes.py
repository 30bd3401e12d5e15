"""Builds Node objects: what a kubelet would declare when it registers. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any


def build_node(
    name: str,
    capacity: Mapping[str, str],
    labels: Mapping[str, str],
    taints: Sequence[str],
) -> dict[str, Any]:
    """Return a Ready node with this capacity, all of it allocatable.

    Args:
        name: of the node.
        capacity: resource names to quantities, such as {"cpu": "8", "nvidia.com/gpu": "4"}.
        labels: besides the host name, architecture and system.
        taints: written as kubectl writes them, `key=value:Effect` or `key:Effect`.
    """
    everyone = {"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
    resources = {"ephemeral-storage": "500Gi", "pods": "110", **capacity}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "declared by a test"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**everyone, **labels}},
        "spec": {"taints": [parse_taint(taint) for taint in taints]},
        "status": {"capacity": resources, "allocatable": resources, "conditions": [ready]},
    }


def parse_taint(text: str) -> dict[str, str]:
    """Return the taint that `key=value:Effect` or `key:Effect` stands for.

    Raises:
        ValueError: it has no effect.
    """
    head, colon, effect = text.rpartition(":")
    if not colon:
        raise ValueError(f"taint {text!r}: expected key=value:Effect, such as nvidia.com/gpu=present:NoSchedule")
    key, _, value = head.partition("=")
    return {"key": key, "value": value, "effect": effect}
