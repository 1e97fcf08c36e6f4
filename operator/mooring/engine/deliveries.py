"""Events on their way to sinks, each in a task of its own: a slow sink holds up no worker.

What came of an attempt is kept in memory until status has it. A restart forgets it, and the next
attempt carries the same id: at least once, and told apart by whoever receives it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mooring.adapters.kube import Fence
from mooring.adapters.sinks import SinkClient
from mooring.core.retrain.event import Delivery
from mooring.core.retrain.facts import SinkAnswer
from mooring.engine.lease import LeaseLost
from mooring.engine.metrics import Metrics
from mooring.engine.queue import Key, KeyedQueue

log = logging.getLogger(__name__)

_AT_ONCE = 8


@dataclass(slots=True)
class Deliveries:
    """Starts attempts and remembers their answers by key and request."""

    client: SinkClient
    queue: KeyedQueue
    metrics: Metrics
    fence: Fence
    now: Callable[[], datetime]
    _answers: dict[Key, dict[str, SinkAnswer]] = field(default_factory=dict)
    _under_way: dict[tuple[Key, str], asyncio.Task[None]] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def sinks(self, namespace: str) -> frozenset[str]:
        """The sinks that a namespace may use."""
        return frozenset(n for n, s in self.client.sinks.items() if s.allows(namespace))

    def answers(self, key: Key) -> Mapping[str, SinkAnswer]:
        """The last answer for each request of a ModelDeployment."""
        return dict(self._answers.get(key, {}))

    def start(self, key: Key, delivery: Delivery) -> None:
        """Begins an attempt, unless one for the same request is under way or was answered."""
        at = key, delivery.request
        answer = self._answers.get(key, {}).get(delivery.request)
        if at in self._under_way:
            return
        if answer is not None and answer.id == delivery.id and answer.attempt >= delivery.attempt:
            return
        task = asyncio.create_task(self._post(key, delivery), name=f"deliver {delivery.request}")
        self._under_way[at] = task
        task.add_done_callback(lambda _: self._under_way.pop(at, None))

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone."""
        self._answers.pop(key, None)

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()

    async def _post(self, key: Key, delivery: Delivery) -> None:
        async with self._slots:
            try:
                self.fence.remaining()
            except LeaseLost:
                return  # whoever leads now sends it
            at = self.now()
            try:
                problem = await self.client.post(
                    delivery.sink, delivery.id, delivery.body, int(at.timestamp())
                )
            except Exception:  # a defect of ours must not lose the request
                log.exception("delivery of %s failed", delivery.request)
                problem = "could not be told, by a defect of the operator: see its log"
        self.metrics.sink_deliveries.labels(delivery.sink, "failed" if problem else "ok").inc()
        answer = SinkAnswer(at, delivery.attempt, problem, delivery.id)
        self._answers.setdefault(key, {})[delivery.request] = answer
        self.queue.add(key)
