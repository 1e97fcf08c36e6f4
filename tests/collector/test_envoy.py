"""The real Envoy, with the configuration that the operator renders, and a collector's process."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.collector.references import answer, infer, reference
from tests.router.running import World

from mooring.core.render.router.observation import CollectorAddress
from mooring.core.traffic import Backend, Match, Route, Table

pytestmark = pytest.mark.envoy

COMPONENT = Path(__file__).parents[2] / "components" / "collector"
INFER = "/v2/models/fraud/infer"
_LISTENING = re.compile(r"listening (for copies )?on port (\d+)")
_SERIES = re.compile(r"mooring_telemetry_(\w+?)(?:_total)?\{(.*)\} (\d+)")


class Collector:
    """A collector's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: list[int] = []
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, **config: Any) -> None:
        (self.folder / "reference.json").write_text(reference().to_text())
        (self.folder / "collector.json").write_text(json.dumps(config))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mooring_collector", "--host", "127.0.0.1",
            "--config", str(self.folder / "collector.json"),
            "--reference", str(self.folder / "reference.json"),
            "--grpc-port", "0", "--http-port", "0",
            stderr=asyncio.subprocess.PIPE, env={"PYTHONPATH": str(COMPONENT)},
        )  # fmt: skip
        assert self.process.stderr is not None
        lines = []
        while len(self.ports) < 2:
            line = (await self.process.stderr.readline()).decode()
            lines.append(line)
            assert line, lines
            if found := _LISTENING.search(line):
                self.ports.append(int(found[2]))

    @property
    def address(self) -> CollectorAddress:
        return CollectorAddress("127.0.0.1", self.ports[0])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def series(self) -> list[tuple[str, dict[str, str], int]]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as got:
            text = await got.text()
        return [
            (found[1], dict(re.findall(r'(\w+)="([^"]*)"', found[2])), int(found[3]))
            for found in map(_SERIES.fullmatch, text.splitlines())
            if found
        ]

    async def total(self, name: str, **labels: str) -> int:
        return sum(
            count
            for series, having, count in await self.series()
            if series == name and labels.items() <= having.items()
        )

    async def counted(self, requests: int, **labels: str) -> None:
        """Waits until that many requests are counted."""
        async with asyncio.timeout(60):
            while await self.total("requests", **labels) < requests:
                await asyncio.sleep(0.02)
        assert await self.total("requests", **labels) == requests


@pytest.fixture
async def collector(tmp_path: Path) -> AsyncIterator[Collector]:
    found = Collector(tmp_path)
    yield found
    await found.stop()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    found = World()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=16)) as session:
        yield session


async def revision(world: World, name: str, score: float, *, halved: bool = False) -> Backend:
    found = await world.revision(name, halved=halved)
    for server in world.servers[name]:
        server.answer = answer(score)
    return found


async def send(
    client: aiohttp.ClientSession, url: str, body: bytes, **headers: str
) -> tuple[int, float]:
    begin = time.perf_counter()
    async with client.post(url, data=io.BytesIO(body), headers=headers) as got:
        await got.read()
        assert "Transfer-Encoding" not in got.headers
        return got.status, time.perf_counter() - begin


async def test_every_request_is_counted_once_under_the_revision_that_answered(
    world: World, collector: Collector, client: aiohttp.ClientSession
) -> None:
    await collector.start()
    stable = await revision(world, "aa", 0.25, halved=True)
    candidate = await revision(world, "bb", 0.75)
    table = Table(Route({"aa": 70, "bb": 30}), (stable, candidate))
    router = await world.router(table, collector=collector.address)
    sent = await asyncio.gather(
        *(send(client, router.url(INFER), infer([i % 3, 1, 2])) for i in range(600))
    )
    assert {status for status, _ in sent} == {200}
    await collector.counted(600)
    assert await collector.total("requests", kind="answered", traffic="live") == 600
    for name, count in world.counts().items():
        assert await collector.total("requests", revision=name) == count
        assert await collector.total("output_rows", revision=name) == count
        assert await collector.total("request_bytes_count", revision=name) == count
    for feature in ("x[0]", "x[1]", "x[2]"):
        assert await collector.total("feature_rows", feature=feature) == 600
    # The servers refuse what comes in chunks: lengths are as the client sent them.
    assert all(headers["content-length"] for s in world.servers["aa"] for headers in s.seen)


