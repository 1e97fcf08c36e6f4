"""Whatever Prometheus does, the answer is a number or one clear sentence, in time and in bounds."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.faults.prometheus_proxy import Fault, PrometheusProxy, vector

from mooring.adapters.prometheus import Asked, Prometheus
from mooring.adapters.prometheus_access import Access
from mooring.adapters.prometheus_metrics import PrometheusMetrics
from mooring.core.answers import Answer, NoAnswer, Reason, single_value

pytestmark = pytest.mark.process

SECRET = "secret-of-the-page"


@pytest.fixture
def proxy() -> Iterator[PrometheusProxy]:
    with PrometheusProxy().run() as running:
        yield running


@asynccontextmanager
async def client(proxy: PrometheusProxy | str, **changes: Any) -> AsyncIterator[Prometheus]:
    url = proxy if isinstance(proxy, str) else proxy.url
    access = replace(Access(url, deadline=3.0, connect=1.0, pause=2.0), **changes)
    asking = Prometheus(access)
    try:
        yield asking
    finally:
        await asking.close()


async def value(proxy: PrometheusProxy, **changes: Any) -> float | NoAnswer:
    async with client(proxy, **changes) as asking:
        found = single_value(await asking.query("x", single=True))
        return found if isinstance(found, NoAnswer) else found.value


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (Fault.RESET, Reason.REFUSED, "broke"),
        (Fault.UNAVAILABLE, Reason.HTTP, "503"),
        (Fault.INTERNAL, Reason.HTTP, "500"),
        (Fault.DENIED, Reason.DENIED, "credentials"),
        (Fault.NOT_FOUND, Reason.HTTP, "prometheus.url"),
        (Fault.HTML, Reason.NOT_JSON, "HTML"),
        (Fault.STATUS_ERROR, Reason.QUERY, "too many samples"),
        (Fault.BAD_DATA, Reason.QUERY, "1:5: parse error"),
        (Fault.HUGE, Reason.TOO_LARGE, "8192 KiB"),
        (Fault.HUGE_DECLARED, Reason.TOO_LARGE, "8192 KiB"),
        (Fault.HUGE_GZIP, Reason.TOO_LARGE, "8192 KiB"),
        (Fault.TRUNCATED, Reason.NOT_JSON, "no whole JSON"),
        (Fault.DEEP, Reason.NOT_JSON, "no whole JSON"),
        (Fault.NOT_TEXT, Reason.NOT_JSON, "no whole JSON"),
        (Fault.NO_STATUS, Reason.NOT_JSON, "no status"),
        (Fault.MATRIX, Reason.SHAPE, "matrix"),
        (Fault.STRING, Reason.SHAPE, "string"),
        (Fault.HISTOGRAM, Reason.SHAPE, "histogram_quantile"),
        (Fault.EMPTY, Reason.EMPTY, "no series"),
        (Fault.NAN, Reason.NOT_FINITE, "nan"),
        (Fault.INF, Reason.NOT_FINITE, "inf"),
        (Fault.MINUS_INF, Reason.NOT_FINITE, "-inf"),
        (Fault.SEVERAL, Reason.SHAPE, "aggregate"),
        (Fault.WARNINGS, Reason.INCOMPLETE, "a store did not answer"),
        (Fault.PARTIAL, Reason.INCOMPLETE, "storage"),
        (Fault.REDIRECT, Reason.REDIRECTED, "prometheus.url"),
    ],
)
async def test_each_fault_is_one_sentence_that_repeats_nothing(
    proxy: PrometheusProxy, fault: Fault, reason: Reason, words: str
) -> None:
    proxy.fault = fault
    found = await value(proxy)
    assert isinstance(found, NoAnswer)
    assert (found.reason, words in found.message) == (reason, True), found
    assert SECRET not in found.message
    assert proxy.url not in found.message
    assert re.fullmatch(r"[^\n]{10,500}", found.message)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.DRIP_BODY, Fault.DRIP_HEADERS])
async def test_what_does_not_end_ends_at_the_deadline_with_its_thread(
    proxy: PrometheusProxy, fault: Fault
) -> None:
    proxy.fault = fault
    began = time.monotonic()
    async with client(proxy, deadline=0.4, pause=30.0, concurrency=1) as asking:
        found = await asking.query("x")
        assert isinstance(found, NoAnswer)
        assert found.reason is Reason.TIMEOUT
        assert 0.3 < time.monotonic() - began < 2.0
        # The one thread is free again: the next question is answered.
        proxy.fault = None
        assert isinstance(await asking.query("x"), Answer)


async def test_silence_ends_before_the_deadline(proxy: PrometheusProxy) -> None:
    proxy.fault = Fault.HANG
    began = time.monotonic()
    found = await value(proxy, deadline=30.0, pause=0.3)
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.TIMEOUT
    assert time.monotonic() - began < 5.0


async def test_a_gigabyte_is_not_read(proxy: PrometheusProxy) -> None:
    proxy.fault = Fault.HUGE
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = await value(proxy, body_limit=1024 * 1024)
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.TOO_LARGE
    # What was under way in the sockets' buffers is sent, and no more.
    assert proxy.sent < 64 * 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    async with client(address) as asking:
        found = await asking.query("x")
    assert found == NoAnswer(
        Reason.REFUSED, "Nobody listens at prometheus.url: connection refused."
    )


async def test_a_redirect_is_not_followed(proxy: PrometheusProxy) -> None:
    proxy.fault = Fault.REDIRECT
    await value(proxy)
    assert (len(proxy.seen), proxy.redirected) == (1, 0)


async def test_a_copy_of_an_old_answer_is_no_news(proxy: PrometheusProxy) -> None:
    async with client(proxy) as asking:
        first = single_value(await asking.query("x"))
        assert not isinstance(first, NoAnswer)
        proxy.fault = Fault.OLD
        again = single_value(await asking.query("x"), after=first.at)
        assert isinstance(again, NoAnswer)
        assert again.reason is Reason.STALE
        # A clock that differs from ours is no fault, as long as it goes on.
        assert not isinstance(
            single_value(await asking.query("x"), after=first.at - 3700), NoAnswer
        )


async def test_a_connection_that_was_closed_meanwhile_is_opened_anew(
    proxy: PrometheusProxy,
) -> None:
    proxy.fault = Fault.CLOSE_IDLE
    async with client(proxy, concurrency=1) as asking:
        for _ in range(5):
            assert isinstance(await asking.query("x"), Answer)


async def test_a_connection_is_kept(proxy: PrometheusProxy) -> None:
    async with client(proxy, concurrency=1) as asking:
        for _ in range(5):
            assert isinstance(await asking.query("x"), Answer)
    assert proxy.accepted == 1


async def test_questions_beyond_the_threads_wait_and_are_then_told_so(
    proxy: PrometheusProxy,
) -> None:
    proxy.fault = Fault.HANG
    threads = threading.active_count()
    async with client(proxy, concurrency=2, deadline=0.5, pause=30.0) as asking:
        found = await asyncio.gather(*(asking.query("x") for _ in range(12)))
        assert {f.reason for f in found if isinstance(f, NoAnswer)} <= {Reason.TIMEOUT, Reason.BUSY}
        assert all(isinstance(f, NoAnswer) for f in found)
        ours = [t for t in threading.enumerate() if t.name.startswith("prometheus")]
        assert 1 <= len(ours) <= 2, threads
        proxy.fault = None
        assert isinstance(await asking.query("x"), Answer)


async def test_a_cancelled_question_gives_its_thread_back(proxy: PrometheusProxy) -> None:
    proxy.fault = Fault.HANG
    async with client(proxy, concurrency=1, deadline=60.0, pause=60.0) as asking:
        question = asyncio.create_task(asking.query("x"))
        while not proxy.seen:
            await asyncio.sleep(0.01)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        proxy.fault = None
        async with asyncio.timeout(5):
            assert isinstance(await asking.query("x"), Answer)


async def test_the_loop_goes_on_while_prometheus_hangs(proxy: PrometheusProxy) -> None:
    proxy.fault = Fault.HANG
    async with client(proxy, deadline=0.5, pause=30.0) as asking:
        question = asyncio.create_task(asking.query("x"))
        turns = 0
        while not question.done():
            await asyncio.sleep(0.001)
            turns += 1
    assert turns > 50


async def test_what_is_asked_stands_in_the_body_with_the_parameters(
    proxy: PrometheusProxy,
) -> None:
    long = "x" + " " * 20_000
    async with client(
        proxy, parameters={"dedup": "true"}, headers={"X-Scope-OrgID": "team-a"}
    ) as asking:
        await asking.query(long, single=True)
    (seen,) = proxy.seen
    assert (seen["query"], seen["timeout"], seen["dedup"]) == (long, "3s", "true")
    assert seen["limit"]
    assert seen["target"] == "/api/v1/query"
    assert seen["headers"]["X-Scope-OrgID"] == "team-a"
    assert "Authorization" not in seen["headers"]


async def test_a_path_before_the_api_is_kept(proxy: PrometheusProxy) -> None:
    async with client(proxy.url + "/select/0/prometheus") as asking:
        await asking.query("x")
    assert proxy.seen[0]["target"] == "/select/0/prometheus/api/v1/query"


async def test_cookies_are_not_kept(proxy: PrometheusProxy) -> None:
    proxy.fault = Fault.COOKIE
    async with client(proxy, concurrency=1) as asking:
        await asking.query("x")
        await asking.query("x")
    assert "Cookie" not in proxy.seen[1]["headers"]


async def test_the_environment_s_proxies_are_not_used(
    proxy: PrometheusProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await value(proxy) == 0.5


# --- credentials --------------------------------------------------------------------------------


async def test_a_changed_token_is_read_again(proxy: PrometheusProxy, tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with client(proxy, bearer_token_file=token) as asking:
        for text in ("first\n", "second"):
            token.write_text(text)
            assert isinstance(await asking.query("x"), Answer)
    sent = [seen["headers"]["Authorization"] for seen in proxy.seen]
    assert sent == ["Bearer first", "Bearer second"]


async def test_basic_authentication(proxy: PrometheusProxy, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("päss")
    await value(proxy, username="mooring", password_file=tmp_path / "password")
    assert proxy.seen[0]["headers"]["Authorization"] == "Basic bW9vcmluZzpww6Rzcw=="


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "empty"),
        (b"a\nb", "more than one line"),
        (b"tok\xffen", "more than one line"),
        (b"x" * 70_000, "larger"),
    ],
)
async def test_a_file_that_is_no_credential_is_named_and_nothing_is_sent(
    proxy: PrometheusProxy, tmp_path: Path, content: bytes | None, words: str
) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    found = await value(proxy, bearer_token_file=token)
    assert isinstance(found, NoAnswer)
    assert (found.reason, proxy.seen) == (Reason.CREDENTIALS, [])
    assert str(token) in found.message
    assert words in found.message


async def test_the_token_for_the_api_server_is_never_sent(
    proxy: PrometheusProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("the-api-servers")
    (tmp_path / "link").symlink_to(folder / "token")
    monkeypatch.setattr("mooring.adapters.prometheus_access.SERVICE_ACCOUNT_FOLDER", folder)
    for path in (folder / "token", tmp_path / "link"):
        found = await value(proxy, bearer_token_file=path)
        assert isinstance(found, NoAnswer)
        assert "the-api-servers" not in found.message
    assert proxy.seen == []


# --- counting -----------------------------------------------------------------------------------


async def test_every_question_is_counted_with_its_outcome(proxy: PrometheusProxy) -> None:
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry)
    asking = Prometheus(Access(proxy.url), metrics.on_asked)
    await asking.query("x")
    proxy.fault = Fault.HTML
    await asking.query("x")
    await asking.close()
    shown = generate_latest(registry).decode()
    assert 'mooring_prometheus_queries_total{outcome="success"} 1.0' in shown
    assert 'mooring_prometheus_queries_total{outcome="not-json"} 1.0' in shown
    assert "mooring_prometheus_query_duration_seconds_count 2.0" in shown
    assert re.search(r"mooring_prometheus_response_bytes_total [1-9]", shown)


async def test_after_closing_nothing_is_asked(proxy: PrometheusProxy) -> None:
    asked: list[Asked] = []
    asking = Prometheus(Access(proxy.url), asked.append)
    await asking.close()
    assert isinstance(await asking.query("x"), NoAnswer)
    assert proxy.seen == []
    assert len(asked) == 1


async def test_a_good_answer_says_how_far_the_clocks_differ(proxy: PrometheusProxy) -> None:
    proxy.answer = vector(({"a": "b"}, "3"), at=time.time() + 600)
    async with client(proxy) as asking:
        found = await asking.query("x")
    assert isinstance(found, Answer)
    assert found.samples[0].labels == {"a": "b"}
    assert found.clock_ahead == pytest.approx(600, abs=5)
