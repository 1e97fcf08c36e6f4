"""How the process ends: everything in it while the event loop lives, and only then the loop."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from kubernetes.aio.client import Configuration

from mooring.engine.lease import LeaseLost
from mooring.process import Process
from mooring.settings import Settings


class _Lock:
    """Stands for the lock; ``released`` tells when it was given up."""

    released: list[str]

    def __init__(self, *_: object) -> None:
        pass

    async def release(self) -> None:
        await asyncio.sleep(0)
        self.released.append("the lease")


async def test_a_lost_lease_ends_all_tasks_in_good_order_before_the_loop_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A SystemExit would leave the loop at once. What closes it then cancels all tasks together,
    kopf's helpers before the watchers that wait for them: for ever.
    """
    ended: list[str] = []

    async def lead(*_: object) -> None:
        await asyncio.sleep(0)

    async def watch() -> None:
        helper = asyncio.create_task(asyncio.Event().wait())
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            assert not helper.done(), "whoever needs it ends it"
            helper.cancel()
            ended.append("the watch")

    monkeypatch.setenv("MOORING_NAMESPACE", "mooring-system")
    monkeypatch.setattr("mooring.process.lead", lead)
    monkeypatch.setattr("mooring.process.FencedLock", _Lock)
    monkeypatch.setattr(_Lock, "released", ended, raising=False)
    process = Process(Settings(), Configuration(), elect=True)
    unused = cast(Any, None)
    with pytest.raises(LeaseLost, match="the lease was lost: ending, so that nothing goes on"):
        await process._until_stopped(process._lead(unused, unused, (), unused, unused), watch())
    assert ended == ["the lease", "the watch"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
