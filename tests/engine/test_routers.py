"""Router pods are asked, but anybody who may make pods can make one that looks like a router."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.kinds import Kind
from mooring.core.render.router.report import endpoints, report
from mooring.core.traffic import RouterReport
from mooring.engine.routers import RouterPods

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
SECRET = "what-stands-elsewhere"


class Pods:
    """A client that lists one ready pod at this address."""

    def __init__(self, address: str = "127.0.0.1", **meta: Any) -> None:
        self.pod = {
            "metadata": {"name": "fraud-router-0", "uid": "u", **meta},
            "status": {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]},
        }

    async def list(self, kind: Kind, namespace: str | None, **_: Any) -> AsyncIterator[list[Any]]:
        yield [self.pod]


async def _ask(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> RouterReport:
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setattr("mooring.engine.routers.VERSION_NUMBER", runner.addresses[0][1])
    routers = RouterPods(Pods())  # type: ignore[arg-type]
    try:
        (found,) = await routers.ask("shop", "fraud")
    finally:
        await routers.close()
        await runner.cleanup()
    return found


async def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"}, text=SECRET)

    found = await _ask(answer, monkeypatch)
    assert (found.taken, found.problem, dict(found.endpoints)) == ("", "", {})
    assert asked == ["/version"]


async def test_an_answer_without_end_is_read_no_further_than_one_may_be_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 1 << 28:
            await response.write(b"x" * 65536)
            sent += 65536
        return response

    started = time.monotonic()
    found = await _ask(answer, monkeypatch)
    assert found.taken == ""
    assert sent < 1 << 26
    assert time.monotonic() - started < 5


_TAKEN = """\
cluster_manager.cds.version_text: "v7"
http.http.rds.http.version_text: "v7"
cluster.abc.membership_total: 2
"""
_NOT_TAKEN = 'http.grpc.rds.grpc.version_text: "v6"\ncluster.def.membership_total: 0\n'


def _in_pieces(*pieces: str, breaks: bool = False) -> Answer:
    """An answer that the network brings in pieces, as it does above 1,460 bytes."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece.encode())
            await asyncio.sleep(0.05)  # or the next one would come with it
        if breaks and request.transport is not None:
            request.transport.abort()
        return response

    return answer


async def test_an_answer_in_pieces_is_judged_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its beginning alone, this router would have taken a version that one port has not."""
    found = await _ask(_in_pieces(_TAKEN, _NOT_TAKEN), monkeypatch)
    assert (found.taken, dict(found.endpoints)) == ("", {"abc": 2, "def": 0})
    found = await _ask(_in_pieces(_TAKEN[:60], _TAKEN[60:]), monkeypatch)
    assert (found.taken, dict(found.endpoints)) == ("v7", {"abc": 2})


async def test_the_beginning_of_an_answer_that_breaks_off_or_is_too_long_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for answer in (
        _in_pieces(_TAKEN, breaks=True),
        _in_pieces(_TAKEN, "x" * (64 << 10)),
    ):
        found = await _ask(answer, monkeypatch)
        assert (found.taken, dict(found.endpoints)) == ("", {})


async def test_a_pod_that_says_nothing_has_not_answered_after_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    started = time.monotonic()
    assert (await _ask(answer, monkeypatch)).taken == ""
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("status", [404, 500])
async def test_what_an_error_page_says_is_not_believed(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        lines = 'cluster_manager.cds.version_text: "v"\nhttp.x.rds.http.version_text: "v"'
        return web.Response(status=status, text=lines)

    assert (await _ask(answer, monkeypatch)).taken == ""


@pytest.mark.parametrize("address", ["", "not an address", "::1", "127.0.0.1:1", "999.1.1.1"])
async def test_an_address_that_is_none_is_no_answer(address: str) -> None:
    routers = RouterPods(Pods(address))  # type: ignore[arg-type]
    (found,) = await routers.ask("shop", "fraud")
    await routers.close()
    assert found.taken == ""


_LINES = st.lists(
    st.one_of(
        st.text(max_size=80),
        st.builds(
            "{}{}: {}".format,
            st.sampled_from(
                ["cluster_manager.cds.", "http.p.rds.http.", "cluster_manager.", "cluster.abc."]
            ),
            st.sampled_from(
                ["version_text", "update_rejected", "warming_clusters", "membership_total"]
            ),
            st.one_of(st.text(max_size=30), st.integers().map(str), st.just("٣"), st.just("1e9")),
        ),
    ),
    max_size=20,
).map("\n".join)


@given(_LINES)
def test_any_answer_is_a_report(text: str) -> None:
    taken, problem = report(text)
    assert isinstance(taken, str)
    assert isinstance(problem, str)
    assert all(n >= 0 for n in endpoints(text).values())
