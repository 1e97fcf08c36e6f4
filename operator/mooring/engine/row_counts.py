"""Counting new data: free queries, asked beside the workers and every few minutes at most.

What came of them is kept in memory; a restart asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mooring.adapters.prometheus import Prometheus
from mooring.core.answers import NoAnswer, single_value
from mooring.core.retrain.counting import EVERY, Question
from mooring.core.retrain.facts import RowsFacts
from mooring.engine.queue import Key, KeyedQueue

_AT_ONCE = 2
_NOT_CONFIGURED = "the operator's administrator has named no Prometheus"


@dataclass(slots=True)
class RowCounts:
    """Starts queries and remembers their answers by key and query."""

    prometheus: Prometheus | None
    queue: KeyedQueue
    now: Callable[[], datetime]
    _found: dict[Key, dict[str, RowsFacts]] = field(default_factory=dict)
    _asked: dict[tuple[Key, str], tuple[datetime, datetime]] = field(default_factory=dict)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    def found(self, key: Key) -> Mapping[str, RowsFacts]:
        """The last answers for a ModelDeployment, by query."""
        return dict(self._found.get(key, {}))

    def start(self, key: Key, question: Question) -> None:
        """Asks, unless the same was asked a moment ago."""
        at, now = (key, question.query), self.now()
        before = self._asked.get(at)
        if before is not None and before[0] == question.since and now < before[1] + EVERY:
            return
        self._asked[at] = question.since, now
        task = asyncio.create_task(self._count(key, question), name=f"count for {key}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone."""
        self._found.pop(key, None)
        for at in [at for at in self._asked if at[0] == key]:
            del self._asked[at]

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _count(self, key: Key, question: Question) -> None:
        facts = RowsFacts(None, question.since, _NOT_CONFIGURED)
        if self.prometheus is not None:
            async with self._slots:
                answer = single_value(await self.prometheus.query(question.text, single=True))
            facts = (
                RowsFacts(None, question.since, str(answer.message))
                if isinstance(answer, NoAnswer)
                else RowsFacts(answer.value, question.since)
            )
        self._found.setdefault(key, {})[question.query] = facts
        self.queue.add(key)
