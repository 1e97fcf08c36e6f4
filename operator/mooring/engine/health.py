"""Is this process doing its work? Not whether its web server answers, but whether keys move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mooring.engine.metrics import Metrics
from mooring.engine.queue import KeyedQueue

#: A round is a few requests, each with a time limit; a queue that moves may be as long as it likes.
_STUCK_SECONDS = 120.0
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
        found += self._stuck() if self.leading else ()
        late = self.resync_interval * 3 + 60.0
        if self.last_resync is not None and now - self.last_resync > late:
            found.append(f"the last resync was {now - self.last_resync:.0f} s ago")
        if self.last_tick is not None and now - self.last_tick > _LOOP_LAG_SECONDS:
            found.append(f"the event loop is {now - self.last_tick:.0f} s late")
        return found

    def _stuck(self) -> Iterator[str]:
        if (waited := self.queue.standstill()) > _STUCK_SECONDS:
            yield f"keys wait, and none was taken up for {waited:.0f} s"
        if (lasted := self.queue.longest_round()) > _STUCK_SECONDS:
            yield f"a round has not come to its end for {lasted:.0f} s"

    async def tick(self) -> None:
        """Marks every second that the loop turns, and measures how late it was."""
        while True:
            before = self.clock()
            await asyncio.sleep(_LOOP_TICK_SECONDS)
            self.last_tick = self.clock()
            self.metrics.loop_lag.set(max(0.0, self.last_tick - before - _LOOP_TICK_SECONDS))
            self.metrics.queue_depth.set(self.queue.depth)
            self.metrics.queue_oldest.set(self.queue.oldest_wait())
