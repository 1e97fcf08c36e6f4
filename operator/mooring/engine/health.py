"""Is this process doing its work? Not whether its web server answers, but whether keys move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mooring.engine.metrics import Metrics
from mooring.engine.queue import KeyedQueue

_OLDEST_KEY_SECONDS = 120.0
_LOOP_LAG_SECONDS = 10.0
_LOOP_TICK_SECONDS = 1.0


@dataclass(slots=True)
class Health:
    """Gathers the marks by which :meth:`problems` judges; all times are monotonic seconds."""

    queue: KeyedQueue
    metrics: Metrics
    resync_interval: float
    clock: Callable[[], float] = time.monotonic
    leading: bool = False
    last_resync: float | None = None
    last_tick: float | None = None
    ended: list[str] = field(default_factory=list)

    def resynced(self, finished: float) -> None:
        self.last_resync = finished

    @property
    def ready(self) -> bool:
        """The store is filled. A standby is ready before it holds the lease."""
        return self.last_resync is not None and not self.ended

    def problems(self) -> list[str]:
        """What is wrong, in sentences; empty when all is well."""
        now = self.clock()
        found = [f"the task {name} has ended" for name in self.ended]
        waited = self.queue.oldest_wait() if self.leading else 0.0
        if waited > _OLDEST_KEY_SECONDS:
            found.append(f"the oldest key has waited for {waited:.0f} s")
        late = self.resync_interval * 3 + 60.0
        if self.last_resync is not None and now - self.last_resync > late:
            found.append(f"the last resync was {now - self.last_resync:.0f} s ago")
        if self.last_tick is not None and now - self.last_tick > _LOOP_LAG_SECONDS:
            found.append(f"the event loop is {now - self.last_tick:.0f} s late")
        return found

    async def tick(self) -> None:
        """Marks every second that the loop turns, and measures how late it was."""
        while True:
            before = self.clock()
            await asyncio.sleep(_LOOP_TICK_SECONDS)
            self.last_tick = self.clock()
            self.metrics.loop_lag.set(max(0.0, self.last_tick - before - _LOOP_TICK_SECONDS))
            self.metrics.queue_depth.set(self.queue.depth)
            self.metrics.queue_oldest.set(self.queue.oldest_wait())
