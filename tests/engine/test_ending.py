"""Tasks end to the last one, also for who is cancelled while waiting for that."""

from __future__ import annotations

import asyncio

import pytest

from mooring.engine.ending import ended, to_its_end


class Slow:
    """Takes the first cancellations for a wish to tidy up, and says when it has."""

    def __init__(self, deaf: int) -> None:
        self.deaf = deaf
        self.cancellations = 0
        self.tidy = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                await self.tidy.wait()
            except asyncio.CancelledError:
                self.cancellations += 1
                if self.cancellations > self.deaf:
                    raise
            else:
                return


async def _begun(*tasks: asyncio.Task[None]) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_who_waits_and_is_cancelled_waits_on_and_is_cancelled_then() -> None:
    slow = Slow(deaf=9)
    task = asyncio.create_task(slow.run())
    waiting = asyncio.create_task(ended([task]))
    await _begun(task, waiting)
    waiting.cancel()
    await _begun(task, waiting)
    slow.tidy.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert task.done()


async def test_a_second_cancellation_reaches_what_took_the_first_for_a_wish_to_tidy_up() -> None:
    slow = Slow(deaf=1)
    task = asyncio.create_task(slow.run())
    await _begun(task)
    waiting = asyncio.create_task(ended([task]))
    await _begun(waiting)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (slow.cancellations, task.cancelled()) == (2, True)


async def test_what_a_task_raises_at_its_end_stays_with_it() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    failing, endless = asyncio.create_task(fails()), asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    await ended([failing, endless])
    assert isinstance(failing.exception(), ValueError)
    assert endless.cancelled()


async def test_what_must_not_be_left_half_done_is_not_cancelled() -> None:
    slow = Slow(deaf=0)
    waiting = asyncio.create_task(to_its_end(slow.run()))
    await _begun(waiting)
    for _ in range(3):
        waiting.cancel()
        await _begun(waiting)
    slow.tidy.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slow.cancellations == 0


async def test_what_it_raises_is_raised() -> None:
    async def fails() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await to_its_end(fails())
