"""The rules of kstatus (sigs.k8s.io/cli-utils) for custom resources, by which Flux and kubectl tools tell health."""

from typing import Any


def kstatus(obj: Any) -> str:
    """InProgress, Failed, Current or Terminating. An object without a status or conditions counts as Current."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = obj.get("status") or {}
    held = {item["type"]: item["status"] for item in status.get("conditions") or []}
    observed = status.get("observedGeneration")
    if observed is not None and observed != obj["metadata"].get("generation"):
        return "InProgress"
    if held.get("Stalled") == "True":
        return "Failed"
    if held.get("Reconciling") == "True":
        return "InProgress"
    return "Current" if held.get("Ready", "True") == "True" else "InProgress"
