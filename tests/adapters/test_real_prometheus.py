"""The queries against a real Prometheus: its answer is what the routers exported, in one scrape."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.real_prometheus import Exporter, RealPrometheus, running
from tests.faults.prometheus_proxy import Fault, PrometheusProxy

from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_access import Access
from mooring.adapters.prometheus_counters import read_counters
from mooring.core.answers import Answer, NoAnswer, Reason, read_keyed, single_value
from mooring.core.halves import Halved, Sums
from mooring.core.halves import query as query_halves
from mooring.core.halves import read as read_halves
from mooring.core.promql import Bound, prepare
from mooring.core.render.router.fallback import OWN
from mooring.core.router_counters import KEY, Attempts, ScrapeLabels, Source, Target, query
from mooring_dev.health import wait_until
from mooring_dev.ports import claim

pytestmark = pytest.mark.prometheus

POD = "fraud-router-5c8d9f7b9c-abcde"
TARGET = Target("shop", "fraud", ("cand", "stab-a", "stab-b"), edges=(10.0, 13.0, 100.0))


def exported(n: int, namespace: str = "shop", pod: str = POD) -> str:
    """The n-th scrape of a router: everything in it is a multiple of n."""
    lines = []
    for cluster in ("cand", "stab-a", "stab-b", "cand-shadow"):
        common = f'namespace="{namespace}",pod="{pod}",envoy_cluster_name="{cluster}"'
        for address in ("10.0.0.1:80", "10.0.0.2:80"):
            for kind, times in (("total", 10), ("success", 7), ("error", 2), ("active", 1)):
                labels = f'{common},envoy_endpoint_address="{address}"'
                lines.append(f"envoy_cluster_endpoint_rq_{kind}{{{labels}}} {times * n}")
        lines.append(f"envoy_cluster_membership_total{{{common}}} 2")
        for edge, times in (("10", 1), ("13", 3), ("50", 5), ("100", 6), ("+Inf", 9)):
            name = f'envoy_cluster_canary_upstream_rq_time_bucket{{{common},le="{edge}"}}'
            lines.append(f"{name} {times * n}")
    lines.append(f'envoy_server_uptime{{namespace="{namespace}",pod="{pod}"}} {n}')
    return "\n".join(lines) + "\n"


class Router:
    """Exports a scrape that tells its number by every value."""

    def __init__(self, namespace: str = "shop") -> None:
        self.namespace = namespace
        self.n = 0

    def __call__(self) -> str:
        self.n += 1
        return exported(self.n, self.namespace)


@pytest.fixture(scope="module")
def router() -> Iterator[Exporter]:
    with Exporter(Router()).run() as running_exporter:
        yield running_exporter


@pytest.fixture(scope="module")
def bank() -> Iterator[Exporter]:
    """The router of another tenant, whose pod and clusters have the same names."""
    with Exporter(Router("bank")).run() as running_exporter:
        yield running_exporter


@pytest.fixture(scope="module")
def prometheus(
    router: Exporter, bank: Exporter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealPrometheus]:
    targets: Any = {router.address: ("/metrics", {}), bank.address: ("/metrics", {})}
    with running(tmp_path_factory.mktemp("prometheus"), targets) as real:
        for namespace in ("shop", "bank"):
            real.wait_for(f'envoy_cluster_membership_total{{namespace="{namespace}"}}')
        yield real


async def source(asking: Prometheus, target: Target = TARGET) -> Source:
    reading = await read_counters(asking, [target])
    assert not reading.failed, reading.failed
    (one,) = reading.sources[target.key]
    return one


async def test_one_answer_is_one_scrape_with_its_time(prometheus: RealPrometheus) -> None:
    asking = Prometheus(Access(prometheus.url))
    times: dict[float, float] = {}
    began = time.monotonic()
    while len(times) < 4 and time.monotonic() - began < 20:
        one = await source(asking)
        assert set(one.clusters) == set(TARGET.clusters)
        n = one.clusters["cand"].endpoints["10.0.0.1:80"].total / 10
        for counts in one.clusters.values():
            assert set(counts.endpoints.values()) == {Attempts(10 * n, 7 * n, 2 * n, n)}
            assert counts.latency == (n, 2 * n, 3 * n, 3 * n)
        assert one.born == one.at - n
        assert times.setdefault(n, one.at) == one.at
        assert 0 <= one.age < 3
    await asking.close()
    assert len(times) == 4
    assert sorted(times.values()) == [times[n] for n in sorted(times)]


async def test_the_sums_of_the_halves_are_those_of_their_windows(
    prometheus: RealPrometheus,
) -> None:
    """Each second every counter of both halves rises by the same multiple, so a = b."""
    asked = [Halved("shop", "fraud", (13.0,)), Halved("bank", "other")]
    asking = Prometheus(Access(prometheus.url))

    async def sums() -> dict[str, Sums]:
        body = query_halves(asked, span=8, window=2)
        answer = await asking.read(body, lambda data, _: read_keyed(data, KEY))
        assert not isinstance(answer, NoAnswer), answer
        found = read_halves(answer, asked)
        assert found["bank", "other"].channels == {}
        return dict(found["shop", "fraud"].channels)

    async with asyncio.timeout(40):
        while (found := await sums()).get("errors", Sums()).windows < 3:
            await asyncio.sleep(0.5)
    await asking.close()
    assert set(found) == {"errors", "13"}
    for channel, each in (("errors", 4), ("13", 6)):
        one = found[channel]
        assert one.both > 0
        assert one.both % each == 0
        assert 2 * one.halves_squared == one.both_squared
        assert one.windows <= 4


async def test_a_router_that_is_not_scraped_gives_no_source(
    prometheus: RealPrometheus, router: Exporter
) -> None:
    asking = Prometheus(Access(prometheus.url))
    router.broken = True
    try:
        async with asyncio.timeout(60):
            while (await read_counters(asking, [TARGET])).sources:
                await asyncio.sleep(0.1)
        reading = await read_counters(asking, [TARGET])
        assert (dict(reading.sources), dict(reading.failed)) == ({}, {})
    finally:
        router.broken = False
        prometheus.wait_for('envoy_cluster_membership_total{namespace="shop"}')
        await asking.close()


async def test_a_model_pod_that_does_not_answer_is_named(
    prometheus: RealPrometheus, router: Exporter
) -> None:
    """The exporter stands for a model pod here: ``up`` is Prometheus' own."""
    asking = Prometheus(Access(prometheus.url))
    labels = ScrapeLabels("job", "instance")
    job = prometheus.ask(f'up{{instance="{router.address}"}}')[0]["metric"]["job"]
    names = Target(job, "fraud", ("cand",), models=("127.0.0.1",))
    text = query([names], labels)
    found = await asking.query(text.replace("127[.]0[.]0[.]1-.+", ".+"))
    assert isinstance(found, Answer)
    keys = {s.labels["mooring_key"]: s.value for s in found.samples}
    assert keys[f"{job}|{router.address}|up"] == 1.0
    await asking.close()


