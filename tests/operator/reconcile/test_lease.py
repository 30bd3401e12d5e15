"""One operator writes: who holds the lease, when another takes over, and what a holder that slept may still do."""

from pathlib import Path

import pytest

from bessemer_operator.cluster.local import LocalCluster
from bessemer_operator.cluster.protocol import Ref, Unavailable
from bessemer_operator.reconcile.lease import DURATION_SECONDS, LEASE_LABELS, RETRY_SECONDS, TRUST_SECONDS, Lease

REF = Ref("Lease", "bessemer-operator", "system")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(tmp_path: Path) -> LocalCluster:
    return LocalCluster(tmp_path)


async def test_the_first_one_gets_it_and_the_second_one_waits(cluster: LocalCluster, clock: Clock) -> None:
    first, second = Lease(cluster, REF, "a", clock), Lease(cluster, REF, "b", clock)
    assert [await first._attempt(), await second._attempt()] == [True, False]
    assert [first.is_held, second.is_held] == [True, False]
    first.guard("create", REF)
    with pytest.raises(Unavailable, match="does not hold Lease system/bessemer-operator"):
        second.guard("create", REF)


async def test_a_killed_holder_is_replaced_within_20_seconds(cluster: LocalCluster, clock: Clock) -> None:
    first, second = Lease(cluster, REF, "a", clock), Lease(cluster, REF, "b", clock)
    await first._attempt()
    while not await second._attempt():
        clock.now += RETRY_SECONDS
    assert DURATION_SECONDS <= clock.now <= 20
    assert not first.is_held


async def test_a_holder_that_was_stopped_does_not_write_when_it_wakes(cluster: LocalCluster, clock: Clock) -> None:
    first, second = Lease(cluster, REF, "a", clock), Lease(cluster, REF, "b", clock)
    await first._attempt()
    await second._attempt()
    clock.now += DURATION_SECONDS + 1
    assert await second._attempt()
    with pytest.raises(Unavailable):
        first.guard("applyStatus", REF)
    assert not await first._attempt()


async def test_a_holder_stops_believing_in_it_before_the_others_may_take_it(
    cluster: LocalCluster, clock: Clock
) -> None:
    first = Lease(cluster, REF, "a", clock)
    await first._attempt()
    clock.now += TRUST_SECONDS
    assert not first.is_held
    assert TRUST_SECONDS < DURATION_SECONDS


async def test_a_holder_that_renews_keeps_it(cluster: LocalCluster, clock: Clock) -> None:
    first, second = Lease(cluster, REF, "a", clock), Lease(cluster, REF, "b", clock)
    for _ in range(20):
        assert await first._attempt()
        assert not await second._attempt()
        clock.now += 5
    spec = (await cluster.get(REF))["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("a", 1)


async def test_a_released_lease_is_free_at_once(cluster: LocalCluster, clock: Clock) -> None:
    first, second = Lease(cluster, REF, "a", clock), Lease(cluster, REF, "b", clock)
    await first._attempt()
    await first.release()
    assert not first.is_held
    assert await second._attempt()


async def test_a_restarted_pod_of_the_same_name_need_not_wait(cluster: LocalCluster, clock: Clock) -> None:
    await Lease(cluster, REF, "pod-0", clock)._attempt()
    assert await Lease(cluster, REF, "pod-0", clock)._attempt()


async def test_of_two_that_take_over_at_once_one_gets_it(cluster: LocalCluster, clock: Clock) -> None:
    await Lease(cluster, REF, "dead", clock)._attempt()
    rivals = [Lease(cluster, REF, name, clock) for name in "ab"]
    for rival in rivals:
        await rival._attempt()
    clock.now += DURATION_SECONDS
    assert sorted([await rival._attempt() for rival in rivals]) == [False, True]


async def test_an_api_server_that_is_gone_is_no_lease(cluster: LocalCluster, clock: Clock) -> None:
    first = Lease(cluster, REF, "a", clock)
    await first._attempt()

    async def gone(ref: Ref) -> None:
        raise Unavailable("connection refused")

    cluster.get = gone  # type: ignore[assignment, method-assign]
    assert not await first._attempt()
    assert first.is_held
    clock.now += TRUST_SECONDS
    await first.keep()
    assert not first.is_held


async def test_a_lease_without_our_label_gets_it_and_keeps_its_own(cluster: LocalCluster, clock: Clock) -> None:
    """One that an older version made, or a person: doctor finds it by its label."""
    metadata = {"name": REF.name, "namespace": REF.namespace, "labels": {"team": "platform"}}
    await cluster.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}})
    assert await Lease(cluster, REF, "a", clock)._attempt()
    assert (await cluster.get(REF))["metadata"]["labels"] == {"team": "platform", **LEASE_LABELS}
