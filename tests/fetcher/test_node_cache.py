"""Fetching by way of the cache of a node: once for ten pods, for nobody who may not, and never to
the harm of a fetch.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from mooring_dev.health import wait_until
from mooring_dev.s3 import S3Server
from mooring_fetcher.blobs import Keeper
from mooring_fetcher.cache_names import CacheNames
from mooring_fetcher.cache_server import CacheServer
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.fetch import Request, fetch
from mooring_fetcher.store import RemoteFile
from mooring_fetcher.uri import parse_uri

if TYPE_CHECKING:
    from tests.fetcher.conftest import Cutter, Loopback, Workbench

BODY = hashlib.shake_256(b"weights").digest(3 << 20)
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()
PATH = "/v7/model.onnx"
SECRET = {"MOORING_CACHE_KEY": "0123456789abcdef"}
Get = Callable[..., Any]


class Cache:
    """A cache in this process, with what it keeps in sight."""

    def __init__(self, folder: Path) -> None:
        self.keeper = Keeper(folder, 16 << 20)
        self.server = CacheServer(("127.0.0.1", 0), self.keeper)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path / "cache")
    yield cache
    cache.stop()


@pytest.fixture
def get(bench: Workbench, cache: Cache, tmp_path: Path) -> Get:
    """Fetches as a pod of its own, each into another folder."""
    made = iter(range(100))

    def run(uri: str, *, secret: dict[str, str] = SECRET, **request: Any) -> Any:
        target = tmp_path / f"pod-{next(made)}"
        one = replace(bench.run(secret=secret), cache=cache.url)
        return fetch(Request(uri, target, allow_http=True, **request), one)

    return run


def eventually(what: str, condition: Callable[[], bool]) -> None:
    wait_until(what, condition, timeout=60, check=lambda: None)


def asking(cache: Cache, path: str, length: int) -> http.client.HTTPConnection:
    """A connection that asks to fill."""
    connection = http.client.HTTPConnection("127.0.0.1", cache.server.server_port, timeout=10)
    connection.putrequest("PUT", path)
    connection.putheader("Content-Length", str(length))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    return connection


def test_the_second_pod_is_given_what_the_first_brought(
    web: Loopback, get: Get, cache: Cache
) -> None:
    url = web.put(PATH, BODY)
    assert get(url, declared=SHA).digest == SHA
    assert get(url, declared=SHA).digest == SHA
    assert (cache.keeper.counts.fills, cache.keeper.counts.hits) == (1, 1)
    assert cache.keeper.counts.bytes_served == len(BODY)


def test_a_pod_that_has_no_digest_yet_fills_the_cache_and_believes_the_store_alone(
    web: Loopback, get: Get, cache: Cache
) -> None:
    url = web.put(PATH, BODY)
    assert get(url).digest == SHA
    assert get(url).digest == SHA
    assert cache.keeper.counts.hits == 0
    assert get(url, pinned=SHA).digest == SHA
    assert cache.keeper.counts.hits == 1


def test_who_holds_other_credentials_or_none_is_given_nothing(
    web: Loopback, get: Get, cache: Cache
) -> None:
    url = web.put(PATH, BODY)
    get(url, declared=SHA)
    get(url, declared=SHA, secret={"MOORING_CACHE_KEY": "another, of the same bytes"})
    get(url, declared=SHA, secret={})
    assert cache.keeper.counts.hits == 0
    assert cache.keeper.counts.fills == 2


def test_who_may_no_longer_list_is_refused_though_the_cache_has_it(
    web: Loopback, get: Get, permanent: Callable[..., Any]
) -> None:
    url = web.put(PATH, BODY)
    get(url, declared=SHA)
    web.always[PATH] = {"status": 403}
    with permanent("access is denied"):
        get(url, declared=SHA)


def test_what_the_cache_has_wrong_is_fetched_again_and_dropped_there(
    web: Loopback, get: Get, cache: Cache, bench: Workbench
) -> None:
    url = web.put(PATH, BODY)
    get(url, declared=SHA)
    (held,) = cache.keeper.folder.iterdir()
    held.write_bytes(BODY[:-1] + b"?")
    assert get(url, declared=SHA).digest == SHA
    assert any("without the node's cache" in line for line in bench.lines)
    assert cache.keeper.held == (0, 0)
    get(url, declared=SHA)
    assert get(url, declared=SHA).digest == SHA
    assert cache.keeper.counts.hits == 2


def test_a_digest_that_is_wrong_is_refused_and_costs_those_who_have_the_right_one_nothing(
    web: Loopback, get: Get, cache: Cache, permanent: Callable[..., Any]
) -> None:
    url = web.put(PATH, BODY)
    get(url, declared=SHA)
    with permanent("digest", SHA):
        get(url, declared="sha256:" + "0" * 64)
    assert get(url, declared=SHA).digest == SHA
    assert cache.keeper.counts.fills == 1
    assert cache.keeper.counts.bytes_served == 2 * len(BODY)


def test_a_model_that_was_replaced_is_told_as_without_a_cache(
    web: Loopback, get: Get, permanent: Callable[..., Any]
) -> None:
    url = web.put(PATH, BODY)
    get(url, declared=SHA)
    web.put(PATH, BODY[::-1], etag='"v2"')
    with permanent("they were replaced after the digest was taken"):
        get(url, declared=SHA)


def test_without_a_cache_that_answers_the_store_is_asked(
    web: Loopback, bench: Workbench, tmp_path: Path
) -> None:
    run = replace(bench.run(secret=SECRET), cache="http://127.0.0.1:1")
    request = Request(web.put(PATH, BODY), tmp_path / "models", declared=SHA, allow_http=True)
    assert fetch(request, run).digest == SHA
    assert sum("cache is left out" in line for line in bench.lines) == 1
    assert bench.clock.slept == []


def test_a_server_that_is_no_cache_does_no_harm(
    web: Loopback, elsewhere: Loopback, bench: Workbench, tmp_path: Path
) -> None:
    # It speaks TLS, so it answers nothing that makes sense.
    address = f"http://127.0.0.1:{urlsplit(elsewhere.url).port}"
    run = replace(bench.run(secret=SECRET), cache=address)
    request = Request(web.put(PATH, BODY), tmp_path / "models", declared=SHA, allow_http=True)
    assert fetch(request, run).digest == SHA


def test_a_store_that_breaks_while_one_pod_fills_costs_nobody_the_bytes(
    web: Loopback, get: Get, cache: Cache
) -> None:
    url = web.put(PATH, BODY)
    web.script(PATH, {"cut": 1_000_000})
    assert get(url, declared=SHA).digest == SHA
    assert web.asked[-1].headers["Range"] == "bytes=1000000-"
    assert cache.keeper.counts.fills == 1
    assert get(url, declared=SHA).digest == SHA
    assert cache.keeper.counts.bytes_served == len(BODY)


def test_where_whoever_fills_dies_one_goes_on_from_there_and_the_others_follow_it(
    web: Loopback, get: Get, cache: Cache
) -> None:
    url = web.put(PATH, BODY)
    names = CacheNames.of(parse_uri(url, allow_http=True), Credentials("s", tuple(SECRET.items())))
    file = RemoteFile("model.onnx", url, len(BODY), '"v1"')
    first = asking(cache, f"/v1/{names and names.of_file(file)}?size={len(BODY)}&from=0", len(BODY))
    assert b" 100 " in first.sock.recv(100)
    first.sock.sendall(BODY[:1_000_000])
    with ThreadPoolExecutor(4) as pool:
        pods = [pool.submit(get, url, declared=SHA) for _ in range(4)]
        eventually("all four follow", lambda: cache.keeper.counts.bytes_served == 4_000_000)
        first.close()
        assert {one.result().digest for one in pods} == {SHA}
    rests = [asked.headers["Range"] for asked in web.asked if "Range" in asked.headers]
    assert rests == ["bytes=1000000-"]
    assert cache.keeper.counts.fills == 1


def test_a_cache_that_is_full_of_what_is_read_is_passed_by(
    web: Loopback, get: Get, cache: Cache
) -> None:
    cache.keeper.max_bytes = 2 << 20
    assert get(web.put(PATH, BODY), declared=SHA).digest == SHA
    assert cache.keeper.held == (0, 0)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1/" + "0" * 64 + "?size=1048576", {}, 404),
        ("GET", "/v1/" + "0" * 64, {}, 404),
        ("GET", "/v1/../../etc/passwd", {}, 404),
        ("GET", "/v1/" + "0" * 64 + "?size=-1", {"Range": "bytes=x"}, 404),
        ("PUT", "/v1/" + "0" * 64 + "?size=9&from=0", {"Content-Length": "9"}, 417),
        ("PUT", "/v1/x?size=9&from=0", {"Content-Length": "9", "Expect": "100-continue"}, 400),
        (
            "PUT",
            "/v1/" + "0" * 64 + "?size=9&from=3",
            {"Content-Length": "9", "Expect": "100-continue"},
            400,
        ),
        ("DELETE", "/v1/" + "0" * 64, {}, 204),
        ("GET", "/healthz", {}, 200),
        ("POST", "/healthz", {}, 501),
    ],
)
def test_whatever_is_asked_is_answered(
    cache: Cache, web: Loopback, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", cache.server.server_port, timeout=10)
    connection.putrequest(method, path)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == status
    connection.close()
    assert list(cache.keeper.folder.iterdir()) == []


def test_who_may_fill_and_goes_away_before_it_does_leaves_the_place_to_others(
    cache: Cache, web: Loopback
) -> None:
    def granted() -> bool:
        connection = asking(cache, f"/v1/{'0' * 64}?size={1 << 20}&from=0", 1 << 20)
        answer = connection.sock.recv(100)
        held.append(connection)
        return b" 100 " in answer

    held: list[http.client.HTTPConnection] = []
    assert granted()
    assert not granted()
    held[0].close()
    eventually("the place is free", granted)
    for connection in held:
        connection.close()


FILE = RemoteFile("m", "v7/m", 3 << 20, '"etag"')


def name(uri: str = "s3://models/v7/m", file: RemoteFile = FILE, **keys: str) -> str | None:
    held = {"AWS_ACCESS_KEY_ID": "AKIA1234", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI"} | keys
    names = CacheNames.of(parse_uri(uri), Credentials("s", tuple(held.items())))
    return names.of_file(file) if names else None


def test_a_name_is_of_credentials_place_file_and_version() -> None:
    assert name() == name()
    others = [
        name(AWS_SECRET_ACCESS_KEY="another one"),
        name(AWS_ENDPOINT_URL="https://elsewhere.example.com"),
        name("s3://others/v7/m"),
        name("gs://models/v7/m"),
        name(file=replace(FILE, key="v8/m")),
        name(file=replace(FILE, version='"other"')),
        name(file=replace(FILE, size=4 << 20)),
    ]
    assert None not in others
    assert len({name(), *others}) == len(others) + 1


@pytest.mark.parametrize(
    "file", [replace(FILE, version=None), replace(FILE, size=None), replace(FILE, size=1000)]
)
def test_what_nothing_vouches_for_or_is_small_has_no_name(file: RemoteFile) -> None:
    assert name(file=file) is None


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"AWS_ENDPOINT_URL": "https://storage.example.com"},
        {"AWS_ACCESS_KEY_ID": "AKIA12345678"},
        {"username": "an-account-with-a-long-name", "password": "short"},
        {"MOORING_CACHE_KEY": "too-short"},
        {".dockerconfigjson": '{"auths": {"registry.example.com": {}}}'},
        {"AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=https://models.example.com;"},
        {"AZURE_STORAGE_SAS_TOKEN": "sp=rl&se=2030-01-01"},
        {"gcloud-application-credentials.json": '{"type": "service_account"}'},
    ],
)
def test_without_a_secret_that_nobody_can_guess_there_are_no_names(keys: dict[str, str]) -> None:
    held = Credentials("s", tuple(keys.items()))
    assert CacheNames.of(parse_uri("s3://models/v7/m"), held) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"token": "ya29.a0AfH6"},
        {"MLFLOW_TRACKING_TOKEN": "ya29.a0AfH6"},
        {"username": "me", "password": "correct horse"},
        {".dockerconfigjson": '{"auths": {"registry.example.com": {"auth": "bWU6c2VjcmV0"}}}'},
        {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=c2VjcmV0IQ==;"},
        {"AZURE_STORAGE_SAS_TOKEN": "sp=rl&sig=c2VjcmV0IQ%3D%3D"},
        {"gcloud-application-credentials.json": '{"private_key": "-----BEGIN"}'},
    ],
)
def test_every_kind_of_credentials_gives_names(keys: dict[str, str]) -> None:
    held = Credentials("s", tuple(keys.items()))
    assert CacheNames.of(parse_uri("s3://models/v7/m"), held) is not None


class Process:
    """The cache as a container runs it."""

    def __init__(self, folder: Path, *, max_bytes: int = 64 << 20) -> None:
        command = [sys.executable, "-m", "mooring_fetcher", "cache", "--port", "0"]
        command += ["--dir", str(folder), "--max-bytes", str(max_bytes)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()
        port = re.search(r"port (\d+)", self.greeting)
        assert port is not None
        self.url = f"http://127.0.0.1:{port[1]}"

    def metric(self, name: str) -> int:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(rf"^mooring_node_cache_{name} (\d+)$", text, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


LARGE = hashlib.shake_256(b"large").digest(24 << 20)
LARGE_SHA = "sha256:" + hashlib.sha256(LARGE).hexdigest()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server.start(tmp_path_factory.mktemp("s3")) as server:
        yield server


def pod(uri: str, folder: Path, secret: Path, cache: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mooring_fetcher", "fetch", "--uri", uri]
    command += ["--target", str(folder), "--digest", LARGE_SHA, "--cache", cache]
    command += ["--credentials-dir", str(secret), "--credentials-name", "store"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


@pytest.mark.s3
def test_ten_pods_of_a_node_fetch_once(
    s3: S3Server, cutting: Callable[[str], Cutter], tmp_path: Path
) -> None:
    uri = s3.put("models", "fraud/v7", LARGE)
    relay = cutting(s3.endpoint)
    secret = tmp_path / "secret"
    secret.mkdir()
    for key, value in (s3.environment | {"AWS_ENDPOINT_URL": relay.endpoint}).items():
        (secret / key).write_text(value)
    cache = Process(tmp_path / "cache")
    try:
        pods = [pod(uri, tmp_path / f"pod-{n}", secret, cache.url) for n in range(10)]
        with ThreadPoolExecutor(10) as pool:
            codes = list(pool.map(lambda one: one.wait(120), pods))
        assert codes == [0] * 10
        for n in range(10):
            assert (tmp_path / f"pod-{n}" / "v7").read_bytes() == LARGE
        # The model once, and ten times two listings' few hundred bytes.
        assert relay.relayed < len(LARGE) + 40_000
        assert cache.metric("fills_total") == 1
        assert cache.metric("served_bytes_total") == 9 * len(LARGE)
    finally:
        assert cache.end() == 0


@pytest.mark.s3
@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("s3://models/nothing", "There is no object at s3://models/nothing and none below it"),
        ("s3://nothere/fraud", "The bucket nothere does not exist"),
    ],
)
def test_what_is_not_there_is_told_as_without_a_cache(
    s3: S3Server, get: Get, permanent: Callable[..., Any], uri: str, part: str
) -> None:
    s3.put("models", "other", b"x")
    with permanent(part):
        get(uri, declared=SHA, secret=s3.environment)


@pytest.mark.process
def test_a_cache_that_is_killed_keeps_what_was_whole(
    web: Loopback, bench: Workbench, tmp_path: Path
) -> None:
    url = web.put(PATH, BODY)
    cache = Process(tmp_path / "cache")
    run = replace(bench.run(secret=SECRET), cache=cache.url)
    fetch(Request(url, tmp_path / "one", declared=SHA, allow_http=True), run)
    cache.end(signal.SIGKILL)
    (tmp_path / "cache" / f"{'0' * 64}.part").write_bytes(b"half")
    again = Process(tmp_path / "cache")
    try:
        assert "1 files" in again.greeting
        run = replace(bench.run(secret=SECRET), cache=again.url)
        found = fetch(Request(url, tmp_path / "two", declared=SHA, allow_http=True), run)
        assert found.digest == SHA
        assert again.metric("hits_total") == 1
        assert len(list((tmp_path / "cache").iterdir())) == 1
    finally:
        assert again.end() == 0
