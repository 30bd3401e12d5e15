"""The work queue: each key once, never twice at a time, back-off, and a rate per key. Time is an argument."""

import asyncio
import random

import pytest

from bessemer_operator.reconcile.queue import BURST, LONGEST_BACKOFF, Closed, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(clock, random.Random(0))


async def test_a_key_that_is_added_twice_is_handed_out_once(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("a")
    assert await queue.take() == "a"
    queue.done("a")
    assert len(queue) == 0
    assert queue.next_due() is None


async def test_a_key_that_a_worker_has_waits_until_it_is_given_back(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.take()
    queue.add("a")
    assert queue.has_news("a")
    assert len(queue) == 1
    queue.done("a")
    assert await queue.take() == "a"


async def test_keys_come_in_the_order_in_which_they_are_due(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add("late", 5)
    queue.add("soon", 1)
    queue.add("now")
    clock.now += 10
    assert [await queue.take() for _ in range(3)] == ["now", "soon", "late"]


async def test_an_earlier_time_replaces_a_later_one_and_not_the_reverse(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add("a", 50)
    queue.add("a", 5)
    queue.add("a", 90)
    assert queue.next_due() == clock.now + 5


async def test_failures_wait_longer_and_longer_up_to_a_minute_and_a_success_forgets_them(
    queue: WorkQueue[str], clock: Clock
) -> None:
    waits = []
    queue.add("a")
    for _ in range(40):
        clock.now = max(clock.now, queue.next_due() or 0.0)
        await queue.take()
        queue.done("a", failed=True)
        waits.append((queue.next_due() or 0.0) - clock.now)
    assert waits[0] < 0.2
    assert LONGEST_BACKOFF / 2 <= waits[-1] <= LONGEST_BACKOFF
    clock.now += 100
    await queue.take()
    queue.done("a")
    queue.add("a")
    await queue.take()
    queue.done("a", failed=True)
    assert (queue.next_due() or 0.0) - clock.now < 0.2


@pytest.mark.parametrize("is_busy", [False, True], ids=["flipped_while_idle", "flipped_while_busy"])
async def test_a_label_that_is_flipped_a_thousand_times_a_second_costs_one_reconcile_a_second(
    queue: WorkQueue[str], clock: Clock, is_busy: bool
) -> None:
    taken = 0
    for _ in range(100_000):
        clock.now += 0.001
        if not is_busy:
            queue.add("a")
        if (queue.next_due() or float("inf")) <= clock.now:
            await queue.take()
            taken += 1
            queue.add("a")
            queue.done("a")
    queue.add("a")
    assert taken <= BURST + 101


async def test_a_worker_that_waits_gets_a_key_that_is_added_later(queue: WorkQueue[str]) -> None:
    waiting = [asyncio.create_task(queue.take()) for _ in range(3)]
    await asyncio.sleep(0)
    for key in "abc":
        queue.add(key)
    assert sorted(await asyncio.gather(*waiting)) == ["a", "b", "c"]


async def test_a_closed_queue_hands_nothing_out(queue: WorkQueue[str]) -> None:
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.close()
    with pytest.raises(Closed):
        await waiting
    queue.add("a")
    with pytest.raises(Closed):
        await queue.take()


def test_what_is_outdated_does_not_pile_up(queue: WorkQueue[str], clock: Clock) -> None:
    for number in range(10_000):
        queue.add("a", 100_000 - number)
    assert len(queue._heap) < 100


async def test_the_oldest_is_the_one_that_has_been_due_for_longest(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add("future", 1000)
    assert queue.oldest() == 0.0
    queue.add("a")
    clock.now += 30
    queue.add("b")
    assert queue.oldest() == 30.0
    assert len(queue) == 2
    queue.forget("a")
