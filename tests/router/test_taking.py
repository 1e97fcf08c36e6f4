"""What a router says of its routes, how it takes new ones, and what it shows to the network."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import aiohttp
import pytest
from tests.router.running import Router, World
from tests.router.test_splitting import send, within

from mooring.api.traffic_spec import TrafficSpec
from mooring.core.render.router.bootstrap import LATENCY_EDGES_MS
from mooring.core.render.router.envoy import envoy_files, envoy_version
from mooring.core.render.router.report import endpoints, report
from mooring.core.traffic import Match, Route, Table

pytestmark = pytest.mark.envoy

STABLE = Route({"stable": 100})


async def test_a_swapped_folder_is_taken_and_reported_within_a_second(world: World) -> None:
    stable, candidate = await world.revision("stable"), await world.revision("next")
    router = await world.router(Table(STABLE, (stable,)))
    for table in (
        Table(STABLE, (stable, candidate)),
        Table(Route({"stable": 90, "next": 10}), (stable, candidate)),
        Table(Route({"next": 100}), (stable, candidate)),
        Table(Route({"next": 100}), (candidate,)),
    ):
        start = time.monotonic()
        version = router.write(table)
        async with asyncio.timeout(60):
            while (await router.version())[0] != version:
                await asyncio.sleep(0.005)
        assert time.monotonic() - start < 5.0  # what is promised; it takes a tenth of a second
        assert await router.version() == (version, "")


@pytest.mark.parametrize("part", ["clusters", "routes of port http"])
@pytest.mark.parametrize("broken", ["{", '{"version_info": "x", "resources": [{"@type": "y"}]}'])
async def test_what_envoy_refuses_is_a_problem_and_not_taken(
    world: World, client: aiohttp.ClientSession, part: str, broken: str
) -> None:
    stable, candidate = await world.revision("stable"), await world.revision("next")
    first = Table(STABLE, (stable,))
    router = await world.router(first)
    old = (await router.version())[0]
    files = envoy_files(
        Table(Route({"stable": 80, "next": 20}), (stable, candidate)),
        TrafficSpec(),
        deployment="fraud",
        namespace="shop",
    )
    name = "cds.json" if part == "clusters" else "rds-http.json"
    router.swap(files | {name: broken})
    async with asyncio.timeout(60):
        while "refused" not in (await router.version())[1]:
            await asyncio.sleep(0.01)

    taken, problem = await router.version()
    assert taken not in (old, envoy_version(files))
    # Its new clusters may wait for their first answer of the DNS server beside that.
    assert problem.partition("; ")[0] == f"the router has refused 1 update of its {part}"
    # It goes on by what it has; what is right again is taken again.
    assert (await send(client, router.url(), 20)).keys() >= {(200, "stable-0")}
    version = router.write(first)
    await router.taken(version)
    assert set(await send(client, router.url(), 20)) == {(200, "stable-0")}


async def test_a_pod_is_reported_only_when_the_router_can_reach_it(world: World) -> None:
    stable, candidate = await world.revision("stable"), await world.revision("next")
    host = candidate.host
    addresses = world.names.addresses.pop(host)
    router = await world.router(Table(STABLE, (stable,)))
    version = router.write(Table(STABLE, (stable, candidate)))
    async with asyncio.timeout(60):
        # The version is taken: a backend without pods stands in nobody's way.
        while (await router.version())[0] != version:
            await asyncio.sleep(0.01)

    async def known() -> bool:
        return endpoints((await router.ask("/version"))[1]).get("next", 0) > 0

    assert not await known()
    world.names.addresses[host] = addresses
    async with asyncio.timeout(60):
        while not await known():
            await asyncio.sleep(0.01)


async def test_120_changes_of_backends_under_load_lose_no_request(
    world: World, client: aiohttp.ClientSession
) -> None:
    """Make before break: added in one swap, routed to in the next, removed in one after that, and
    each swap only once the one before is reported as taken.
    """
    backends = [await world.revision(f"rev{i}", halved=i % 2 == 0) for i in range(4)]
    current = backends[0]
    router = await world.router(Table(Route({current.revision: 100}), (current,)))
    done = False
    bad: list[int] = []
    sent = 0

    async def load() -> None:
        nonlocal sent
        while not done:
            async with client.get(router.url()) as answer:
                await answer.read()
                sent += 1
                if answer.status != 200:
                    bad.append(answer.status)

    loads = [asyncio.create_task(load()) for _ in range(8)]
    changes = 0
    while changes < 120:
        fresh = backends[(backends.index(current) + 1) % len(backends)]
        both = (current, fresh)
        for table in (
            Table(Route({current.revision: 100}), both),
            Table(Route({current.revision: 50, fresh.revision: 50}), both),
            Table(Route({fresh.revision: 100}), both),
            Table(Route({fresh.revision: 100}), (fresh,)),
        ):
            await router.taken(router.write(table))
        current = fresh
        changes += 2  # one backend came, one went
    done = True
    await asyncio.gather(*loads)

    assert bad == []
    assert sent > changes
    assert await router.metric("envoy_http_no_cluster") == 0


async def test_halving_stable_and_back_under_load_loses_no_request_and_keeps_the_weights(
    world: World, client: aiohttp.ClientSession
) -> None:
    """The clusters of the halves come a swap before the traffic and leave a swap after it, with a
    candidate beside them whose requests may fall back to stable.
    """
    stable, candidate = await world.revision("stable", 2), await world.revision("next")
    route = Route({"stable": 75, "next": 25})
    router = await world.router(Table(route, (stable, candidate)))
    states = (
        replace(stable, divisible=True),
        replace(stable, divisible=True, halved=True),
        replace(stable, divisible=True),
        stable,
    )
    done = False
    answers: Counter[int] = Counter()

    async def load() -> None:
        while not done:
            async with client.get(router.url()) as answer:
                await answer.read()
                answers[answer.status] += 1

    loads = [asyncio.create_task(load()) for _ in range(8)]
    for _ in range(30):
        for state in states:
            await router.taken(router.write(Table(route, (state, candidate))))
    done = True
    await asyncio.gather(*loads)

    assert set(answers) == {200}
    assert await router.metric("envoy_http_no_cluster") == 0
    assert within(world.counts()["next"], sum(answers.values()), 0.25, sigmas=4.0)


async def test_the_network_sees_metrics_and_versions_and_nothing_else_of_the_admin_interface(
    world: World,
) -> None:
    stable = await world.revision("stable")
    router = await world.router(Table(STABLE, (stable,)))
    shown = {True: {"/stats/prometheus"}, False: {"/version", "/ready", "/live"}}
    paths = (
        "/", "/stats", "/stats/prometheus", "/stats/prometheus/", "/stats/prometheus?filter=.*",
        "/version", "/version?filter=.*", "/version/../stats", "/ready", "/ready?x", "/live",
        "/config_dump", "/clusters", "/certs", "/help", "/logging", "/quitquitquit", "/memory",
        "/healthcheck/fail", "/drain_listeners", "/drain_listeners?graceful", "/runtime_modify",
    )  # fmt: skip
    for metrics, wanted in shown.items():
        for path in paths:
            assert (await router.ask(path, metrics=metrics))[0] == (200 if path in wanted else 404)
            for method in ("POST", "PUT", "DELETE", "HEAD"):
                assert (await router.ask(path, metrics=metrics, method=method))[0] == 404
    assert router.process is not None
    assert router.process.returncode is None


async def test_the_admin_interface_itself_answers_only_what_is_needed(world: World) -> None:
    stable = await world.revision("stable")
    router = await world.router(Table(STABLE, (stable,)))
    for path in ("/quitquitquit", "/config_dump", "/logging?level=trace", "/reset_counters"):
        assert await asyncio.to_thread(admin_status, router, path) == 403


def admin_status(router: Router, path: str) -> int:
    """The status of a POST to the admin socket, which the test itself may not connect to."""
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        "s.sendall(f'POST {sys.argv[2]} HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 0\\r\\n\\r\\n'"
        ".encode()); print(s.recv(100).split()[1].decode())"
    )
    command = [sys.executable, "-S", "-c", program, str(router.admin), path]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)


async def test_prometheus_finds_what_a_rollout_is_judged_by(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable, candidate = await world.revision("stable", 2, halved=True), await world.revision("next")
    matches = (Match("next", (("x-tester", "yes"),)),)
    router = await world.router(
        Table(Route({"stable": 50, "next": 50}, matches=matches), (stable, candidate))
    )
    await send(client, router.url("/status/500"), 50)
    await send(client, router.url("/sleep/0.03"), 50)
    _, text = await router.ask("/stats/prometheus", metrics=True)

    for cluster in ("stable-a", "stable-b", "next"):
        label = f'envoy_cluster_name="{cluster}"'
        for metric in (
            "envoy_cluster_upstream_rq_xx", "envoy_cluster_canary_upstream_rq_time_bucket",
            "envoy_cluster_upstream_rq_active", "envoy_cluster_membership_healthy",
            "envoy_cluster_outlier_detection_ejections_active", "envoy_cluster_endpoint_rq_total",
            "envoy_cluster_endpoint_rq_success", "envoy_cluster_endpoint_rq_error",
            "envoy_cluster_endpoint_rq_timeout", "envoy_cluster_endpoint_rq_active",
        ):  # fmt: skip
            lines = [x for x in text.splitlines() if x.startswith(f"{metric}{{") and label in x]
            assert lines, (metric, cluster)
    buckets = [
        line for line in text.splitlines()
        if line.startswith("envoy_cluster_canary_upstream_rq_time_bucket") and '"next"' in line
    ]  # fmt: skip
    edges = [line.partition('le="')[2].partition('"')[0] for line in buckets]
    assert edges == [*map(str, LATENCY_EDGES_MS), "+Inf"]
    assert '"@admin"' not in text
    assert len(text) < 100_000


async def test_a_router_stays_small(world: World, client: aiohttp.ClientSession) -> None:
    backends = tuple([await world.revision(f"rev{i}", 2, halved=True) for i in range(3)])
    router = await world.router(Table(Route({"rev0": 90, "rev1": 10}), backends))
    await send(client, router.url(), 500)
    assert await router.metric("envoy_server_memory_allocated") < 32 << 20


async def test_a_router_without_any_file_of_a_port_of_no_backend_still_starts(
    world: World, client: aiohttp.ClientSession
) -> None:
    """Its files name every port of the bootstrap, whatever the backends have."""
    router = await world.router(Table(Route(), ()))
    assert json.loads((router.routes / "rds-http.json").read_text())["resources"]
    text = (await router.ask("/version"))[1]
    assert report(text)[0]
    assert set(await send(client, router.url(), 5)) == {(503, "")}