async def test_what_a_shadow_answers_is_seen_and_marked_as_are_matches(
    world: World, collector: Collector, client: aiohttp.ClientSession
) -> None:
    await collector.start()
    stable, candidate = await revision(world, "aa", 0.25), await revision(world, "bb", 0.75)
    route = Route({"aa": 100}, {"bb": 100}, (Match("bb", (("x-tester", "yes"),)),))
    router = await world.router(Table(route, (stable, candidate)), collector=collector.address)
    for _ in range(20):
        await send(client, router.url(INFER), infer([1, 2, 3]))
    await send(client, router.url(INFER), infer([1, 2, 3]), **{"x-tester": "yes"})
    await collector.counted(20, revision="aa", traffic="live")
    await collector.counted(20, revision="bb", traffic="shadow")
    await collector.counted(1, revision="bb", traffic="match")
    assert await collector.total("output_rows", revision="bb", traffic="shadow") == 20
    assert await collector.total("rows") == await collector.total("rows", revision="aa") == 20


async def test_answers_that_failed_are_counted_as_such(
    world: World, collector: Collector, client: aiohttp.ClientSession
) -> None:
    await collector.start()
    router = await world.router(
        Table(Route({"aa": 100}), (await revision(world, "aa", 0.5),)),
        collector=collector.address,
    )
    for path in ("/status/500", "/status/400", INFER):
        await send(client, router.url(path), infer([1, 2, 3]))
    await send(client, router.url(INFER), b"what?")
    await collector.counted(4)
    assert await collector.total("requests", kind="failed") == 2
    assert await collector.total("requests", kind="unparsed") == 1
    assert await collector.total("rows") == 1


async def test_ids_and_lengths_in_headers_reach_the_collector(
    world: World, collector: Collector, client: aiohttp.ClientSession
) -> None:
    await collector.start(feedback={"maturity": 60})
    router = await world.router(
        Table(Route({"aa": 100}), (await revision(world, "aa", 0.5),)),
        collector=collector.address,
    )
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32",
              "parameters": {"binary_data_size": 12}}  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    body = head + struct.pack("<3f", 1, 2, 3)
    lengths = {"Inference-Header-Content-Length": str(len(head)), "X-Request-Id": "one"}
    await send(client, router.url(INFER), body, **lengths)
    await collector.counted(1, kind="answered")
    assert await collector.total("feature_rows") == 3
    async with client.post(f"{collector.url}/feedback", json={"id": "one", "label": 1}) as got:
        assert (await got.json())["joined"] == 1
    assert await collector.total("outcomes", revision="aa", label="1") == 1


async def test_bodies_of_ten_megabytes_are_served_and_dropped(
    world: World, collector: Collector, client: aiohttp.ClientSession
) -> None:
    await collector.start()
    router = await world.router(
        Table(Route({"aa": 100}), (await revision(world, "aa", 0.5),)),
        collector=collector.address,
    )
    for _ in range(5):
        status, _ = await send(client, router.url(INFER), b"x" * 10_000_000)
        assert status == 200
    await send(client, router.url(INFER), infer([1, 2, 3]))
    await collector.counted(6)
    assert await collector.total("requests", kind="dropped") == 5
    assert await collector.total("requests", kind="answered") == 1


async def test_a_collector_that_is_not_there_costs_no_request(
    world: World, collector: Collector, client: aiohttp.ClientSession
) -> None:
    await collector.start()
    router = await world.router(
        Table(Route({"aa": 100}), (await revision(world, "aa", 0.5),)),
        collector=collector.address,
    )
    bodies = [infer([1, 2, 3]), infer([1, 2, 3], note="x" * 1_000_000)]

    async def many() -> set[int]:
        sent = [send(client, router.url(INFER), bodies[i % 2]) for i in range(300)]
        return {status for status, _ in await asyncio.gather(*sent)}

    running = asyncio.create_task(many())
    await asyncio.sleep(0.1)
    await collector.stop()  # in the middle
    assert await running == {200}
    assert await many() == {200}
    assert "ext_proc" not in router.log()


