"""The keyed queue: each key once, one worker per key, nothing lost, failures wait by themselves."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mooring.engine.queue import Key, KeyedQueue

A, B, C = (Key("shop", name) for name in "abc")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> KeyedQueue:
    return KeyedQueue(clock)


def ready(queue: KeyedQueue) -> list[Key]:
    """Every key that a worker would get now; they stay active."""
    found = []
    while (key := take(queue)) is not None:
        found.append(key)
    return found


def take(queue: KeyedQueue) -> Key | None:
    """One key without waiting for it."""
    queue._move_due()
    if not queue.depth:
        return None
    try:
        queue.get().send(None)
    except StopIteration as ended:
        key: Key = ended.value
        return key
    raise AssertionError("a worker waits though there is a key")


@pytest.mark.parametrize("turns", range(4))
async def test_a_worker_that_is_cancelled_as_it_is_woken_ends(
    queue: KeyedQueue, turns: int
) -> None:
    queue.add_after(B, 3600.0)
    worker = asyncio.create_task(queue.get())
    for _ in range(3):
        await asyncio.sleep(0)
    queue.add_after(A, 60.0)
    for _ in range(turns):
        await asyncio.sleep(0)
    worker.cancel()
    await asyncio.wait({worker}, timeout=2.0)
    assert worker.cancelled()


def test_wishes_that_were_met_before_they_fell_due_do_not_pile_up(
    queue: KeyedQueue, clock: Clock
) -> None:
    """A schedule looks again in a week, and rounds come every ten seconds meanwhile."""
    queue.add_after(B, 3600.0)
    for _ in range(1000):
        queue.add(A)
        assert take(queue) == A
        queue.add_after(A, 604_800.0)
        queue.done(A)
        clock.now += 1.0
    assert len(queue._later) <= 100
    clock.now += 3600.0
    assert ready(queue) == [B]
    queue.done(B)
    clock.now += 604_800.0
    assert ready(queue) == [A]


def test_the_wishes_of_many_forgotten_keys_go_with_them(queue: KeyedQueue, clock: Clock) -> None:
    keys = [Key("shop", str(number)) for number in range(1000)]
    for key in keys:
        queue.add_after(key, 604_800.0)
    for key in keys[1:]:
        queue.forget(key)
    assert len(queue._later) <= 100
    clock.now += 604_800.0
    assert ready(queue) == keys[:1]


def test_a_key_added_many_times_is_worked_on_once(queue: KeyedQueue) -> None:
    for _ in range(10):
        queue.add(A)
    assert ready(queue) == [A]


def test_keys_come_in_the_order_in_which_they_were_added(queue: KeyedQueue) -> None:
    for key in (B, A, C, B):
        queue.add(key)
    assert ready(queue) == [B, A, C]


def test_a_key_is_never_with_two_workers_and_runs_again_if_added_meanwhile(
    queue: KeyedQueue,
) -> None:
    queue.add(A)
    assert ready(queue) == [A]
    queue.add(A)
    queue.add(A)
    assert ready(queue) == []
    queue.done(A)
    assert ready(queue) == [A]
    queue.done(A)
    assert ready(queue) == []


def test_a_wish_that_falls_due_while_the_key_is_worked_on_runs_afterwards(
    queue: KeyedQueue, clock: Clock
) -> None:
    queue.add(A)
    assert ready(queue) == [A]
    queue.add_after(A, 5)
    clock.now += 6
    assert ready(queue) == []
    queue.done(A)
    assert ready(queue) == [A]


@pytest.mark.parametrize("wishes", list(itertools.permutations([3.0, 7.0, 30.0])))
def test_of_several_wishes_for_later_the_earliest_counts(
    queue: KeyedQueue, clock: Clock, wishes: tuple[float, ...]
) -> None:
    for seconds in wishes:
        queue.add_after(A, seconds)
    clock.now += 2.9
    assert ready(queue) == []
    clock.now += 0.1
    assert ready(queue) == [A]
    queue.done(A)
    clock.now += 100
    assert ready(queue) == [], "one look is what was asked for"


def test_backoff_grows_up_to_a_minute_and_ends_with_success(queue: KeyedQueue) -> None:
    waits = [queue.retry(A) for _ in range(20)]
    assert 0.4 <= waits[0] <= 0.6
    for earlier, later in itertools.pairwise(waits[:7]):
        assert later > earlier
    assert max(waits) <= 72.0
    assert waits[-1] >= 48.0
    queue.succeeded(A)
    assert queue.retry(A) <= 0.6


def test_backoff_is_per_key(queue: KeyedQueue) -> None:
    for _ in range(10):
        queue.retry(A)
    assert queue.retry(B) <= 0.6


def test_a_failing_key_waits_at_least_as_long_as_the_server_asked(queue: KeyedQueue) -> None:
    assert queue.retry(A, at_least=17.0) >= 17.0


def test_a_failing_key_delays_others_not_at_all(queue: KeyedQueue, clock: Clock) -> None:
    queue.add(A)
    assert ready(queue) == [A]
    for _ in range(5):
        queue.retry(A)
    queue.done(A)
    queue.add(B)
    assert ready(queue) == [B]


def test_an_event_for_a_failing_key_is_not_held_back(queue: KeyedQueue) -> None:
    for _ in range(10):
        queue.retry(A)
    queue.add(A)
    assert ready(queue) == [A]


def test_a_forgotten_key_does_not_come_back_and_starts_afresh(
    queue: KeyedQueue, clock: Clock
) -> None:
    for _ in range(5):
        queue.retry(A)
    queue.forget(A)
    clock.now += 1000
    assert ready(queue) == []
    assert queue.retry(A) <= 0.6


def test_the_oldest_wait_counts_waiting_and_work_but_not_backoff(
    queue: KeyedQueue, clock: Clock
) -> None:
    queue.retry(B)
    assert queue.oldest_wait() == 0.0
    queue.add(A)
    clock.now += 3
    assert queue.oldest_wait() == pytest.approx(3)
    assert take(queue) == A
    clock.now += 4
    assert queue.oldest_wait() == pytest.approx(4), "counted anew from the start of the work"


async def test_a_waiting_worker_is_woken_by_an_add_and_by_a_wish_that_falls_due() -> None:
    queue = KeyedQueue()
    getting = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    queue.add_after(B, 0.02)
    queue.add(A)
    found = await asyncio.wait_for(asyncio.gather(*getting), 5)
    assert sorted(found) == [A, B]


async def test_every_added_key_is_worked_on_while_workers_come_and_go() -> None:
    queue = KeyedQueue()
    begun: list[Key] = []
    active: set[Key] = set()

    async def worker() -> None:
        while True:
            key = await queue.get()
            assert key not in active, "never with two workers"
            active.add(key)
            begun.append(key)
            try:
                await asyncio.sleep(0)
            finally:
                active.discard(key)
                queue.done(key)

    workers = [asyncio.create_task(worker()) for _ in range(4)]
    keys = [Key("n", str(number)) for number in range(200)]
    for number, key in enumerate(keys):
        queue.add(key)
        if number % 17 == 0:
            workers.append(asyncio.create_task(worker()))
            workers.pop(0).cancel()
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while queue.depth or queue.active:
            await asyncio.sleep(0)
    for task in workers:
        task.cancel()
    assert sorted(begun) == sorted(keys)


def test_a_look_that_happens_before_it_is_due_meets_a_wish(queue: KeyedQueue, clock: Clock) -> None:
    queue.add_after(A, 5)
    queue.add(A)
    assert take(queue) == A
    queue.done(A)
    clock.now += 10
    assert take(queue) is None


class QueueModel(RuleBasedStateMachine):
    """Any sequence of calls agrees with a few sets."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = KeyedQueue(self.clock)
        self.waiting: list[Key] = []
        self.active: set[Key] = set()
        self.again: set[Key] = set()
        self.due: dict[Key, float] = {}

    def _move(self) -> None:
        for key, _ in sorted(self.due.items(), key=lambda item: item[1]):
            if self.due[key] <= self.clock.now:
                del self.due[key]
                self._added(key)

    def _added(self, key: Key) -> None:
        if key in self.active:
            self.again.add(key)
        elif key not in self.waiting:
            self.waiting.append(key)

    @rule(key=st.sampled_from([A, B, C]))
    def add(self, key: Key) -> None:
        self.queue.add(key)
        self._added(key)

    @rule(key=st.sampled_from([A, B, C]), seconds=st.integers(0, 20))
    def add_after(self, key: Key, seconds: int) -> None:
        self.queue.add_after(key, seconds)
        due = self.clock.now + seconds
        self.due[key] = min(due, self.due.get(key, due))

    @rule(seconds=st.integers(1, 10))
    def pass_time(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(key=st.sampled_from([A, B, C]))
    def forget(self, key: Key) -> None:
        self.queue.forget(key)
        self.due.pop(key, None)

    @rule()
    def get(self) -> None:
        found = take(self.queue)
        self._move()
        if found is None:
            assert self.waiting == []
            return
        assert found in self.waiting
        self.waiting.remove(found)
        self.due.pop(found, None)
        self.active.add(found)

    @precondition(lambda self: bool(self.active))
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.active)))
        self.queue.done(key)
        self.active.discard(key)
        if key in self.again:
            self.again.discard(key)
            self._added(key)

    @invariant()
    def agrees(self) -> None:
        assert self.queue.active == len(self.active)
        assert self.queue.depth == len(self.waiting)


TestQueueModel = QueueModel.TestCase
TestQueueModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


async def test_a_worker_whose_cancellation_was_lost_ends_when_the_queue_is_closed() -> None:
    queue = KeyedQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.close()
    await asyncio.wait({waiting}, timeout=5)
    assert waiting.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await queue.get()
