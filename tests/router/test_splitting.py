"""Which server a request reaches: weights, copies, matches and sessions, with the real Envoy."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import sqrt
from typing import Any

import aiohttp
import pytest
from tests.router.running import Router, World

from mooring.api.traffic_spec import TrafficSpec
from mooring.core.traffic import Match, Route, Table

pytestmark = pytest.mark.envoy


async def send(
    client: aiohttp.ClientSession, url: str, count: int, **more: Any
) -> Counter[tuple[int, str]]:
    """Sends so many requests, 16 at a time; counts answers by (status, server)."""
    found: Counter[tuple[int, str]] = Counter()

    async def some(share: int) -> None:
        for _ in range(share):
            async with client.get(url, **more) as answer:
                await answer.read()
                found[answer.status, answer.headers.get("x-server", "")] += 1

    await asyncio.gather(*(some(count // 16 + (i < count % 16)) for i in range(16)))
    return found


def within(seen: int, of: int, share: float, sigmas: float = 3.0) -> bool:
    return abs(seen - of * share) <= sigmas * sqrt(of * share * (1 - share))


async def test_ten_thousand_requests_are_split_within_three_sigma_of_the_weights(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable, candidate = await world.revision("stable", 2, halved=True), await world.revision("next")
    router = await world.router(Table(Route({"stable": 95, "next": 5}), (stable, candidate)))

    answers = await send(client, router.url(), 10_000)

    assert {status for status, _ in answers} == {200}
    assert within(world.counts()["next"], 10_000, 0.05)
    halves = [
        await router.metric("envoy_cluster_upstream_rq_total", envoy_cluster_name=f"stable-{half}")
        for half in "ab"
    ]
    assert sum(halves) == world.counts()["stable"]
    assert within(int(halves[0]), int(sum(halves)), 0.5)
    attempts = await router.metric("envoy_cluster_endpoint_rq_total", envoy_cluster_name="next")
    assert attempts == world.counts()["next"]


async def test_a_weight_of_a_hundred_sends_everything_there(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable, candidate = await world.revision("stable"), await world.revision("next")
    router = await world.router(Table(Route({"next": 100, "stable": 0}), (stable, candidate)))
    await send(client, router.url(), 200)
    assert world.counts() == {"stable": 0, "next": 200}


async def test_copies_go_to_the_shadow_and_their_answers_to_nobody(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable, candidate = await world.revision("stable"), await world.revision("next")
    world.servers["next"][0].failing = True
    route = Route({"stable": 100}, mirrors={"next": 40})
    router = await world.router(Table(route, (stable, candidate)))

    answers = await send(client, router.url(), 2000)

    assert answers == {(200, "stable-0"): 2000}
    assert within(world.counts()["next"], 2000, 0.4)
    shadow = await router.metric(
        "envoy_cluster_upstream_rq_total", envoy_cluster_name="next-shadow"
    )
    assert shadow == world.counts()["next"]
    assert not await router.metric("envoy_cluster_upstream_rq_total", envoy_cluster_name="next")
    # A copy looks like the request itself.
    assert {h["host"] for h in world.servers["next"][0].seen} == {f"127.0.0.1:{router.number()}"}


async def test_every_header_of_a_match_goes_before_the_weights(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable, candidate = await world.revision("stable"), await world.revision("next")
    match = Match("next", (("x-tester", "yes"), ("x-region", "eu")))
    route = Route({"stable": 100}, matches=(match,))
    router = await world.router(Table(route, (stable, candidate)))

    both = {"x-tester": "yes", "X-Region": "eu"}
    assert await send(client, router.url(), 100, headers=both) == {(200, "next-0"): 100}
    for other in ({"x-tester": "yes"}, {"x-tester": "no", "x-region": "eu"}, {}):
        assert await send(client, router.url(), 20, headers=other) == {(200, "stable-0"): 20}
    matched = await router.metric(
        "envoy_cluster_upstream_rq_total", envoy_cluster_name="next-match"
    )
    assert matched == 100


async def servers_of(client: aiohttp.ClientSession, router: Router, users: int) -> dict[str, str]:
    """The one server of each user; fails when a user met two."""
    found = {}
    for user in map(str, range(users)):
        seen = await send(client, router.url(), 5, headers={"x-user": user})
        assert len(seen) == 1, (user, seen)
        found[user] = next(iter(seen))[1]
    return found


async def test_a_header_keeps_a_client_with_one_pod_also_when_the_candidate_grows(
    world: World, client: aiohttp.ClientSession
) -> None:
    traffic = TrafficSpec.model_validate({"sessionAffinity": {"header": "x-user"}})
    stable, candidate = await world.revision("stable", 3, halved=True), await world.revision("next")
    backends = (stable, candidate)
    router = await world.router(Table(Route({"stable": 80, "next": 20}), backends), traffic)

    before = await servers_of(client, router, 150)
    assert set(before.values()) == {"stable-0", "stable-1", "stable-2", "next-0"}
    assert within(sum(s == "next-0" for s in before.values()), 150, 0.2)

    await router.taken(router.write(Table(Route({"stable": 50, "next": 50}), backends), traffic))
    after = await servers_of(client, router, 150)
    assert all(after[user] == "next-0" for user, was in before.items() if was == "next-0")


async def test_a_cookie_is_given_once_and_keeps_its_client_with_one_pod(
    world: World, client: aiohttp.ClientSession
) -> None:
    cookie = {"name": "mooring-session", "ttl": "1h"}
    traffic = TrafficSpec.model_validate({"sessionAffinity": {"cookie": cookie}})
    stable, candidate = await world.revision("stable", 3), await world.revision("next")
    route = Route({"stable": 50, "next": 50})
    router = await world.router(Table(route, (stable, candidate)), traffic)

    met = set()
    for _ in range(20):
        # A connection of its own each time: Envoy makes the cookie's value from it. It chooses the
        # revision before it makes the cookie, so the first answer alone may be another's.
        async with client.get(router.url(), headers={"connection": "close"}) as first:
            given = first.cookies["mooring-session"]
        assert (given["max-age"], given["path"]) == ("3600", "/")
        seen = await send(
            client, router.url(), 8, headers={"cookie": f"mooring-session={given.value}"}
        )
        assert len(seen) == 1
        met |= {server for _, server in seen}
    assert {server.partition("-")[0] for server in met} == {"stable", "next"}


async def test_without_a_route_clients_are_told_so_in_json(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable")
    router = await world.router(Table(Route(), (stable,)))
    async with client.post(router.url("/v2/models/fraud/infer"), data=b"{}") as answer:
        assert answer.status == 503
        assert answer.content_type == "application/json"
        assert "no revision" in (await answer.json())["error"]
    assert world.counts() == {"stable": 0}
