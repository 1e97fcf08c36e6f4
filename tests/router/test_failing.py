"""What a client sees of servers that are slow, broken or gone, with the real Envoy."""

from __future__ import annotations

import asyncio
import time
from io import BytesIO

import aiohttp
import grpc
import grpc.aio
import pytest
from tests.router.running import Router, World
from tests.router.servers import free_port
from tests.router.test_splitting import send

from mooring.api.traffic_spec import TrafficSpec
from mooring.core.traffic import Backend, BackendPort, Route, Table

pytestmark = pytest.mark.envoy

STABLE = Route({"stable": 100})
NEVER_EJECTED = {"consecutiveErrors": 0}


def traffic(**fields: object) -> TrafficSpec:
    return TrafficSpec.model_validate({"outlierDetection": NEVER_EJECTED, **fields})


async def test_a_request_beyond_the_timeout_is_answered_504(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable")
    router = await world.router(Table(STABLE, (stable,)), traffic(timeout="1s"))
    start = time.monotonic()
    async with client.get(router.url("/sleep/20")) as answer:
        assert answer.status == 504
        assert "timeout" in (await answer.json())["error"]
    assert time.monotonic() - start < 10
    assert (
        await router.metric("envoy_cluster_upstream_rq_timeout", envoy_cluster_name="stable") == 1
    )
    # The attempt counts as an error of the revision.
    assert (
        await router.metric("envoy_cluster_endpoint_rq_timeout", envoy_cluster_name="stable") == 1
    )


async def test_an_answer_is_never_asked_for_again_whatever_it_says(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable", 2)
    router = await world.router(Table(STABLE, (stable,)), traffic(retries=3))
    async with client.get(router.url("/status/503")) as answer:
        assert answer.status == 503
    assert world.counts() == {"stable": 1}


async def test_no_client_notices_a_pod_that_is_gone_while_dns_still_names_it(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable", 2)
    world.dead_address("stable")
    router = await world.router(Table(STABLE, (stable,)), traffic())

    answers = await send(client, router.url(), 1000)

    assert {status for status, _ in answers} == {200}
    failed = await router.metric(
        "envoy_cluster_upstream_cx_connect_fail", envoy_cluster_name="stable"
    )
    assert failed > 0


async def test_a_large_body_is_sent_again_too_when_nobody_took_it(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable", 1)
    world.dead_address("stable")
    router = await world.router(Table(STABLE, (stable,)), traffic())
    body = bytes(10 << 20)
    for _ in range(12):
        async with client.post(router.url(), data=BytesIO(body)) as answer:
            assert answer.status == 200
            assert (await answer.json())["bytes"] == len(body)
    failed = await router.metric(
        "envoy_cluster_upstream_cx_connect_fail", envoy_cluster_name="stable"
    )
    assert failed > 0


async def test_a_copy_of_a_large_body_arrives_whole_or_not_at_all(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable, candidate = await world.revision("stable"), await world.revision("next")
    route = Route({"stable": 100}, mirrors={"next": 100})
    router = await world.router(Table(route, (stable, candidate)), traffic())
    for size in (1 << 20, 10 << 20):
        async with client.post(router.url(f"/{size}"), data=BytesIO(bytes(size))) as answer:
            assert (answer.status, (await answer.json())["bytes"]) == (200, size)
    async with asyncio.timeout(60):
        while world.servers["next"][0].paths["/1048576"] < 1:
            await asyncio.sleep(0.02)
    sizes = {int(h["content-length"]) for h in world.servers["next"][0].seen}
    assert 1 << 20 in sizes


async def test_a_connection_that_breaks_before_the_answer_is_tried_once_more(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable", 2)
    router = await world.router(Table(STABLE, (stable,)), traffic(retries=1))
    async with client.get(router.url("/reset")) as answer:
        assert answer.status == 503
    assert world.counts() == {"stable": 2}
    # Each attempt is counted, at the pod that broke it.
    assert await router.metric("envoy_cluster_endpoint_rq_total", envoy_cluster_name="stable") == 2
    assert await router.metric("envoy_cluster_endpoint_rq_error", envoy_cluster_name="stable") == 2


async def test_a_pod_that_fails_again_and_again_is_left_out_and_the_last_one_never(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable, alone = await world.revision("stable", 2), await world.revision("alone")
    detection = {"consecutiveErrors": 5, "baseEjectionTime": "60s", "interval": "1s"}
    spec = traffic(outlierDetection=detection)
    router = await world.router(Table(STABLE, (stable, alone)), spec)
    world.servers["stable"][0].failing = True
    await send(client, router.url(), 100)
    assert set(await send(client, router.url(), 100)) == {(200, "stable-1")}
    active = "envoy_cluster_outlier_detection_ejections_active"
    assert await router.metric(active, envoy_cluster_name="stable") == 1

    world.servers["alone"][0].failing = True
    await router.taken(router.write(Table(Route({"alone": 100}), (stable, alone)), spec))
    assert set(await send(client, router.url(), 50)) == {(500, "alone-0")}
    assert await router.metric(active, envoy_cluster_name="alone") == 0


async def test_a_client_cannot_set_the_router_s_timeouts_and_retries(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable")
    router = await world.router(Table(STABLE, (stable,)), traffic())
    forged = {
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-envoy-max-retries": "9",
    }
    async with client.get(router.url("/sleep/0.2"), headers=forged) as answer:
        assert answer.status == 200
    async with client.get(router.url("/status/500"), headers=forged) as answer:
        assert answer.status == 500
    assert world.counts() == {"stable": 2}
    for seen in world.servers["stable"][0].seen:
        assert not [name for name in seen if name.startswith("x-envoy")]


# --- gRPC ---------------------------------------------------------------------------------------


class Echo(grpc.GenericRpcHandler):
    """Answers any unary call with its own bytes; the method Fail with INTERNAL."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            if details.method.endswith("/Fail"):
                await context.abort(grpc.StatusCode.INTERNAL, "the model failed")
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


def method(channel: grpc.aio.Channel, name: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """Bytes in, bytes out."""
    return channel.unary_unary(f"/inference.GRPCInferenceService/{name}", bytes, bytes)


async def test_grpc_passes_beside_rest_and_its_failures_are_counted(
    world: World, client: aiohttp.ClientSession
) -> None:
    rest = await world.revision("stable")
    ports = (*world.ports, BackendPort("grpc", free_port(), http2=True))
    address = world.names.addresses[rest.host][0]
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(f"{address}:{ports[1].number}")
    await server.start()
    world.ports = ports
    backend = Backend("stable", rest.host, ports)
    router = await world.router(Table(STABLE, (backend,)), traffic())

    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{router.number('grpc')}", options) as channel:
        infer = method(channel, "ModelInfer")
        big = bytes(10 << 20)
        assert await infer(b"small") == b"small"
        assert await infer(big) == big
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await method(channel, "Fail")(b"")
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        assert failed.value.details() == "the model failed"
    async with client.get(router.url()) as answer:
        assert answer.status == 200
    await server.stop(None)

    async def endpoint(name: str) -> float:
        metric = f"envoy_cluster_endpoint_{name}"
        return await router.metric(metric, envoy_cluster_name="stable_grpc")

    assert (await endpoint("rq_total"), await endpoint("rq_error")) == (3, 1)


async def test_grpc_without_a_route_is_unavailable(world: World) -> None:
    stable = await world.revision("stable")
    router = await world.router(Table(Route(), (stable,)))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{router.number()}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await method(channel, "ModelInfer")(b"")
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


# --- the end of a pod ---------------------------------------------------------------------------


async def test_a_router_that_ends_cuts_no_request(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable", 2)
    router = await world.router(Table(STABLE, (stable,)), traffic())
    slow = [asyncio.create_task(status(client, router.url("/sleep/2"))) for _ in range(20)]
    quick: list[int] = []
    async with asyncio.timeout(60):
        while world.counts()["stable"] < 20:
            await asyncio.sleep(0.01)

    drained = asyncio.create_task(router.drain(1.0, 30.0))
    while not drained.done():
        # The cluster goes on sending for a moment, until every node has heard of it.
        if not all(task.done() for task in slow):
            quick.append(await status(client, router.url()))
        await asyncio.sleep(0.01)
    assert await drained == 0
    assert router.process is not None
    router.process.terminate()
    await router.process.wait()

    assert [await task for task in slow] == [200] * 20
    assert len(quick) > 20
    assert set(quick) == {200}


async def test_connections_are_given_back_while_a_router_drains(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable")
    router = await world.router(Table(STABLE, (stable,)), traffic())
    async with client.get(router.url()) as answer:
        assert "connection" not in answer.headers
    drained = asyncio.create_task(router.drain(1.0, 5.0))
    async with asyncio.timeout(60):
        while True:
            async with client.get(router.url()) as answer:
                assert answer.status == 200
                if answer.headers.get("connection") == "close":
                    break
    assert await drained == 0


async def test_the_drain_helper_says_what_it_left_in_flight(
    world: World, client: aiohttp.ClientSession
) -> None:
    stable = await world.revision("stable")
    router = await world.router(Table(STABLE, (stable,)), traffic())
    slow = asyncio.create_task(status(client, router.url("/sleep/20")))
    async with asyncio.timeout(60):
        while not world.counts()["stable"]:
            await asyncio.sleep(0.01)
    assert await router.drain(0.1, 0.6) == 1
    slow.cancel()


async def test_the_drain_helper_gives_the_cluster_its_time_without_an_envoy(world: World) -> None:
    router = Router(world.ports, world.names)
    start = time.monotonic()
    assert await router.drain(0.5, 5.0) == 1
    assert 0.5 <= time.monotonic() - start < 5.0


async def status(client: aiohttp.ClientSession, url: str) -> int:
    async with client.get(url) as answer:
        await answer.read()
        return answer.status
