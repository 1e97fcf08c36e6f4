"""Reads from the API server: tried again where that can help, and only there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration
from tests.listening import listening

from mooring.adapters import kube
from mooring.adapters.kube import ApiError, KubeClient
from mooring.core import kinds

FOUND = {"metadata": {"name": "fraud"}}
Answer = Callable[[web.Request], web.StreamResponse]


class _Never:
    def remaining(self) -> float:
        raise AssertionError("a read asks no fence")


class _Server:
    """Answers one after the other, the last one for good."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = answers
        self.asked = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        said = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return said(request)


def status(code: int, **headers: str) -> Answer:
    body = {"kind": "Status", "message": f"HTTP {code}", "reason": "Said"}
    return lambda _: web.json_response(
        body, status=code, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def found(_: web.Request) -> web.StreamResponse:
    return web.json_response(FOUND)


def cut_off(_: web.Request) -> web.StreamResponse:
    return web.Response(text='{"metadata": {"na', content_type="application/json")


def hung_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again without a wait."""
    monkeypatch.setattr(kube, "_READ_AGAIN", (0.0, 0.0))


@pytest.fixture
async def client_of() -> AsyncIterator[Callable[[_Server], Awaitable[KubeClient]]]:
    """Makes a client of a server that listens as long as the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def made(server: _Server) -> KubeClient:
            url = await stack.enter_async_context(listening("GET", server.answer))
            client = KubeClient(Configuration(host=url), _Never())
            stack.push_async_callback(client.close)
            return client

        yield made


@pytest.mark.parametrize(
    "failure",
    [status(429), status(500), status(503), cut_off, hung_up],
    ids=["429", "500", "503", "cut off", "hung up"],
)
async def test_a_read_that_fails_twice_is_tried_a_third_time(
    failure: Answer, client_of: Callable[[_Server], Awaitable[KubeClient]]
) -> None:
    server = _Server(failure, failure, found)
    client = await client_of(server)
    assert await client.get(kinds.CONFIG_MAP, "shop", "fraud") == FOUND
    assert server.asked == 3


async def test_a_read_waits_the_second_that_a_busy_server_asks_for(
    client_of: Callable[[_Server], Awaitable[KubeClient]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round reads a dozen things, and would seldom get through were each 429 the end of it."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(kube, "asyncio", SimpleNamespace(sleep=sleep))
    busy = status(429, Retry_After="1")
    server = _Server(busy, busy, found)
    client = await client_of(server)
    assert await client.get(kinds.CONFIG_MAP, "shop", "fraud") == FOUND
    assert waited == [1.0, 1.0]


async def test_three_failures_are_told_as_the_last_one(
    client_of: Callable[[_Server], Awaitable[KubeClient]],
) -> None:
    server = _Server(status(500), status(500), status(503))
    client = await client_of(server)
    with pytest.raises(ApiError) as told:
        await client.get(kinds.CONFIG_MAP, "shop", "fraud")
    assert told.value.status == 503
    assert server.asked == 3


@pytest.mark.parametrize(
    "answer",
    [status(403), status(409), status(410), status(429, Retry_After="7")],
    ids=["403", "409", "410", "429"],
)
async def test_what_another_try_cannot_help_or_must_wait_for_is_told_at_once(
    answer: Answer, client_of: Callable[[_Server], Awaitable[KubeClient]]
) -> None:
    server = _Server(answer)
    client = await client_of(server)
    with pytest.raises(ApiError):
        await client.get(kinds.CONFIG_MAP, "shop", "fraud")
    assert server.asked == 1


async def test_an_outage_that_names_its_end_is_waited_for_by_the_queue(
    client_of: Callable[[_Server], Awaitable[KubeClient]],
) -> None:
    server = _Server(status(503, Retry_After="3"))
    client = await client_of(server)
    with pytest.raises(ApiError) as told:
        await client.get(kinds.CONFIG_MAP, "shop", "fraud")
    assert told.value.retry_after == 3.0
    assert server.asked == 1
