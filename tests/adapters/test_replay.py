"""``mooring replay`` over a real Prometheus, whose past one scrape with explicit times gives it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tests.adapters.real_prometheus import Exporter, RealPrometheus, running

from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_access import Access
from mooring.cli import main
from mooring.core.answers import Answer

pytestmark = pytest.mark.prometheus

POD = "fraud-router-5c8d9f7b9c-abcde"
INTERVAL, SCRAPES = 10, 60
#: The candidate fails from here on, in scrapes.
BREAKS = 30

SPEC = """\
apiVersion: mooring.dev/v1alpha1
kind: ModelDeployment
metadata: {name: fraud, namespace: shop}
spec:
  model: {uri: s3://models/fraud/v2}
  runtime: {name: onnx}
  rollout:
    steps: [{weight: 10, duration: 10m}]
  analysis:
    metrics:
      - {name: errors, errorRate: {maxRatio: 1.5, max: 0.05}}
      - name: members
        prometheus:
          query: max(envoy_cluster_membership_total{envoy_cluster_name="{{ revision }}"})
          min: 1
          onNoData: Ignore
"""


def past(end: int) -> str:
    """What a router exported in each of its scrapes: 20 requests a second, a tenth to ``cand``."""
    rng = np.random.default_rng(5)
    lines = []
    for cluster, part in (("cand", 0.1), ("stab-a", 0.45), ("stab-b", 0.45), ("cand-shadow", 1.0)):
        labels = f'namespace="shop",pod="{POD}",envoy_cluster_name="{cluster}"'
        endpoint = f'{labels},envoy_endpoint_address="10.0.0.1:80"'
        total = failed = 0
        for n in range(SCRAPES):
            at = 1000 * (end - (SCRAPES - 1 - n) * INTERVAL)
            now = int(rng.poisson(20 * INTERVAL * part))
            bad = cluster.startswith("cand") and n >= BREAKS
            total += now
            failed += int(rng.binomial(now, 0.3 if bad else 0.005))
            for kind, value in (("total", total), ("success", total - failed), ("error", failed)):
                lines.append(f"envoy_cluster_endpoint_rq_{kind}{{{endpoint}}} {value} {at}")
            lines.append(f"envoy_cluster_endpoint_rq_active{{{endpoint}}} 0 {at}")
            lines.append(f"envoy_cluster_membership_total{{{labels}}} 1 {at}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def end() -> int:
    return math.floor(time.time()) - 5


@pytest.fixture(scope="module")
def prometheus(end: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPrometheus]:
    with Exporter(lambda: past(end)).run() as exporter:
        targets: Any = {exporter.address: ("/metrics", {})}
        with running(tmp_path_factory.mktemp("prometheus"), targets) as real:
            real.wait_for(f'envoy_cluster_membership_total{{pod="{POD}"}}')
            yield real


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def replayed(
    prometheus: RealPrometheus, folder: Path, end: float, *more: str, scrapes: int = SCRAPES
) -> Result:
    spec = folder / "fraud.yaml"
    spec.write_text(SPEC)
    arguments = [
        "replay", "-f", str(spec), "--prometheus", prometheus.url, "--candidate", "cand",
        "--stable", "stab", "--start", moment(end - (SCRAPES - 1) * INTERVAL),
        "--end", moment(end - (SCRAPES - scrapes) * INTERVAL), *more,
    ]  # fmt: skip
    return CliRunner().invoke(main, arguments)


def test_a_candidate_that_broke_is_seen_to_fail_soon_after(
    prometheus: RealPrometheus, end: int, tmp_path: Path
) -> None:
    found = replayed(prometheus, tmp_path, end, "-o", "json")
    assert found.exit_code == 1, found.output
    told = json.loads(found.output)
    failed = datetime.fromisoformat(told["since"]).timestamp()
    broke = end - (SCRAPES - 1 - BREAKS) * INTERVAL
    assert 0 <= failed - broke <= 6 * INTERVAL
    assert told["changes"][-1]["verdict"] == "Fail"
    assert told["changes"][-1]["weight"] == pytest.approx(10, abs=3)
    assert told["changes"][-1]["message"].startswith("errors: ")
    (errors, members) = told["metrics"]
    assert errors["verdict"] == "Fail"
    assert errors["stableSamples"] > 9 * errors["samples"] / 1.3
    assert members["candidate"]["value"] == 1


def test_up_to_the_break_the_same_candidate_passes(
    prometheus: RealPrometheus, end: int, tmp_path: Path
) -> None:
    found = replayed(prometheus, tmp_path, end, scrapes=BREAKS)
    assert found.exit_code == 0, found.output
    assert "Pass since " in found.output
    assert "errors Pass: " in found.output


def test_a_revision_that_prometheus_does_not_know_is_answered_with_those_it_knows(
    prometheus: RealPrometheus, end: int, tmp_path: Path
) -> None:
    found = replayed(prometheus, tmp_path, end, "--candidate", "other")
    assert found.exit_code == 7
    assert "no counters of revision other of shop/fraud in this time: it has cand, stab" in (
        found.output
    )


async def test_a_question_about_the_past_is_answered_from_then(
    prometheus: RealPrometheus, end: int
) -> None:
    asking = Prometheus(Access(prometheus.url))
    text = 'envoy_cluster_endpoint_rq_total{envoy_cluster_name="cand"}'
    early, late = await asyncio.gather(
        asking.query(text, at=end - 300), asking.query(text, at=float(end))
    )
    await asking.close()
    assert isinstance(early, Answer)
    assert isinstance(late, Answer)
    assert early.evaluated_at == end - 300
    assert 0 < early.samples[0].value < late.samples[0].value
