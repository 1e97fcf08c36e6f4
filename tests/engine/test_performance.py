"""Performance is measured beside the workers, every few minutes, and forgotten with its object."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.core.drift.collected import reference, reference_map

from mooring.adapters.kube import ApiError
from mooring.core.answers import NoAnswer, Reason
from mooring.core.retrain.measuring import EVERY, Measurement
from mooring.core.router_counters import KEY, ScrapeLabels
from mooring.engine.performance import PerformanceWatch
from mooring.engine.performance_metrics import PerformanceMetrics
from mooring.engine.queue import Key, KeyedQueue

FRAUD = Key("shop", "fraud")
MISSING: dict[str, Any] = {"missing": True}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WHAT = Measurement("abc", "fraud-reference", timedelta(days=1), "shop", "fraud")


class Answering:
    """A Prometheus that gives one answer, and counts how often it is asked."""

    def __init__(self, **counts: float) -> None:
        grid = reference().grid_hash
        self.values = {text.replace("GRID", grid): value for text, value in counts.items()}
        self.asked = 0
        self.problem: NoAnswer | Exception | None = None

    async def read(self, text: str, reader: Callable[[bytes, float], Any]) -> Any:
        self.asked += 1
        if isinstance(self.problem, Exception):
            raise self.problem
        if self.problem is not None:
            return self.problem
        series = [
            {"metric": {KEY: name}, "value": [1.0, str(value)]}
            for name, value in self.values.items()
        ]
        data = {"resultType": "vector", "result": series}
        return reader(json.dumps({"status": "success", "data": data}).encode(), 0.0)


class Cluster:
    """The reference's ConfigMap, missing or not to be had."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def get(self, kind: Any, namespace: str, name: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return None if self.answer is MISSING else self.answer


def shown(registry: CollectorRegistry | None = None) -> PerformanceMetrics:
    return PerformanceMetrics(registry or CollectorRegistry())


async def found(prometheus: Any, answer: Any = None, what: Measurement = WHAT) -> dict[str, Any]:
    queue = KeyedQueue()
    cluster: Any = Cluster(reference_map() if answer is None else answer)
    watch = PerformanceWatch(cluster, prometheus, ScrapeLabels(), queue, lambda: NOW, shown())
    watch.start(FRAUD, what)
    assert await asyncio.wait_for(queue.get(), 10) == FRAUD
    await watch.close()
    return watch.found(FRAUD)


async def test_labels_become_facts_of_the_revision() -> None:
    counts = {"output_rows|GRID|9|score|": 1000.0, "outcomes|GRID|9|score|0": 400.0}
    facts = await found(Answering(**counts))
    assert facts["performance_of"] == "abc"
    assert facts["performance"]["accuracy"].value == 1.0
    assert facts["performance"]["accuracy"].samples == 400


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (MISSING, "does not exist"),
        ({"metadata": {"name": "r"}, "data": {}}, "holds no reference"),
        (ApiError(500, "ServerError", "oops"), "cannot be read now"),
    ],
)
async def test_a_reference_that_cannot_be_read_is_said(answer: Any, words: str) -> None:
    facts = await found(Answering(), answer)
    assert words in facts["performance_problem"]
    assert facts["performance"] == {}


async def test_without_a_prometheus_it_says_so() -> None:
    assert "Prometheus" in (await found(None))["performance_problem"]


async def test_no_answer_is_a_problem_and_no_figure() -> None:
    prometheus = Answering()
    prometheus.problem = NoAnswer(Reason.EMPTY, "Prometheus is away")
    assert (await found(prometheus))["performance_problem"] == "Prometheus is away"
    prometheus.problem = RuntimeError("oops")
    assert "oops" in (await found(prometheus))["performance_problem"]


async def test_it_is_measured_once_in_a_while_and_at_once_for_another_revision() -> None:
    prometheus: Any = Answering()
    now = [NOW]
    queue = KeyedQueue()
    cluster: Any = Cluster(reference_map())
    watch = PerformanceWatch(cluster, prometheus, ScrapeLabels(), queue, lambda: now[0], shown())
    for _ in range(3):
        watch.start(FRAUD, WHAT)
    assert await asyncio.wait_for(queue.get(), 10) == FRAUD
    queue.done(FRAUD)
    assert prometheus.asked == 1
    now[0] += EVERY
    watch.start(FRAUD, WHAT)
    other = Measurement("def", "fraud-reference", timedelta(days=1), "shop", "fraud")
    watch.start(FRAUD, other)
    assert await asyncio.wait_for(queue.get(), 10) == FRAUD
    assert watch.found(FRAUD)["performance_of"] == "def"
    watch.forget(FRAUD)
    assert watch.found(FRAUD) == {}
    await watch.close()


async def test_what_was_measured_is_a_metric_as_long_as_it_is_so() -> None:
    counts = {"output_rows|GRID|9|score|": 1000.0, "outcomes|GRID|9|score|0": 400.0}
    prometheus: Any = Answering(**counts)
    queue, registry, now = KeyedQueue(), CollectorRegistry(), [NOW]
    cluster: Any = Cluster(reference_map())

    def told(name: str, metric: str = "accuracy") -> float | None:
        labels = {"namespace": "shop", "deployment": "fraud", "metric": metric}
        return registry.get_sample_value(name, labels)

    watch = PerformanceWatch(
        cluster, prometheus, ScrapeLabels(), queue, lambda: now[0], shown(registry)
    )
    watch.start(FRAUD, WHAT)
    assert await asyncio.wait_for(queue.get(), 10) == FRAUD
    queue.done(FRAUD)
    assert told("mooring_performance") == 1.0
    assert told("mooring_performance_upper") == 1.0
    assert 0.9 < (told("mooring_performance_lower") or 0) < 1.0
    assert told("mooring_performance_labels") == 400
    prometheus.problem = NoAnswer(Reason.EMPTY, "Prometheus is away")
    now[0] += EVERY
    watch.start(FRAUD, WHAT)
    assert await asyncio.wait_for(queue.get(), 10) == FRAUD
    assert told("mooring_performance") is None, "what is not known any more is not shown"
    prometheus.problem = None
    queue.done(FRAUD)
    now[0] += EVERY
    watch.start(FRAUD, WHAT)
    assert await asyncio.wait_for(queue.get(), 10) == FRAUD
    assert told("mooring_performance") == 1.0
    watch.forget(FRAUD)
    assert told("mooring_performance") is None
    await watch.close()
