"""Which pod goes to which node, on a local run. Pure. A real cluster has a real scheduler.

The rule: a pod fits where its node selector matches and its requests fit into what is left of the node, first node
first, oldest pod first. Pods of one job go together or not at all, so that two half-started jobs never wait for
each other for ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bessemer_operator.cluster import Invalid, Obj
from bessemer_operator.cluster.objects import controller_of, is_finished

Amounts = dict[str, float]

_UNITS = {
    **{"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18},
    **{"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60},
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?")


@dataclass(frozen=True, slots=True)
class Schedule:
    """`bind` has (pod, node name); `refuse` has (pod, why it waits)."""

    bind: tuple[tuple[Obj, str], ...]
    refuse: tuple[tuple[Obj, str], ...]


def schedule(pods: Sequence[Obj], nodes: Sequence[Obj]) -> Schedule:
    """Place every pod that has no node yet and can have one."""
    left = {node["metadata"]["name"]: _free(node, pods) for node in nodes}
    bind: list[tuple[Obj, str]] = []
    refuse: list[tuple[Obj, str]] = []
    for gang in _gangs(pods):
        wrong = _wrong(gang)
        if wrong:
            refuse.extend((pod, wrong) for pod in gang)
            continue
        trial = {name: dict(free) for name, free in left.items()}
        placed = [(pod, _place(pod, nodes, trial)) for pod in gang]
        if all(node is not None for _, node in placed):
            left = trial
            bind.extend((pod, node) for pod, node in placed if node is not None)
        else:
            refuse.extend((pod, _why(pod, nodes, left)) for pod in gang)
    return Schedule(tuple(bind), tuple(refuse))


def requests_of(pod: Obj) -> Amounts:
    """What a pod asks for: its containers' requests, or limits where there is no request."""
    total: Amounts = {"pods": 1.0}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        for name, amount in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items():
            total[name] = total.get(name, 0.0) + quantity(amount)
    return total


def quantity(text: object) -> float:
    """A Kubernetes quantity as a number. Raises Invalid."""
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        raise Invalid(f"{text!r} is not a quantity (such as 500m, 2 or 8Gi)")
    return float(found[1]) * _UNITS[found[2] or ""]


def _gangs(pods: Sequence[Obj]) -> list[list[Obj]]:
    gangs: dict[str, list[Obj]] = {}
    waiting = [pod for pod in pods if not pod["spec"].get("nodeName") and not is_finished(pod)]
    for pod in sorted(waiting, key=lambda pod: int(pod["metadata"]["resourceVersion"])):
        if "deletionTimestamp" not in pod["metadata"]:
            owner = controller_of(pod)
            is_gang = owner is not None and owner["kind"] == "PyTorchJob"
            gangs.setdefault(owner["uid"] if owner and is_gang else pod["metadata"]["uid"], []).append(pod)
    return list(gangs.values())


def _wrong(gang: Sequence[Obj]) -> str:
    """What is wrong with requests that can not be read, so that they hold up nobody else."""
    try:
        for pod in gang:
            requests_of(pod)
    except Invalid as error:
        return str(error)
    return ""


def _free(node: Obj, pods: Sequence[Obj]) -> Amounts:
    status = node.get("status") or {}
    free = {name: quantity(amount) for name, amount in (status.get("allocatable") or {}).items()}
    for pod in pods:
        if pod["spec"].get("nodeName") == node["metadata"]["name"] and not is_finished(pod):
            _take(free, requests_of(pod))
    return free


def _place(pod: Obj, nodes: Sequence[Obj], free: Mapping[str, Amounts]) -> str | None:
    needs = requests_of(pod)
    for node in nodes:
        name: str = node["metadata"]["name"]
        if _matches(pod, node) and not _short(needs, free[name]):
            _take(free[name], needs)
            return name
    return None


def _take(free: Amounts, needs: Amounts) -> None:
    for name, amount in needs.items():
        free[name] = free.get(name, 0.0) - amount


def _matches(pod: Obj, node: Obj) -> bool:
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in (pod["spec"].get("nodeSelector") or {}).items())


def _short(needs: Amounts, free: Amounts) -> list[str]:
    return [name for name, amount in needs.items() if amount > free.get(name, 0.0) + 1e-9]


def _why(pod: Obj, nodes: Sequence[Obj], free: Mapping[str, Amounts]) -> str:
    """As the scheduler words it: how many nodes fail for which reason."""
    if not nodes:
        return "no nodes available to schedule pods"
    reasons: dict[str, int] = {}
    for node in nodes:
        short = _short(requests_of(pod), free[node["metadata"]["name"]])
        selector = ["node(s) didn't match Pod's node affinity/selector"]
        for reason in [f"Insufficient {name}" for name in short] if _matches(pod, node) else selector:
            reasons[reason] = reasons.get(reason, 0) + 1
    if not reasons:
        return f"0/{len(nodes)} nodes are available: not all pods of this job fit at once."
    parts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f"0/{len(nodes)} nodes are available: {parts}."
