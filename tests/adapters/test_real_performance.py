"""From labels at the collector to a request for a new model, through a real Prometheus.

The collector is the one that serves: predictions go into its telemetry, labels through what reads
``POST /feedback``, and its own page is scraped. What is measured of that goes into decisions.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from tests.adapters.real_prometheus import Exporter, RealPrometheus, running
from tests.collector.references import answer, exchange, exposed, infer, telemetry
from tests.core.drift.samples import references
from tests.core.retrain.setting import only_request, retraining, serving

from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_access import Access
from mooring.core.drift.reference import Reference, config_map
from mooring.core.retrain.measuring import Measurement
from mooring.core.router_counters import ScrapeLabels
from mooring.engine.performance import PerformanceWatch
from mooring.engine.performance_metrics import PerformanceMetrics
from mooring.engine.queue import Key, KeyedQueue
from mooring_collector.feedback import read_feedback

pytestmark = pytest.mark.prometheus

POD = "fraud-collector-5c8d9f7b9c-abcde"
KEY = Key("shop", "fraud")


class Serving:
    """A collector as it serves a model whose scores have a meaning, or have lost it."""

    def __init__(self, revision: str) -> None:
        chance = np.random.default_rng(5)
        self.reference = Reference((), references({"score": chance.beta(1, 2, 20_000)}))
        self.telemetry = telemetry(self.reference, feedback={"maturity": 3600})
        self.revision = revision
        self._chance = chance
        self._asked = 0

    def ask_and_label(self, requests: int, *, turned: bool) -> None:
        """Requests of twenty rows each, of which half of the labels come."""
        for _ in range(requests):
            self._asked += 1
            scores = self._chance.beta(1, 2, 20)
            body = infer(*[[1.0]] * 20, id=f"r{self._asked}")
            self.telemetry.count(self.revision, "live", exchange(body, answer(*scores)), 0.0)
            positive = self._chance.random(20) < (1 - scores if turned else scores)
            labels = [
                bool(yes) if there else None
                for yes, there in zip(positive, self._chance.random(20) < 0.5, strict=True)
            ]
            for piece in read_feedback({"id": f"r{self._asked}", "labels": labels}):
                assert self.telemetry.label(piece, 1.0) == "joined"

    def ask_and_tell(self, requests: int, *, error: float) -> None:
        """The same with labels that are numbers, whose errors have this standard deviation."""
        for number in range(requests):
            values = self._chance.beta(1, 2, 20)
            body = infer(*[[1.0]] * 20, id=f"n{number}")
            self.telemetry.count(self.revision, "live", exchange(body, answer(*values)), 0.0)
            truth = values + self._chance.normal(0, error, 20)
            for piece in read_feedback({"id": f"n{number}", "labels": truth.tolist()}):
                assert self.telemetry.label(piece, 1.0) == "joined"

    def __call__(self) -> str:
        self.telemetry.flush()
        own = f'{{namespace="shop",pod="{POD}",'
        return exposed(self.telemetry).replace("{", own)


class Cluster:
    """As much of an API server as is read: the ConfigMap of the reference."""

    def __init__(self, reference: Reference) -> None:
        self._map = config_map(reference, "fraud-reference", "shop")

    async def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        return self._map if (namespace, name) == ("shop", "fraud-reference") else None


async def measured(prometheus: RealPrometheus, page: Serving, span: timedelta) -> dict[str, Any]:
    """What retraining is told, as the operator's own parts find it."""
    client, queue = Prometheus(Access(url=prometheus.url)), KeyedQueue()
    cluster: Any = Cluster(page.reference)
    shown = PerformanceMetrics(CollectorRegistry())
    watch = PerformanceWatch(
        cluster, client, ScrapeLabels(), queue, lambda: datetime.now(UTC), shown
    )
    try:
        watch.start(KEY, Measurement(page.revision, "fraud-reference", span, "shop", "fraud"))
        assert await asyncio.wait_for(queue.get(), 30) == KEY
        return watch.found(KEY)
    finally:
        await watch.close()
        await client.close()


@pytest.mark.parametrize("turned", [False, True])
def test_labels_that_turn_against_a_model_ask_for_a_new_one(tmp_path: Path, turned: bool) -> None:
    trigger = {"performance": {"metric": "accuracy", "below": 0.6}}
    world = serving(retraining(trigger))
    page = Serving(world.status["stable"]["revision"])
    with Exporter(page).run() as exporter:
        with running(tmp_path / "prometheus", {exporter.address: ("/metrics", {})}) as prometheus:
            prometheus.wait_for("mooring_telemetry_rows_total or up")
            page.ask_and_label(100, turned=turned)
            labels = 'sum(mooring_telemetry_outcomes_total{pod="' + POD + '"}) > 900'
            prometheus.wait_for(labels)
            found = asyncio.run(measured(prometheus, page, timedelta(minutes=10)))
    assert found["performance_problem"].startswith("labels of output score are truth values")
    accuracy = found["performance"]["accuracy"]
    assert 900 < accuracy.samples < 1100
    assert "labels for 50%" in accuracy.note or "labels for 49%" in accuracy.note
    world.retraining = replace(world.retraining, **found)
    world.settle()
    assert bool(world.requests) is turned
    if turned:
        request = world.requests[only_request(world)]["spec"]
        assert request["trigger"]["type"] == "Performance"
        assert "below 0.6" in request["trigger"]["message"]


def test_errors_that_have_grown_ask_for_a_new_model(tmp_path: Path) -> None:
    trigger = {"performance": {"metric": "rmse", "above": 0.1}}
    world = serving(retraining(trigger))
    page = Serving(world.status["stable"]["revision"])
    with Exporter(page).run() as exporter:
        with running(tmp_path / "prometheus", {exporter.address: ("/metrics", {})}) as prometheus:
            prometheus.wait_for("mooring_telemetry_rows_total or up")
            page.ask_and_tell(50, error=0.2)
            counted = 'sum(mooring_telemetry_labelled_rows_total{pod="' + POD + '"}) == 1000'
            prometheus.wait_for(counted)
            found = asyncio.run(measured(prometheus, page, timedelta(minutes=10)))
    mae, rmse = found["performance"]["mae"], found["performance"]["rmse"]
    assert rmse.samples == mae.samples == 1000
    assert rmse.lower < 0.2 < rmse.upper
    assert mae.lower < 0.2 * np.sqrt(2 / np.pi) < mae.upper
    world.retraining = replace(world.retraining, **found)
    world.settle()
    message = world.requests[only_request(world)]["spec"]["trigger"]["message"]
    assert message.startswith("rmse is 0.")
    assert message.endswith("labels for 100% of the predictions), above 0.1")
