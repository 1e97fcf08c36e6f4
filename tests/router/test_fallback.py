"""A revision that loses all its pods: nobody loses a request, and evidence stays apart."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import aiohttp
import pytest
from tests.router.running import Router, World
from tests.router.test_splitting import send

from mooring.api.traffic_spec import TrafficSpec
from mooring.core.render.router.fallback import fallback_of
from mooring.core.traffic import Route, Table

HOST = "fraud-next.shop.svc.cluster.local"
COUNTED = "envoy_cluster_endpoint_rq_total"
TIMED = "envoy_cluster_canary_upstream_rq_time_count"
NEVER_EJECTED = {"consecutiveErrors": 0}


@pytest.mark.parametrize(
    ("weights", "of", "found"),
    [
        ({"a": 95, "b": 5}, "b", "a"),
        ({"a": 95, "b": 5}, "a", None),
        ({"a": 50, "b": 50}, "a", "b"),
        ({"a": 50, "b": 50}, "b", "a"),
        ({"a": 20, "b": 50, "c": 30}, "a", "b"),
        ({"a": 20, "b": 50, "c": 30}, "c", "b"),
        ({"a": 100}, "a", None),
    ],
)
def test_requests_fall_to_whoever_has_the_most_and_never_to_fewer_pods(
    weights: dict[str, int], of: str, found: str | None
) -> None:
    assert fallback_of(of, weights) == found


async def metric(router: Router, name: str, *clusters: str) -> dict[str, float]:
    return {c: await router.metric(name, envoy_cluster_name=c) for c in clusters}


async def steadily(client: aiohttp.ClientSession, url: str, until: asyncio.Event) -> Counter[int]:
    """Requests, eight at a time, until told otherwise; their status, 0 for a broken connection."""
    found: Counter[int] = Counter()

    async def one() -> None:
        while not until.is_set():
            try:
                async with client.get(url) as answer:
                    await answer.read()
                    found[answer.status] += 1
            except aiohttp.ClientError:
                found[0] += 1
            await asyncio.sleep(0.005)

    await asyncio.gather(*(one() for _ in range(8)))
    return found


async def rises(router: Router, name: str, cluster: str, seconds: float = 60) -> None:
    """Waits until something is counted there that was not counted before."""
    before = await router.metric(name, envoy_cluster_name=cluster)
    end = time.monotonic() + seconds
    while await router.metric(name, envoy_cluster_name=cluster) <= before + 20:
        assert time.monotonic() < end, f"nothing at {cluster}"
        await asyncio.sleep(0.1)


async def pods(router: Router, cluster: str, count: int) -> None:
    while (
        await router.metric("envoy_cluster_membership_total", envoy_cluster_name=cluster) != count
    ):
        await asyncio.sleep(0.05)


@pytest.mark.envoy
@pytest.mark.parametrize("affinity", [{}, {"sessionAffinity": {"header": "x-user"}}])
async def test_no_request_is_lost_with_all_pods_of_a_candidate_and_each_is_counted_once(
    world: World, client: aiohttp.ClientSession, affinity: dict[str, object]
) -> None:
    stable, following = await world.revision("stable", 2), await world.revision("next", 2)
    addresses = world.names.addresses[HOST]
    table = Table(Route({"stable": 80, "next": 20}), (stable, following))
    router = await world.router(
        table, TrafficSpec.model_validate({"outlierDetection": NEVER_EJECTED, **affinity})
    )
    over = asyncio.Event()
    load = asyncio.create_task(steadily(client, router.url(), over))
    await rises(router, COUNTED, "next")
    for server in world.servers["next"]:
        await server.stop()
    await rises(router, COUNTED, "stable-fallback")  # refused: DNS still names them
    world.names.addresses[HOST] = ()
    await pods(router, "next", 0)
    await rises(router, COUNTED, "stable-fallback")  # and now it does not
    served = sum(server.requests for server in world.servers["next"])
    for server, address in zip(world.servers["next"], addresses, strict=True):
        await server.start(address, world.ports[0].number)
    world.names.addresses[HOST] = addresses
    await rises(router, COUNTED, "next")
    over.set()
    answers = await load

    assert set(answers) == {200}
    counts = world.counts()
    assert counts["next"] > served, "it has its share again"
    assert sum(counts.values()) == answers[200]
    attempts = await metric(router, "envoy_cluster_upstream_rq_total", "stable", "stable-fallback")
    assert sum(attempts.values()) == counts["stable"]
    expected = {"stable": attempts["stable"], "next": counts["next"], "stable-fallback": 0}
    # Histograms are brought together every five seconds, and not all at one moment.
    end = time.monotonic() + 30
    timed: dict[str, float] = {}
    while timed != expected and time.monotonic() < end:
        await asyncio.sleep(0.2)
        timed = await metric(router, TIMED, *expected)
    assert timed == expected, "the latency of each is that of its own answers"


@pytest.mark.envoy
async def test_stable_s_requests_are_not_put_on_a_candidate_s_few_pods(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable, following = await world.revision("stable", 1), await world.revision("next", 1)
    table = Table(Route({"stable": 90, "next": 10}), (stable, following))
    router = await world.router(table)
    await world.servers["stable"][0].stop()
    answers: Counter[int] = Counter()
    for (status, _), count in (await send(client, router.url(), 200)).items():
        answers[status] += count
    assert answers[503] > 100
    assert world.counts()["next"] == answers[200]


@pytest.mark.envoy
async def test_while_one_pod_answers_no_request_falls_back(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable, following = await world.revision("stable", 2), await world.revision("next", 2)
    table = Table(Route({"stable": 50, "next": 50}), (stable, following))
    ejecting = {"outlierDetection": {"consecutiveErrors": 3, "interval": "1s"}}
    router = await world.router(table, TrafficSpec.model_validate(ejecting))
    world.servers["next"][0].failing = True
    await send(client, router.url(), 200)
    active = "envoy_cluster_outlier_detection_ejections_active"
    assert await router.metric(active, envoy_cluster_name="next") == 1
    await send(client, router.url(), 200)
    assert await router.metric(COUNTED, envoy_cluster_name="stable-fallback") == 0
    assert world.servers["next"][1].requests > 50
