"""What is taken in from a stream, what kopf gets to see of it, and which breaks are gaps."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web
from tests.engine.objects import Json, child, model

from mooring.core import kinds
from mooring.engine.metrics import Metrics
from mooring.engine.queue import Key, KeyedQueue
from mooring.engine.store import Store
from mooring.shell.streams import Streams

SERVICES = "/api/v1/services?watch=true"


class Watch:
    """A server that streams ``chunks``, then ends, breaks or answers as it is told."""

    def __init__(self) -> None:
        self.store = Store()
        self.queue = KeyedQueue()
        self.metrics = Metrics()
        self.gaps = 0
        self.lists = 0
        self.status = 200
        self.chunks: list[bytes] = []
        self.breaks = False
        self.streams = Streams(
            (kinds.SERVICE,), self.store, self.queue, self.metrics, self._gap, self._list
        )
        self.session: aiohttp.ClientSession
        self.url = ""

    def _gap(self) -> None:
        self.gaps += 1

    def _list(self) -> None:
        self.lists += 1

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        for chunk in self.chunks:
            await response.write(chunk)
            await asyncio.sleep(0)
        if self.breaks:
            assert request.transport is not None
            request.transport.abort()
        return response

    async def read(self, path: str = SERVICES) -> bytes:
        async with self.session.get(self.url + path) as response:
            return b"".join([chunk async for chunk in response.content.iter_chunked(100)])


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    found = Watch()
    app = web.Application()
    app.router.add_get("/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(middlewares=(found.streams,)) as found.session:
        yield found
    await runner.cleanup()


def line(what: str, obj: Json) -> bytes:
    return json.dumps({"type": what, "object": obj}).encode() + b"\n"


KNOWN = child(kinds.SERVICE, "fraud", 5)
NEWER = child(kinds.SERVICE, "fraud", 6)
BOOKMARK: Json = {"kind": "Service", "metadata": {"resourceVersion": "9"}}


def version(watch: Watch, name: str) -> str | None:
    found = watch.store.get(kinds.SERVICE, "shop", name)
    return found["metadata"]["resourceVersion"] if found else None


async def test_objects_are_taken_in_and_all_else_passes_unchanged(watch: Watch) -> None:
    passing = [line("BOOKMARK", BOOKMARK), line("DELETED", KNOWN), b"not JSON\n"]
    other = child(kinds.SERVICE, "other", 7, of="other")
    watch.chunks = [line("MODIFIED", NEWER), *passing, line("ADDED", other)]
    assert await watch.read() == b"".join(passing)
    assert (version(watch, "fraud"), version(watch, "other")) == ("6", "7")
    assert [await watch.queue.get(), await watch.queue.get()] == [
        Key("shop", "fraud"), Key("shop", "other"),
    ]  # fmt: skip


async def test_known_versions_are_no_news(watch: Watch) -> None:
    watch.store.put(kinds.SERVICE, KNOWN)
    watch.chunks = [line("ADDED", KNOWN), line("MODIFIED", KNOWN)]
    assert await watch.read() == b""
    assert watch.queue.depth == 0


async def test_an_object_that_cannot_be_taken_in_does_not_end_the_watch_of_others(
    watch: Watch,
) -> None:
    watch.chunks = [line("ADDED", {"metadata": {"labels": 5}}), line("ADDED", KNOWN)]
    assert await watch.read() == b""
    assert version(watch, "fraud") == "5"


@pytest.mark.parametrize("cut", [1, 7, 100, 1000])
async def test_lines_are_put_together_from_chunks_of_any_size(watch: Watch, cut: int) -> None:
    text = line("ADDED", KNOWN) + line("DELETED", NEWER) + line("MODIFIED", NEWER)
    watch.chunks = [text[at : at + cut] for at in range(0, len(text), cut)]
    assert await watch.read() == line("DELETED", NEWER)
    assert version(watch, "fraud") == "6"


async def test_an_unfinished_last_line_is_passed_on(watch: Watch) -> None:
    watch.store.put(kinds.SERVICE, KNOWN)
    watch.chunks = [line("ADDED", KNOWN), line("ADDED", KNOWN)[:20]]
    assert await watch.read() == line("ADDED", KNOWN)[:20]


async def test_an_event_during_our_own_write_waits_in_the_store(watch: Watch) -> None:
    watch.chunks = [line("MODIFIED", NEWER)]
    with watch.store.writing(kinds.SERVICE, "shop", "fraud") as under_way:
        assert await watch.read() == b""
    assert under_way.touched == {Key("shop", "fraud")}
    seen = watch.metrics.registry.get_sample_value(
        "mooring_watch_events_total", {"kind": "Service"}
    )
    assert seen == 1


@pytest.mark.parametrize("path", ["/apis/apps/v1/deployments", "/api/v1/pods"])
@pytest.mark.parametrize("query", ["", "?watch=true"])
async def test_other_kinds_are_not_looked_at(watch: Watch, path: str, query: str) -> None:
    watch.store.put(kinds.SERVICE, KNOWN)
    watch.chunks = [line("ADDED", KNOWN)]
    assert await watch.read(path + query) == line("ADDED", KNOWN)


@pytest.mark.parametrize("path", ["/api/v1/services", "/api/v1/namespaces/shop/services?limit=5"])
async def test_objects_are_taken_out_of_a_list_and_its_version_is_kept(
    watch: Watch, path: str
) -> None:
    watch.store.put(kinds.SERVICE, KNOWN)
    new = child(kinds.SERVICE, "other", 7, of="other")
    page = {"metadata": {"resourceVersion": "9", "continue": "x"}, "items": [KNOWN, new]}
    watch.chunks = [json.dumps(page).encode()]
    async with watch.session.get(watch.url + path) as response:
        assert await response.json(content_type=None) == {**page, "items": []}
    assert watch.lists == 1
    assert version(watch, "other") == "7"
    assert await watch.queue.get() == Key("shop", "other")
    assert watch.queue.depth == 0


@pytest.mark.parametrize("text", [b"<html>", b"[]", b'{"kind": "Status"}'])
async def test_an_answer_that_is_no_list_is_passed_on(watch: Watch, text: bytes) -> None:
    watch.chunks = [text]
    async with watch.session.get(watch.url + "/api/v1/services") as response:
        assert await response.read() == text


async def test_the_watch_of_one_namespace_is_looked_at_too(watch: Watch) -> None:
    watch.store.put(kinds.SERVICE, KNOWN)
    watch.chunks = [line("ADDED", KNOWN)]
    assert await watch.read("/api/v1/namespaces/shop/services?watch=true") == b""


async def test_a_clean_end_and_a_new_beginning_are_no_gap(watch: Watch) -> None:
    """The API server ends every watch after a while; it goes on where it was."""
    for _ in range(3):
        await watch.read()
    assert watch.gaps == 0


def _breaks(watch: Watch) -> None:
    watch.breaks = True


def _refuses(watch: Watch) -> None:
    watch.status = 503


def _forgets(watch: Watch) -> None:
    watch.chunks = [line("ERROR", {"kind": "Status", "code": 410})]


@pytest.mark.parametrize("wrong", [_breaks, _refuses, _forgets])
async def test_a_watch_that_is_there_again_after_it_broke_ends_a_gap(
    watch: Watch, wrong: Callable[[Watch], None]
) -> None:
    await watch.read()
    watch.chunks = [line("ADDED", model("fraud", 1))]
    wrong(watch)
    for _ in range(2):
        with contextlib.suppress(aiohttp.ClientError):
            await watch.read()
    assert watch.gaps == (1 if wrong is not _refuses else 0), "a gap lasts until it is over"
    watch.breaks, watch.status, watch.chunks = False, 200, []
    await watch.read()
    await watch.read()
    assert watch.gaps == (2 if wrong is not _refuses else 1)


async def test_a_watch_given_up_by_a_time_limit_is_a_gap(watch: Watch) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(line("BOOKMARK", BOOKMARK))
        await asyncio.sleep(1)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", hang)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    good, watch.url = watch.url, f"http://127.0.0.1:{runner.addresses[0][1]}"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await watch.read()
    watch.url = good
    await watch.read()
    assert watch.gaps == 1
    await runner.cleanup()
