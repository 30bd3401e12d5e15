"""What must hold after every fault, whatever it was: six oracles over the API server's own records."""

import json
from typing import Any

from tests.support.controlplane import ControlPlane
from tests.support.installation import ACCOUNT, NAMESPACE
from tests.support.world import lasting_name, plain

Obj = dict[str, Any]
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
KINDS = "adaptationpipelines,trainingstages,mergejobs,evaluations,jobs,pytorchjobs,configmaps"
OURS = {"AdaptationPipeline", "TrainingStage", "MergeJob", "Evaluation"}
CREATED = {"jobs", "pytorchjobs", "configmaps"}
READS = {"get", "list", "watch"}


def picture(plane: ControlPlane, space: str) -> dict[str, Any]:
    """(1) All objects of a namespace, without times, versions and uids: equal to those of the run without a fault.

    Of a Job only that it is there and how it ended: the rest of it is its controller's.
    """
    found = json.loads(plane.kubectl(["get", KINDS, "-n", space, "-o", "json"]))["items"]
    shown: dict[str, Any] = {}
    for item in json.loads(json.dumps(found).replace(f'"{space}"', '"SPACE"')):
        if item["metadata"]["name"] == "kube-root-ca.crt":
            continue
        obj = plain(item)
        name = f"{item['kind']}/{lasting_name(item)}"
        assert name not in shown, f"two of {name}"
        shown[name] = _essence(obj) if obj["kind"] in OURS else "there"
    return shown


def _essence(obj: Obj) -> Obj:
    """Spec, labels and status; `reused` tells of the store, which a test may have filled before."""
    status = json.loads(json.dumps(obj.get("status", {})).replace('"reused": true', '"reused": false'))
    return {"spec": obj.get("spec"), "labels": obj.get("metadata", {}).get("labels"), "status": status}


def writes(plane: ControlPlane, space: str) -> list[Obj]:
    """What was changed in a namespace and by whom, in order; events and refused requests left out."""
    return [
        event
        for event in plane.audit_events()
        if event["verb"] not in READS
        and (event.get("objectRef") or {}).get("namespace") == space
        and event["objectRef"]["resource"] != "events"
        and event["responseStatus"]["code"] < 300
    ]


def by_operator(done: list[Obj]) -> list[Obj]:
    return [event for event in done if event["user"]["username"] == OPERATOR]


def twice_created(done: list[Obj]) -> list[tuple[str, str]]:
    """(2) Children that the operator created although it had created them before, and nobody had deleted them."""
    there: set[tuple[str, str]] = set()
    found = []
    for event in done:
        resource, name = event["objectRef"]["resource"], event["objectRef"].get("name", "")
        if event["verb"] == "deletecollection":
            there = {item for item in there if item[0] != resource}
        elif event["verb"] == "delete":
            there.discard((resource, name))
        elif event["verb"] == "create" and resource in CREATED and event["user"]["username"] == OPERATOR:
            found += [(resource, name)] if (resource, name) in there else []
            there.add((resource, name))
    return found


def forbidden(done: list[Obj]) -> list[str]:
    """(3) Statuses that say Promoted without a gate that passed."""
    found = []
    for event in done:
        if event["objectRef"]["resource"] != "adaptationpipelines" or "requestObject" not in event:
            continue
        conditions = (event["requestObject"].get("status") or {}).get("conditions") or []
        held = {item["type"]: item["status"] for item in conditions}
        if held.get("Promoted") == "True" and held.get("GatePassed") != "True":
            found.append(event["objectRef"]["name"])
    return found


def differences(found: Any, wanted: Any, at: str = "") -> list[str]:
    """Where two pictures differ, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(found.keys() | wanted.keys())
        return [text for key in keys for text in differences(found.get(key), wanted.get(key), f"{at}/{key}")]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = zip(found, wanted, strict=True)
        return [text for number, pair in enumerate(pairs) for text in differences(*pair, f"{at}/{number}")]
    return [] if found == wanted else [f"{at}: {found!r}, and without the fault {wanted!r}"]
