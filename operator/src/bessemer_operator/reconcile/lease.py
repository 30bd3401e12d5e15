"""A Lease that one operator holds, so that a second one waits. It is a guard, not a fence.

A Lease can not stop a write that is under way; what makes a second writer harmless is that attempts are created once
by name and that status writes carry a precondition. Times are compared on this host's monotonic clock only.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from bessemer_operator.cluster.clock import utc_now
from bessemer_operator.cluster.protocol import (
    AlreadyExists,
    Cluster,
    ClusterError,
    Conflict,
    NotFound,
    Ref,
    Unavailable,
)

log = logging.getLogger("bessemer")
DURATION_SECONDS = 15
RENEW_SECONDS = 4.0
RETRY_SECONDS = 2.0
TRUST_SECONDS = 11.0
"""How long after a renewal was sent the holder believes in it: less than the others wait."""

LEASE_LABELS: Mapping[str, str] = {"app.kubernetes.io/name": "bessemer-operator"}
"""By which `bessemer doctor` finds it: its name follows the name of the chart's release."""


class Lease:
    """One Lease object, as seen by `identity`."""

    def __init__(
        self,
        cluster: Cluster,
        ref: Ref,
        identity: str,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._cluster, self._ref, self.identity = cluster, ref, identity
        self._monotonic, self._clock = monotonic, clock
        self._trusted_until = float("-inf")
        self._rival: tuple[Any, ...] = ()
        self._rival_since = 0.0

    @property
    def is_held(self) -> bool:
        """Whether this process may write now."""
        return self._monotonic() < self._trusted_until

    def guard(self, verb: str, ref: Ref) -> None:
        """Refuse a write that the lease does not cover. Raises Unavailable."""
        if not self.is_held:
            raise Unavailable(f"{verb} {ref} is not sent: this process does not hold {self._ref}")

    async def acquire(self) -> None:
        """Wait until the lease is held."""
        while not await self._attempt():
            await asyncio.sleep(RETRY_SECONDS)

    async def keep(self) -> None:
        """Renew the lease; returns when it is lost."""
        while self.is_held:
            await asyncio.sleep(RENEW_SECONDS)
            while self.is_held and not await self._attempt():
                await asyncio.sleep(RETRY_SECONDS)

    async def release(self) -> None:
        """Let go, so that the next one need not wait."""
        if not self.is_held:
            return
        self._trusted_until = float("-inf")
        try:
            found = await self._cluster.get(self._ref)
            if found["spec"].get("holderIdentity") == self.identity:
                spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._cluster.update({**found, "spec": spec})
        except ClusterError as error:
            log.warning("the lease %s was not released: %s", self._ref, error)

    async def _attempt(self) -> bool:
        """Take or renew the lease once; whether this process has it."""
        begun = self._monotonic()
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                is_ours = await self._write()
        except (ClusterError, TimeoutError) as error:
            if not isinstance(error, Conflict | AlreadyExists):
                log.warning("lease %s: %s: %s", self._ref, type(error).__name__, error)
            return False
        if is_ours:
            self._trusted_until = begun + TRUST_SECONDS
        return is_ours

    async def _write(self) -> bool:
        try:
            found = await self._cluster.get(self._ref)
        except NotFound:
            metadata = {"name": self._ref.name, "namespace": self._ref.namespace, "labels": dict(LEASE_LABELS)}
            new = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            await self._cluster.create({**new, "spec": self._spec({})})
            return True
        spec = found.get("spec") or {}
        if self._is_taken(spec):
            if self.is_held:
                self._trusted_until = float("-inf")
            return False
        labels = {**(found["metadata"].get("labels") or {}), **LEASE_LABELS}
        metadata = {**found["metadata"], "labels": labels}
        await self._cluster.update({**found, "metadata": metadata, "spec": self._spec(spec)})
        return True

    def _is_taken(self, spec: dict[str, Any]) -> bool:
        """Whether another one holds it and was seen to renew it within its own duration."""
        holder = spec.get("holderIdentity") or ""
        if holder in {"", self.identity}:
            return False
        record = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if record != self._rival:
            self._rival, self._rival_since = record, self._monotonic()
        duration = float(spec.get("leaseDurationSeconds") or DURATION_SECONDS)
        return self._monotonic() - self._rival_since < duration

    def _spec(self, before: dict[str, Any]) -> dict[str, Any]:
        now = self._clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_ours = before.get("holderIdentity") == self.identity
        transitions = int(before.get("leaseTransitions") or 0) + (0 if is_ours else 1)
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": before.get("acquireTime", now) if is_ours else now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