@pytest.mark.parametrize("state", ["there", "gone", "hanging"])
async def test_a_large_body_on_fresh_connections_does_not_end_the_router(
    world: World, collector: Collector, client: aiohttp.ClientSession, state: str
) -> None:
    await collector.start()
    router = await world.router(
        Table(Route({"aa": 100}), (await revision(world, "aa", 0.5),)),
        collector=collector.address,
    )
    if state == "gone":
        await collector.stop()
    elif state == "hanging":
        collector.signal(signal.SIGSTOP)
    assert (await send(client, router.url(INFER), infer([1, 2, 3], note="x" * 1_000_000)))[0] == 200
    assert (await send(client, router.url(INFER), infer([1, 2, 3])))[0] == 200


@pytest.mark.parametrize("size", [0, 200_000, 3_000_000])
async def test_a_collector_that_hangs_costs_no_request_and_holds_none_up(
    world: World, collector: Collector, client: aiohttp.ClientSession, size: int
) -> None:
    await collector.start()
    router = await world.router(
        Table(Route({"aa": 100}), (await revision(world, "aa", 0.5),)),
        collector=collector.address,
    )
    await send(client, router.url(INFER), infer([1, 2, 3]))
    body = infer([1, 2, 3], note="x" * size)
    collector.signal(signal.SIGSTOP)
    try:
        sent = [await send(client, router.url(INFER), body) for _ in range(20)]
    finally:
        collector.signal(signal.SIGCONT)
    assert {status for status, _ in sent} == {200}
    assert max(seconds for _, seconds in sent) < 2.0, sent
    # Once it goes on, it counts again.
    async with asyncio.timeout(60):
        while not await collector.total("requests", kind="answered") > 1:
            await send(client, router.url(INFER), infer([1, 2, 3]))
            await asyncio.sleep(0.1)


async def test_observation_is_switched_on_and_off_without_a_lost_request(
    world: World, collector: Collector, client: aiohttp.ClientSession
) -> None:
    await collector.start()
    table = Table(Route({"aa": 100}), (await revision(world, "aa", 0.5),))
    router = await world.router(table, observes=True)
    stopping = asyncio.Event()
    statuses: set[int] = set()

    async def load() -> None:
        while not stopping.is_set():
            statuses.add((await send(client, router.url(INFER), infer([1, 2, 3])))[0])

    loads = [asyncio.create_task(load()) for _ in range(4)]
    for address in (collector.address, None, collector.address):
        router.collector = address
        await router.taken(router.write(table))
        await asyncio.sleep(0.3)
    stopping.set()
    await asyncio.gather(*loads)
    assert statuses == {200}
    assert await collector.total("requests", kind="answered") > 0


def _connected_to(port: int) -> set[str]:
    """Who has an open connection to this port of this machine, as the kernel writes it."""
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[2] for row in rows if row[3] == "01" and row[1].endswith(f":{port:04X}")}


async def test_a_connection_without_traffic_stays(
    world: World, collector: Collector, client: aiohttp.ClientSession
) -> None:
    await collector.start()
    router = await world.router(
        Table(Route({"aa": 100}), (await revision(world, "aa", 0.5),)),
        collector=collector.address,
    )
    await send(client, router.url(INFER), infer([1, 2, 3]))
    await collector.counted(1, kind="answered")
    before = _connected_to(collector.address.port)
    await asyncio.sleep(4)  # several keepalives of one second
    assert _connected_to(collector.address.port) == before != set()
    for _ in range(50):
        await send(client, router.url(INFER), infer([1, 2, 3]))
    await collector.counted(51, kind="answered")


@pytest.mark.process
async def test_it_ends_at_sigterm_with_exit_code_zero(collector: Collector) -> None:
    await collector.start()
    assert collector.process is not None
    collector.signal(signal.SIGTERM)
    with suppress(ProcessLookupError):
        async with asyncio.timeout(60):
            assert await collector.process.wait() == 0


@pytest.mark.process
async def test_a_wrong_configuration_is_its_last_words(collector: Collector) -> None:
    with pytest.raises(AssertionError, match="the collector cannot start: protocol 'soap'"):
        await collector.start(protocol="soap")
    assert collector.process is not None
    assert await collector.process.wait() == 1
