"""Sinks: signed, bounded, never redirected, never from a tenant; a slow one holds up nobody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from tests.listening import listening

from mooring.adapters.sinks import Sink, SinkClient, read_key, signature
from mooring.core.retrain.event import Delivery
from mooring.engine.deliveries import Deliveries
from mooring.engine.lease import Fence
from mooring.engine.metrics import Metrics
from mooring.engine.queue import Key, KeyedQueue
from mooring.settings import SettingsError, load

TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
TAKEN = "{name: a, url: 'https://x/', signingKeyFile: /k}"
SECRET = b"sixteen bytes or more"
KEY = Key("shop", "fraud")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(SECRET + b"\n")
    return path


async def post(url: str, key: Path, seconds: float = 2.0) -> str:
    client = SinkClient({"a": Sink("a", url, key, timeout=seconds)})
    try:
        return await client.post("a", "id-1", '{"a": 1}', 1_700_000_000)
    finally:
        await client.close()


def deliveries_to(sink: Sink) -> tuple[Deliveries, KeyedQueue]:
    """Deliveries of an operator that holds the lease, and the queue that their answers fill."""
    queue, fence, client = KeyedQueue(), Fence(), SinkClient({sink.name: sink})
    fence.open_for_ever()
    return Deliveries(client, queue, Metrics(), fence, lambda: datetime.now(UTC)), queue


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example of the specification's reference libraries.
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_key_is_text_or_base64_after_whsec(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sixteen bytes or more\n")
    assert read_key(path) == b"sixteen bytes or more"
    path.write_text("whsec_" + base64.b64encode(b"x" * 24).decode())
    assert read_key(path) == b"x" * 24


@pytest.mark.parametrize("text", ["", "short", "whsec_!!!", "whsec_YQ==", "x" * 5000])
async def test_an_event_that_cannot_be_signed_is_not_sent(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    assert (await post("http://127.0.0.1:9", path)).startswith("cannot be signed for: ")
    assert "cannot be signed for" in await post("http://127.0.0.1:9", tmp_path / "missing")


async def test_what_arrives_can_be_told_from_what_was_forged_altered_or_sent_again(
    key: Path,
) -> None:
    """As a receiver checks it, without any code of ours: by id, moment and body."""
    got: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        got.append((dict(request.headers), await request.read()))
        return web.Response()

    async with listening("POST", answer) as url:
        assert await post(url + "/", key) == ""
    ((headers, body),) = got

    def genuine(event: str, moment: str, said: bytes, secret: bytes = SECRET) -> bool:
        signed = hmac.new(secret, f"{event}.{moment}.".encode() + said, hashlib.sha256).digest()
        return headers["webhook-signature"] == "v1," + base64.b64encode(signed).decode()

    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("id-1", "1700000000")
    assert genuine("id-1", "1700000000", body)
    assert not genuine("id-2", "1700000000", body), "another event"
    assert not genuine("id-1", "1700009999", body), "the same again as if it were new"
    assert not genuine("id-1", "1700000000", body + b" ")
    assert not genuine("id-1", "1700000000", body, b"the key of somebody")
    assert SECRET not in str(headers).encode() + body


async def test_a_redirect_is_not_followed(key: Path) -> None:
    asked = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/metadata"})

    async with listening("POST", elsewhere) as url:
        assert await post(f"{url}/events", key) == "answered 307: redirects are not followed"
    assert asked == ["/events"]


@pytest.mark.parametrize(("status", "said"), [(200, ""), (204, ""), (500, "answered 500")])
async def test_only_2xx_is_a_success(key: Path, status: int, said: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text="x" * 1_000_000 if status != 204 else None)

    async with listening("POST", answer) as url:
        assert await post(url + "/", key) == said


async def test_one_that_says_nothing_is_given_up(key: Path) -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with listening("POST", silent) as url:
        assert await post(url + "/", key, seconds=0.1) == "did not answer within 0.1 s"
    assert (await post("http://127.0.0.1:9/", key)).startswith("cannot be reached")


def noting(asked: list[str], status: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Answers with this status, and notes the ids of the events that it is sent."""

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers["webhook-id"])
        return web.Response(status=status)

    return answer


async def test_an_attempt_is_made_once_and_its_answer_brings_the_key_back(key: Path) -> None:
    asked: list[str] = []
    async with listening("POST", noting(asked, 500)) as url:
        deliveries, queue = deliveries_to(Sink("a", url + "/", key, namespaces=("shop",)))
        for _ in range(3):
            deliveries.start(KEY, Delivery("rr", "a", 1, "id-1", "{}"))
        assert await asyncio.wait_for(queue.get(), 5) == KEY
        deliveries.start(KEY, Delivery("rr", "a", 1, "id-1", "{}"))
        await asyncio.sleep(0)
        answers = deliveries.answers(KEY)
        await deliveries.close()
    assert asked == ["id-1"]
    assert answers["rr"].problem == "answered 500"
    assert deliveries.sinks("shop") == {"a"}
    assert deliveries.sinks("bank") == frozenset()


async def test_another_event_for_a_request_of_the_same_name_is_sent_too(key: Path) -> None:
    asked: list[str] = []
    async with listening("POST", noting(asked, 202)) as url:
        deliveries, queue = deliveries_to(Sink("a", url + "/", key))
        for event in ("id-1", "id-2"):
            deliveries.start(KEY, Delivery("rr", "a", 1, event, "{}"))
            assert await asyncio.wait_for(queue.get(), 5) == KEY
            queue.done(KEY)
            assert deliveries.answers(KEY)["rr"].id == event
        await deliveries.close()
    assert asked == ["id-1", "id-2"]


async def test_without_the_lease_nothing_is_sent(key: Path) -> None:
    client = SinkClient({"a": Sink("a", "http://127.0.0.1:9/", key)})
    queue, metrics = KeyedQueue(), Metrics()
    deliveries = Deliveries(client, queue, metrics, Fence(), lambda: datetime.now(UTC))
    deliveries.start(KEY, Delivery("rr", "a", 1, "id-1", "{}"))
    await asyncio.sleep(0.05)
    assert deliveries.answers(KEY) == {}
    await deliveries.close()


@pytest.mark.parametrize(
    ("sinks", "told"),
    [
        ("[{name: a, url: 'http://x/', signingKeyFile: /k}]", "unless allowHttp is set"),
        ("[{name: a, url: 'https://u:p@x/', signingKeyFile: /k}]", "neither credentials nor"),
        ("[{name: a, url: 'ftp://x/', signingKeyFile: /k}]", "must be an address"),
        ("[{name: a, url: 'https://x/', signingKeyFile: k}]", "must be an absolute path"),
        ("[{name: a, url: 'https://x/'}]", "signingKeyFile"),
        (
            f"[{{name: a, url: 'https://x/', signingKeyFile: {TOKEN}}}]",
            "goes to the API server only",
        ),
        (
            f"[{TAKEN}, {TAKEN}]",
            "there are two called 'a'",
        ),
    ],
)
def test_what_is_wrong_with_a_sink_ends_the_start_in_a_sentence(
    tmp_path: Path, sinks: str, told: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"sinks: {sinks}\n")
    with pytest.raises(SettingsError, match=told):
        load(path)
