"""New data is counted every few minutes, beside the workers, and never by a query twice at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from mooring.core.answers import NoAnswer, Reason
from mooring.core.retrain.counting import EVERY, Question
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.row_counts import RowCounts

KEY = Key("shop", "fraud")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Refusing:
    """A Prometheus that answers nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def query(self, text: str, **_: Any) -> NoAnswer:
        self.asked.append(text)
        return NoAnswer(Reason.EMPTY, "no series")


async def test_it_asks_once_in_a_while_and_at_once_for_a_later_request() -> None:
    prometheus, queue = Refusing(), KeyedQueue()
    now = [NOW]
    counts = RowCounts(prometheus, queue, lambda: now[0])  # type: ignore[arg-type]
    question = Question("q", "confined q", NOW)
    for _ in range(3):
        counts.start(KEY, question)
    assert await asyncio.wait_for(queue.get(), 5) == KEY
    assert prometheus.asked == ["confined q"]
    assert counts.found(KEY)["q"].problem == "no series"
    assert counts.found(KEY)["q"].value is None
    now[0] += EVERY
    counts.start(KEY, question)
    counts.start(KEY, Question("q", "later q", NOW + timedelta(hours=1)))
    await asyncio.sleep(0)
    await counts.close()
    assert prometheus.asked[1:2] == ["confined q"]
    counts.forget(KEY)
    assert counts.found(KEY) == {}


async def test_without_a_prometheus_the_condition_can_say_so() -> None:
    queue = KeyedQueue()
    counts = RowCounts(None, queue, lambda: NOW)
    counts.start(KEY, Question("q", "q", NOW))
    assert await asyncio.wait_for(queue.get(), 5) == KEY
    assert "Prometheus" in counts.found(KEY)["q"].problem
