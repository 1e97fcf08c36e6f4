"""The probe fails when work does not get done, not when the web server is gone."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from mooring.engine.health import Health
from mooring.engine.metrics import Metrics
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.web import serve


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(KeyedQueue(clock), Metrics(), resync_interval=300.0, clock=clock)


def _taken(queue: KeyedQueue) -> Key:
    """The next key, which is there already."""
    getting = queue.get()
    with pytest.raises(StopIteration) as taken:
        getting.send(None)
    key: Key = taken.value.value
    return key


def test_a_fresh_process_is_healthy_and_not_ready(health: Health) -> None:
    assert health.problems() == []
    assert not health.ready


def test_it_is_ready_once_the_store_is_filled(health: Health, clock: Clock) -> None:
    health.resynced(clock.now)
    assert health.ready


def test_a_key_that_nobody_works_on_is_a_problem_of_a_leader(health: Health, clock: Clock) -> None:
    health.leading = True
    health.queue.add(Key("shop", "fraud"))
    clock.now += 119
    assert health.problems() == []
    clock.now += 2
    assert health.problems() == ["keys wait, and none was taken up for 121 s"]


def test_a_long_queue_that_moves_is_no_problem(health: Health, clock: Clock) -> None:
    """5,000 objects at once take minutes; a probe that ended the process would only add to that."""
    health.leading = True
    for index in range(5000):
        health.queue.add(Key("shop", f"fraud-{index}"))
    for _ in range(20):
        clock.now += 60
        health.queue.done(_taken(health.queue))
        assert health.problems() == []
    assert health.queue.oldest_wait() == 1200


def test_a_key_that_comes_to_a_queue_at_rest_has_its_time(health: Health, clock: Clock) -> None:
    health.leading = True
    clock.now += 10_000
    health.queue.add(Key("shop", "fraud"))
    clock.now += 100
    assert health.problems() == []


def test_a_round_that_never_ends_is_a_problem(health: Health, clock: Clock) -> None:
    health.leading = True
    health.queue.add(Key("shop", "fraud"))
    _taken(health.queue)
    clock.now += 200
    assert health.problems() == ["a round has not come to its end for 200 s"]


def test_keys_wait_at_a_standby_without_being_a_problem(health: Health, clock: Clock) -> None:
    health.queue.add(Key("shop", "fraud"))
    clock.now += 10_000
    assert health.problems() == []


def test_a_resync_that_is_long_overdue_is_a_problem(health: Health, clock: Clock) -> None:
    health.resynced(clock.now)
    clock.now += 3 * 300 + 59
    assert health.problems() == []
    clock.now += 2
    assert health.problems() == ["the last resync was 961 s ago"]


def test_a_loop_that_does_not_turn_is_a_problem(health: Health, clock: Clock) -> None:
    health.last_tick = clock.now
    clock.now += 9
    assert health.problems() == []
    clock.now += 2
    assert health.problems() == ["the event loop is 11 s late"]


def test_a_task_that_ended_is_a_problem_and_ends_readiness(health: Health, clock: Clock) -> None:
    health.resynced(clock.now)
    health.ended.append("watching")
    assert health.problems() == ["the task watching has ended"]
    assert not health.ready


async def test_a_blocked_loop_is_measured() -> None:
    health = Health(KeyedQueue(), Metrics(), resync_interval=300.0)
    ticking = asyncio.create_task(health.tick())
    async with asyncio.timeout(5):
        while health.last_tick is None:
            await asyncio.sleep(0.01)
    ticking.cancel()
    lag = health.metrics.registry.get_sample_value("mooring_loop_lag_seconds")
    assert lag is not None
    assert 0 <= lag < 1


async def test_the_probes_say_why(health: Health, clock: Clock) -> None:
    runner = await serve(health, health.metrics, 0)
    port = runner.addresses[0][1]
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:

            async def ask(path: str) -> tuple[int, str]:
                async with session.get(url + path) as answer:
                    return answer.status, await answer.text()

            assert await ask("/healthz") == (200, "ok")
            assert (await ask("/readyz"))[0] == 503
            health.resynced(clock.now)
            assert await ask("/readyz") == (200, "ok")
            clock.now += 10_000
            assert await ask("/healthz") == (500, "the last resync was 10000 s ago")
            status, text = await ask("/metrics")
            assert status == 200
            assert "mooring_queue_depth" in text
    finally:
        await runner.cleanup()