async def test_with_prometheus_stopped_the_reason_is_given_and_then_it_goes_on(
    prometheus: RealPrometheus,
) -> None:
    asking = Prometheus(Access(prometheus.url))
    before = await source(asking)
    prometheus.stop()
    reading = await read_counters(asking, [TARGET])
    assert reading.failed[TARGET.key].reason is Reason.REFUSED
    assert not reading.sources
    prometheus.start()
    after = before
    async with asyncio.timeout(60):
        while after.at <= before.at:
            await asyncio.sleep(0.1)
            reading = await read_counters(asking, [TARGET])
            if TARGET.key in reading.sources:
                (after,) = reading.sources[TARGET.key]
    counts = [one.clusters["cand"].endpoints["10.0.0.1:80"].total for one in (before, after)]
    assert counts[0] < counts[1]
    await asking.close()


@pytest.mark.parametrize(
    "query",
    [
        "sum(envoy_cluster_membership_total)",
        '{__name__=~"envoy_cluster_membership_.*",envoy_cluster_name="cand"}',
        'count(count by (namespace) ({__name__=~".+"})) * 8',
        'max(label_replace(sum(envoy_cluster_membership_total), "namespace", "bank", "", ""))',
        "sum(max_over_time(envoy_cluster_membership_total[10s:1s]))",
        'sum(envoy_cluster_membership_total{a!=`"} or envoy_cluster_membership_total{b!="`})',
    ],
)
async def test_a_free_query_sees_its_own_namespace_alone(
    prometheus: RealPrometheus, query: str
) -> None:
    asking = Prometheus(Access(prometheus.url))
    prepared = prepare(query, Bound("shop", "fraud", "abc"))
    found = single_value(await asking.query(prepared.text, single=True))
    await asking.close()
    assert not isinstance(found, NoAnswer), found
    # Four clusters with two members each, in one of two namespaces.
    assert found.value in (8.0, 2.0)
    everything = prometheus.ask("sum(envoy_cluster_membership_total)")
    assert everything[0]["value"][1] == "16"


async def test_prometheus_own_words_about_a_query_are_passed_on(
    prometheus: RealPrometheus,
) -> None:
    asking = Prometheus(Access(prometheus.url))
    found = await asking.query("sum(")
    await asking.close()
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.QUERY
    assert "parse error" in found.message


