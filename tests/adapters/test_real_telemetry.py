"""From a collector's page to status, through a real Prometheus: exact counts, and what they mean.

Windows of ten seconds, a scrape a second, and another operator for every window.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.adapters.real_prometheus import Exporter, RealPrometheus, running
from tests.core.drift.collected import exported, raw_spec, reference, traffic
from tests.core.drift.labelled import labels
from tests.engine.drift_case import POD, Case

from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_access import Access
from mooring.adapters.prometheus_telemetry import read_window
from mooring.core.answers import NoAnswer
from mooring.core.telemetry import Counted, Watched, joined

pytestmark = pytest.mark.prometheus

WINDOW = 10.0
#: So long after a window's end everything that was scraped in it is stored.
SETTLED = 4.0


class Collector:
    """Counts windows of traffic; a new life counts from 0."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.life = f"{time.time():.3f}"
        self.counted: dict[int, Counted] = {}

    def count(self, number: int, counted: Counted) -> None:
        self.counted = {**self.counted, number: counted}

    def __call__(self) -> str:
        return exported(self.counted, pod=POD, life=self.life)


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def prometheus(collector: Collector, tmp_path: Path) -> Iterator[RealPrometheus]:
    with Exporter(collector).run() as page:
        with running(tmp_path / "prometheus", {page.address: ("/metrics", {})}) as found:
            found.wait_for("mooring_telemetry_rows_total")
            yield found


def boundary() -> float:
    """The next full ten seconds, waited for."""
    end = (time.time() // WINDOW + 1) * WINDOW
    time.sleep(max(end - time.time(), 0))
    return end


def counts(prometheus: RealPrometheus, start: float, end: float) -> Counted:
    async def ask() -> Counted | NoAnswer:
        client = Prometheus(Access(url=prometheus.url))
        try:
            found = await read_window(client, [Watched("shop", "fraud")], start, end, WINDOW)
        finally:
            await client.close()
        return found["shop", "fraud"]

    found = asyncio.run(ask())
    assert isinstance(found, Counted), found
    return found


def test_counts_of_a_window_are_exact_even_if_the_collector_begins_anew_in_it(
    collector: Collector, prometheus: RealPrometheus
) -> None:
    first, second, third = (
        traffic(number, shift=0.3 * number, outcomes=labels(number, 200)) for number in (1, 2, 3)
    )
    start = boundary()
    collector.count(1, first)
    middle = boundary()
    collector.count(2, second)
    prometheus.wait_for(f"mooring_telemetry_rows_total == {first.rows + second.rows}")
    collector.begin()
    collector.count(3, third)
    end = boundary()
    time.sleep(SETTLED)

    grid = reference().grid_hash
    one, two = counts(prometheus, start, middle), counts(prometheus, middle, end)

    assert one.features[grid] == first.features[grid]
    assert one.outputs == first.outputs
    assert one.rows == first.rows
    both = joined([second, third])
    assert two.features[grid] == both.features[grid]
    assert two.outputs == both.outputs
    assert (one.outcomes, two.outcomes) == (first.outcomes, both.outcomes)
    assert two.rows == both.rows
    assert not two.gap
    assert counts(prometheus, middle, end) == two  # and it stays what it was


def test_what_was_counted_while_nobody_scraped_is_not_taken_for_the_window_after(
    collector: Collector, prometheus: RealPrometheus
) -> None:
    collector.count(1, traffic(1))
    boundary()
    prometheus.stop()
    collector.count(2, traffic(2))
    boundary()
    start = boundary()
    prometheus.start()
    end = boundary()
    time.sleep(SETTLED)

    assert counts(prometheus, start, end).gap


def test_steady_broken_and_drifted_with_another_operator_for_every_window(
    collector: Collector, prometheus: RealPrometheus
) -> None:
    client = Prometheus(Access(url=prometheus.url))
    windows = [
        *(traffic(number) for number in (1, 2)),
        traffic(3, missing=0.5),
        *(traffic(number, shift=0.8) for number in (4, 5, 6)),
    ]
    restarted = Case(client, raw_spec(window="10s"), settle=SETTLED)
    kept = Case(client, raw_spec(window="10s"), settle=SETTLED)
    began = boundary()
    for case in (restarted, kept):
        case.round((began + 0.1) / 3600)
    told = []
    for number, counted in enumerate(windows, 1):
        collector.count(number, counted)
        end = boundary()
        time.sleep(SETTLED + 0.1)
        for case in (restarted, kept):
            case.round((end + SETTLED + 0.1) / 3600)
        told.append(restarted.report)
        restarted.restart()

    asyncio.run(client.close())
    states = [report.drift["state"] for report in told]
    assert states[:3] == ["Steady", "Steady", "Unhealthy"]
    assert states[-1] == "Drifted"
    assert told[2].conditions["DataHealthy"].reason == "Missing"
    assert told[2].conditions["Drifted"].status == "False"
    assert told[2].facts is not None
    assert not told[2].facts.healthy
    assert told[-1].facts is not None
    assert told[-1].facts.features == ("amount",)
    assert told[-1].facts.healthy
    assert restarted.known == kept.known
