"""The local scheduler's rule, as a table: pods and nodes in, bindings and reasons out."""

from dataclasses import dataclass
from typing import Any

import pytest

from bessemer_operator.cluster import Invalid, Obj
from bessemer_operator.executor.schedule import quantity, schedule


@dataclass(frozen=True)
class Case:
    id: str
    pods: list[Obj]
    nodes: list[Obj]
    bind: dict[str, str]
    refuse: dict[str, str]


def node(name: str, cpu: str = "2", **labels: str) -> Obj:
    allocatable = {"cpu": cpu, "memory": "4Gi", "pods": "110"}
    return {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}}


def pod(name: str, cpu: str = "1", owner: str = "", **more: Any) -> Obj:
    """A pod; its number in the name is its age."""
    reference = {"kind": "PyTorchJob", "uid": owner, "controller": True}
    meta = {
        "name": name,
        "uid": name,
        "resourceVersion": name[-1],
        **({"ownerReferences": [reference]} if owner else {}),
    }
    spec = {"containers": [{"resources": {"requests": {"cpu": cpu}}}], **more.pop("spec", {})}
    return {"metadata": {**meta, **more.pop("meta", {})}, "spec": spec, "status": {"phase": "Pending", **more}}


FULL = "0/1 nodes are available: 1 Insufficient cpu."
CASES = [
    Case("a pod goes where it fits", [pod("p1")], [node("a")], {"p1": "a"}, {}),
    Case("the older pod goes first", [pod("p2"), pod("p1")], [node("a", "1")], {"p1": "a"}, {"p2": FULL}),
    Case("the next node takes what the first can not", [pod("p1"), pod("p2")], [node("a", "1"), node("b", "1")],
         {"p1": "a", "p2": "b"}, {}),
    Case("bound pods count", [pod("p1", "1500m", spec={"nodeName": "a"}), pod("p2")], [node("a")], {}, {"p2": FULL}),
    Case("finished pods do not count", [pod("p1", "2", spec={"nodeName": "a"}, phase="Failed"), pod("p2")], [node("a")],
         {"p2": "a"}, {}),
    Case("a pod larger than any node waits", [pod("p1", "3")], [node("a"), node("b")], {},
         {"p1": "0/2 nodes are available: 2 Insufficient cpu."}),
    Case("a selector must match", [pod("p1", spec={"nodeSelector": {"gpu": "h100"}})],
         [node("a"), node("b", gpu="l4")], {},
         {"p1": "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."}),
    Case("a selector that matches decides", [pod("p1", spec={"nodeSelector": {"gpu": "h100"}})],
         [node("a"), node("b", gpu="h100")], {"p1": "b"}, {}),
    Case("a resource that no node has is missing",
         [pod("p1", spec={"containers": [{"resources": {"limits": {"nvidia.com/gpu": 1}}}]})], [node("a")], {},
         {"p1": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}),
    Case("a gang goes together", [pod("p1", owner="j"), pod("p2", owner="j")], [node("a")],
         {"p1": "a", "p2": "a"}, {}),
    Case("half a gang takes nothing from others", [pod("p1", owner="j"), pod("p2", "2", owner="j"), pod("p3", "2")],
         [node("a")], {"p3": "a"},
         dict.fromkeys(("p1", "p2"), "0/1 nodes are available: not all pods of this job fit at once.")),
    Case("a pod that is being deleted stays unbound",
         [pod("p1", meta={"deletionTimestamp": "x"})], [node("a")], {}, {}),
    Case("requests that can not be read hold up nobody else", [pod("p1", "lots"), pod("p2")], [node("a")], {"p2": "a"},
         {"p1": "'lots' is not a quantity (such as 500m, 2 or 8Gi)"}),
    Case("without nodes nothing goes", [pod("p1")], [], {}, {"p1": "no nodes available to schedule pods"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_pods_are_placed(case: Case) -> None:
    found = schedule(case.pods, case.nodes)
    bind = {pod["metadata"]["name"]: node for pod, node in found.bind}
    refuse = {pod["metadata"]["name"]: why for pod, why in found.refuse}
    assert (bind, refuse) == (case.bind, case.refuse)


QUANTITIES = [("1", 1.0), ("500m", 0.5), ("1.5", 1.5), ("8Gi", 8 * 2.0**30), ("2k", 2000.0), ("1e3", 1000.0), (4, 4.0)]


@pytest.mark.parametrize(("text", "expected"), QUANTITIES)
def test_a_quantity_is_a_number(text: object, expected: float) -> None:
    assert quantity(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "x", "1GB", "-1", "1 Gi", "1..2"])
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is not a quantity"):
        quantity(text)