async def test_a_proxy_that_misbehaves_leaves_each_rollout_with_a_reason(
    prometheus: RealPrometheus,
) -> None:
    with PrometheusProxy(upstream=prometheus.url).run() as proxy:
        asking = Prometheus(Access(proxy.url))
        good = await source(asking)
        for fault in (
            Fault.RESET, Fault.UNAVAILABLE, Fault.HTML, Fault.STATUS_ERROR, Fault.TRUNCATED,
        ):  # fmt: skip
            proxy.fault = fault
            reading = await read_counters(asking, [TARGET])
            assert set(reading.failed) == {TARGET.key}, fault
            assert reading.failed[TARGET.key].message, fault
            assert not reading.sources, fault
        for fault in (Fault.EMPTY, Fault.NAN, Fault.INF):
            proxy.fault = fault
            assert await read_counters(asking, [TARGET]) == await read_counters(asking, []), fault
        for fault in (Fault.WARNINGS, Fault.PARTIAL):  # counters only rise: what is there counts
            proxy.fault = fault
            reading = await read_counters(asking, [TARGET])
            assert reading.warnings, fault
            assert set(reading.sources) == {TARGET.key}, fault
        proxy.fault = Fault.SWAPPED
        proxy.swap = {"cand": "elsewhere"}
        swapped = await source(asking)
        assert swapped.at >= good.at
        assert set(good.clusters) - set(swapped.clusters) == {"cand"}, "it is gone, and no zero"
        await asking.close()


# --- the real router ----------------------------------------------------------------------------

_ENVOY = Path(sys.executable).parent / "envoy"


def bootstrap(admin: int, public: int, upstream: str) -> dict[str, Any]:
    host, port = upstream.split(":")
    kind = "type.googleapis.com/envoy.extensions.filters."
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(port)}}}
    manager = {
        "@type": kind + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "cand"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": kind + "http.router.v3.Router"},
            }
        ],
    }
    chain = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listen = {"socket_address": {"address": "127.0.0.1", "port_value": public}}
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"prefix": "cluster."}, "buckets": [10, 13, 100, 1000]}
            ]
        },
        "static_resources": {
            "listeners": [{"address": listen, "filter_chains": [{"filters": [chain]}]}],
            "clusters": [
                {
                    "name": "cand",
                    "type": "STRICT_DNS",
                    "track_cluster_stats": {"per_endpoint_stats": True},
                    "load_assignment": {
                        "cluster_name": "cand",
                        "endpoints": [{"lb_endpoints": [{"endpoint": endpoint, "metadata": OWN}]}],
                    },
                }
            ],
        },
    }


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@contextmanager
def routing(config: Path, url: str) -> Iterator[None]:
    """A real Envoy that runs by ``config``, once it routes to ``url``."""
    command = [str(_ENVOY), "-c", str(config), "--concurrency", "1", "--log-level", "error",
               "--use-dynamic-base-id"]  # fmt: skip
    with config.with_suffix(".log").open("wb") as log:
        envoy = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until("Envoy routes", lambda: _status(url) == 200, timeout=60.0, check=lambda: None)
        yield
    finally:
        envoy.terminate()
        envoy.wait(20)


async def test_the_real_envoy_s_counters_arrive_as_they_are(tmp_path: Path) -> None:
    model = Exporter(lambda: "")
    ports = claim(2)
    admin, public = ports.ports
    url = f"http://127.0.0.1:{public}"
    config = tmp_path / "envoy.json"
    targets: Any = {f"127.0.0.1:{admin}": ("/stats/prometheus", {"namespace": "shop", "pod": POD})}
    with model.run():
        config.write_text(json.dumps(bootstrap(admin, public, model.address)))
        with routing(config, url):
            model.broken = True
            assert [_status(url) for _ in range(3)] == [500] * 3
            with running(tmp_path / "prometheus", targets) as real:
                real.wait_for("envoy_cluster_endpoint_rq_total")
                asking = Prometheus(Access(real.url))
                target = Target("shop", "fraud", ("cand",), edges=(10.0, 13.0, 100.0))
                one = await source(asking, target)
                await asking.close()
    ports.release()
    counts = one.clusters["cand"]
    (attempts,) = counts.endpoints.values()
    assert (attempts.error, attempts.active) == (3, 0)
    assert attempts.total == attempts.success + attempts.error
    assert one.born is not None
    assert 0 <= one.at - one.born < 300
    assert counts.latency is not None
    assert sum(counts.latency) == attempts.total


async def test_the_limit_of_one_series_is_understood(prometheus: RealPrometheus) -> None:
    asking = Prometheus(Access(prometheus.url))
    found = await asking.query("envoy_cluster_endpoint_rq_total", single=True)
    await asking.close()
    assert isinstance(found, Answer)
    assert len(found.samples) == 5
    refused = single_value(found)
    assert isinstance(refused, NoAnswer)
