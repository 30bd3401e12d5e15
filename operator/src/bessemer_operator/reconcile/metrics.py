"""What Prometheus scrapes of the operator. It only counts: nothing reads these numbers back."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bessemer_api.v1alpha1.merge import MergeMethod
from bessemer_api.v1alpha1.stage import StageMethod
from bessemer_operator.core.plan import Plan
from bessemer_operator.reconcile.cache import Key, Obj
from bessemer_operator.reconcile.gauges import Objects

OUTCOMES = ("Succeeded", "Failed", "Preempted")
_HOUR = 3600.0
_STAGE_BUCKETS = (10.0, 60.0, 300.0, 900.0, _HOUR, 4 * _HOUR, 12 * _HOUR, 24 * _HOUR, 72 * _HOUR, 240 * _HOUR)
_SHORT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All metrics of one operator process."""

    def __init__(self, objects: Objects, version: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self._clock = clock
        self._ended: dict[str, float] = {}
        self.registry.register(objects)
        at = self.registry
        self.stage_duration = Histogram(
            "bessemer_stage_duration_seconds",
            "From the first attempt of a stage to its end.",
            ["method"],
            buckets=_STAGE_BUCKETS,
            registry=at,
        )
        self.handoff = Histogram(
            "bessemer_stage_handoff_seconds",
            "From the end of a piece of work to the start of what waited for it.",
            buckets=_SHORT_BUCKETS,
            registry=at,
        )
        self.gates = Counter("bessemer_gate_decisions", "Verdicts of gates.", ["gate", "verdict"], registry=at)
        self.promotions = Counter("bessemer_promotions", "Checkpoints promoted.", registry=at)
        self.attempts = Counter("bessemer_attempts", "Attempts that ended.", ["outcome"], registry=at)
        for outcome in OUTCOMES:  # a counter that begins at 1 would hide the first one from rate() and increase()
            self.attempts.labels(outcome)
        for method in (*get_args(StageMethod), *get_args(MergeMethod)):
            self.stage_duration.labels(method)
        self.preemptions = Counter("bessemer_preemptions", "Preemptions of attempts.", registry=at)
        self.requests = Counter(
            "bessemer_api_requests", "Requests to the API server.", ["verb", "resource", "code"], registry=at
        )
        self.reconciles = Histogram(
            "bessemer_reconcile_seconds",
            "Length of a reconcile.",
            ["kind", "outcome"],
            buckets=_SHORT_BUCKETS,
            registry=at,
        )
        Gauge("bessemer_build_info", "Version of the operator.", ["version"], registry=at).labels(version).set(1)

    def watch_queue(self, depth: Callable[[], float]) -> None:
        """Show the length of the work queue."""
        gauge = Gauge("bessemer_queue_depth", "Objects that are due or being worked on.", registry=self.registry)
        gauge.set_function(depth)

    def watch_lease(self, is_held: Callable[[], bool]) -> None:
        """Show whether this process is the one that works."""
        gauge = Gauge("bessemer_lease_held", "1 in the operator process that holds the Lease.", registry=self.registry)
        gauge.set_function(lambda: float(is_held()))

    def request(self, verb: str, resource: str, code: int) -> None:
        """A request to the API server was answered (code 0: it was not)."""
        self.requests.labels(verb, resource, str(code)).inc()

    def reconciled(self, key: Key, seconds: float, outcome: str) -> None:
        """A reconcile ended."""
        self.reconciles.labels(key.kind, outcome).observe(seconds)

    def planned(self, obj: Obj, plan: Plan) -> None:
        """Count what changed between the status that was seen and the one that was written."""
        before, after = obj.get("status") or {}, plan.status
        if obj["kind"] == "AdaptationPipeline":
            self._pipeline(obj, before, after, plan)
        else:
            self._work(obj, before, after)

    def _pipeline(self, obj: Obj, before: Obj, after: Obj, plan: Plan) -> None:
        known = {
            item["name"]: (item["verdict"], item.get("candidate"), item["look"]) for item in before.get("gates") or []
        }
        for item in after.get("gates") or []:
            is_new = known.get(item["name"]) != (item["verdict"], item.get("candidate"), item["look"])
            if item["verdict"] != "Pending" and is_new:
                self.gates.labels(item["name"], item["verdict"]).inc()
        done = {"Promoted", "PromotedByOverride"}
        if _reason(after, "Promoted") in done and _reason(before, "Promoted") not in done:
            self.promotions.inc()
        ended = self._ended.pop(obj["metadata"].get("uid", ""), None) if plan.create or plan.apply else None
        if ended is not None:
            self.handoff.observe(self._clock() - ended)

    def _work(self, obj: Obj, before: Obj, after: Obj) -> None:
        known = {item["number"]: item["outcome"] for item in before.get("attempts") or []}
        for item in after.get("attempts") or []:
            if item["outcome"] != "Running" and known.get(item["number"]) != item["outcome"]:
                self.attempts.labels(item["outcome"]).inc()
        self.preemptions.inc(max(0, after.get("preemptions", 0) - before.get("preemptions", 0)))
        if after.get("phase") == "Succeeded" and before.get("phase") != "Succeeded":
            for owner in obj["metadata"].get("ownerReferences") or []:
                self._ended[owner["uid"]] = self._clock()
            if obj["kind"] in {"TrainingStage", "MergeJob"}:
                self.stage_duration.labels(obj["spec"]["inputs"]["method"]).observe(_seconds(after["attempts"]))

    def render(self) -> bytes:
        """The text that a scrape gets."""
        return generate_latest(self.registry)


def _reason(status: Obj, kind: str) -> str:
    return next((item["reason"] for item in status.get("conditions") or [] if item["type"] == kind), "")


def _seconds(attempts: list[dict[str, Any]]) -> float:
    """From the start of the first attempt to the end of the last one."""
    first, last = attempts[0].get("startedAt"), attempts[-1].get("finishedAt")
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds() if first and last else 0.0
