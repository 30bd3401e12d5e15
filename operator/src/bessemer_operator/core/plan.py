"""What a reconcile sees and what it wants: plain values. Nothing here decides anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from bessemer_api.v1alpha1.evaluation import Evaluation, Progress
from bessemer_api.v1alpha1.merge import MergeJob
from bessemer_api.v1alpha1.stage import TrainingStage
from bessemer_operator.core.profile import Profile

Manifest = dict[str, Any]
"""A Kubernetes object as a JSON document."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Names one object; `uid` guards a deletion against a namesake."""

    kind: str
    namespace: str
    name: str
    uid: str = ""


Annotation = tuple[Ref, Mapping[str, str]]
"""Annotations that an object of the operator's own making shall carry."""


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event about the reconciled object."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that a decision may depend on, read before it.

    `jobs` holds attempts (Jobs and PyTorchJobs) and `pods` their pods, as JSON documents; `progress` what running
    pods say of themselves, by attempt name (display only, never evidence); `rivals` names other objects that do the
    same work right now, or are to start before this one. `workloads` holds, by the name of an attempt that a queue
    holds back, what Kueue says of it; None where it says nothing, and no entry where it could not be asked.
    """

    profiles: Mapping[str, Profile]
    stages: tuple[TrainingStage, ...] = ()
    merges: tuple[MergeJob, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    progress: Mapping[str, Progress] = field(default_factory=dict)
    rivals: tuple[str, ...] = ()
    workloads: Mapping[str, Manifest | None] = field(default_factory=dict)

    @property
    def work(self) -> tuple[TrainingStage | MergeJob, ...]:
        """Children that make an artifact which others are made from."""
        return (*self.stages, *self.merges)


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall be done, in this order: create, apply, annotate, write the status, delete, send the events.

    `create` holds attempts and their ConfigMaps: made once, adopted if they are there, never patched but for
    `annotate`, by which a report outlives its pod. `apply` holds
    our own kinds, written by server-side apply. `status` is the whole status.
    """

    status: Manifest
    create: tuple[Manifest, ...] = ()
    apply: tuple[Manifest, ...] = ()
    annotate: tuple[Annotation, ...] = ()
    delete: tuple[Ref, ...] = ()
    events: tuple[Event, ...] = ()
    requeue: timedelta | None = None
