"""Fixtures: a clock that nobody waits for, an HTTP server that misbehaves on demand, S3."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import socket
import ssl
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.loaders
import pytest
from tests.fetcher.object_stores import Bucket, Container

from mooring_dev.stores import AzureServer, GcsServer, azure_server, gcs_server
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import PermanentFailure, TransientFailure
from mooring_fetcher.fetch import Run
from mooring_fetcher.limits import Limits
from mooring_fetcher.patience import Patience, RetryPolicy


class FakeClock:
    """Time passes only by sleeping, and by `tick` at each look."""

    def __init__(self) -> None:
        self.time = 0.0
        self.tick = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        self.time += self.tick
        return self.time

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        self.slept.append(seconds)
        self.time += seconds


@dataclass
class Workbench:
    """A run with everything injected, and what it said."""

    clock: FakeClock = field(default_factory=FakeClock)
    lines: list[str] = field(default_factory=list)
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    def run(self, *, limits: Limits | None = None, secret: dict[str, str] | None = None) -> Run:
        patience = Patience(
            policy=self.policy, clock=self.clock, dice=lambda: 0.5, say=self.lines.append
        )
        held = Credentials("fraud-store", tuple(secret.items())) if secret else Credentials()
        return Run(limits or Limits(), patience, held, self.lines.append)


HERE = Path(__file__).parent
#: Fixtures that start a server.
SERVERS = frozenset({"web", "secure_web", "elsewhere", "cutting"})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for a server belongs to the tier of those that start one."""
    for item in items:
        if item.path.is_relative_to(HERE) and SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.process)


@pytest.fixture
def bench() -> Workbench:
    return Workbench()


@pytest.fixture
def permanent() -> Callable[..., Any]:
    """A context that expects a PermanentFailure whose sentence says all of the given parts."""
    return _expecting(PermanentFailure)


@pytest.fixture
def transient() -> Callable[..., Any]:
    """A context that expects a TransientFailure whose sentence says all of the given parts."""
    return _expecting(TransientFailure)


def _expecting(kind: type[Exception]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def expect(*parts: str) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        told = str(caught.value)
        for part in parts:
            assert part in told, f"{part!r} is not in {told!r}"
        assert "\n" not in told

    return expect


@dataclass
class Remote:
    """A file that the server holds."""

    body: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    framing: str = "length"
    """length, chunked, or close: how the end of the body is told."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request that arrived, and how many bytes of body left for it."""

    path: str
    headers: dict[str, str]
    sent: int = 0
    body: bytes = b""


class Loopback:
    """An HTTP server on loopback. Files are served as a good server would, but each step that was
    scripted for a path spoils one request to it:

    - status=503, headers={…}, body=b"…"  answers that instead
    - cut=N     closes the connection after N bytes of body (chunked: in the middle of a chunk)
    - reset=N   resets the connection after N bytes
    - claim=N   states a Content-Length of N
    - swap=Remote(…)  replaces the file before answering
    - trickle=N sends one byte at a time, N of them, then hangs up
    - answer=200  ignores a range
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, Remote] = {}
        self.steps: dict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self.always: dict[str, dict[str, Any]] = {}
        self.asked: list[Asked] = []
        owner = self

        class Handler(_Handler):
            loopback = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # A client that hangs up in the middle is what many of these tests are about.
        self._server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
        self._scheme = "https" if context else "http"
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def put(self, path: str, body: bytes, **how: Any) -> str:
        """Holds a file; returns its URL."""
        self.files[path] = Remote(body, **how)
        return self.url + path

    def script(self, path: str, *steps: dict[str, Any]) -> None:
        self.steps[path].extend(steps)

    def sent(self, path: str) -> int:
        """Bytes of body that left for a path, over all requests."""
        return sum(asked.sent for asked in self.asked if asked.path == path)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    loopback: Loopback

    def log_message(self, *arguments: Any) -> None:
        return

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(self.path, dict(self.headers.items()), body=sent)
        self.loopback.asked.append(asked)
        steps = self.loopback.steps[path]
        step = steps.popleft() if steps else self.loopback.always.get(path, {})
        if "swap" in step:
            self.loopback.files[path] = Remote(**step["swap"])
        if "status" in step:
            self._answer(step)
            return
        remote = self.loopback.files.get(path)
        if remote is None:
            self._answer({"status": 404})
            return
        self._serve(remote, step, asked)

    def _answer(self, step: dict[str, Any]) -> None:
        body = step.get("body", b"")
        self.send_response_only(step["status"])
        for name, value in step.get("headers", {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _serve(self, remote: Remote, step: dict[str, Any], asked: Asked) -> None:
        start = self._start(remote, step)
        if start and start >= len(remote.body):
            self._answer({"status": 416})
            return
        rest = remote.body[start:]
        self.send_response(206 if start else 200)
        if remote.etag:
            self.send_header("ETag", remote.etag)
        for name, value in remote.headers.items():
            self.send_header(name, value)
        if start:
            end, size = len(remote.body) - 1, len(remote.body)
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        if remote.framing == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif remote.framing == "length":
            self.send_header("Content-Length", str(step.get("claim", len(rest))))
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        self._send(remote, rest, step, asked)

    def _start(self, remote: Remote, step: dict[str, Any]) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or not remote.ranges or step.get("answer") == 200:
            return 0
        condition = self.headers.get("If-Range")
        return int(match[1]) if condition in (None, remote.etag) else 0

    def _send(self, remote: Remote, rest: bytes, step: dict[str, Any], asked: Asked) -> None:
        stop = step.get("cut", step.get("reset", step.get("trickle")))
        data = rest if stop is None else rest[:stop]
        piece = 1 if "trickle" in step else 1 << 16
        if remote.framing == "chunked":
            self._send_chunked(data, cut=stop is not None, asked=asked)
        else:
            for at in range(0, len(data), piece):
                self.wfile.write(data[at : at + piece])
                self.wfile.flush()
                asked.sent += len(data[at : at + piece])
                if piece == 1:
                    time.sleep(0.001)
        if stop is None:
            return
        self.close_connection = True
        if "reset" in step:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def _send_chunked(self, data: bytes, *, cut: bool, asked: Asked) -> None:
        self.wfile.write(f"{len(data) + (10 if cut else 0):x}\r\n".encode() + data)
        asked.sent += len(data)
        if not cut:
            self.wfile.write(b"\r\n0\r\n\r\n")


class Cutter:
    """A TCP relay that hangs up after so many bytes of answer, once per entry of `cuts`."""

    def __init__(self, endpoint: str) -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        self._upstream = (host, int(port))
        self.cuts: list[int] = []
        self.relayed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._relay, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._upstream) as server:
            forward = threading.Thread(target=_pump, args=(client, server))
            forward.start()
            budget = self.cuts.pop(0) if self.cuts else 1 << 40
            while budget > 0 and (data := _receive(server)):
                data = data[:budget]
                budget -= len(data)
                self.relayed += len(data)
                try:
                    client.sendall(data)
                except OSError:
                    break
            for end in (client, server):
                _hang_up(end)
            forward.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    while data := _receive(source):
        try:
            sink.sendall(data)
        except OSError:
            return
    _hang_up(sink)


def _receive(end: socket.socket) -> bytes:
    try:
        return end.recv(1 << 16)
    except OSError:
        return b""


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@pytest.fixture
def cutting() -> Iterator[Callable[[str], Cutter]]:
    """Puts a relay that hangs up on demand in front of a server."""
    with contextlib.ExitStack() as relays:

        def start(endpoint: str) -> Cutter:
            relay = Cutter(endpoint)
            relays.callback(relay.close)
            return relay

        yield start


@pytest.fixture(scope="package", autouse=True)
def _cheap_starts() -> Iterator[None]:
    """What costs a process a moment once would cost it hundreds of times here: loading a hundred
    and fifty authorities (none does) and botocore's description of S3.

    Only in this process: the programs that other fixtures start go on trusting whom they trust.
    """
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl.SSLContext.load_default_certs", lambda *_: None)
        patch.setattr("botocore.session.create_loader", lambda paths: loader)
        yield


@pytest.fixture
def web() -> Iterator[Loopback]:
    """Plain http; the tests allow it."""
    server = Loopback()
    yield server
    server.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-made certificate for 127.0.0.1 and its key."""
    return _certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure_web(authority: tuple[Path, Path]) -> Iterator[Loopback]:
    yield from _secure(authority)


@pytest.fixture
def elsewhere(authority: tuple[Path, Path]) -> Iterator[Loopback]:
    """A second https host, as far as origins go."""
    yield from _secure(authority)


def _secure(authority: tuple[Path, Path]) -> Iterator[Loopback]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority)
    server = Loopback(context)
    yield server
    server.close()


def _certificate(folder: Path) -> tuple[Path, Path]:
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "ca.crt", folder / "tls.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, secret


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """fake-gcs-server, which speaks Google Cloud Storage's JSON API."""
    with gcs_server(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """Azurite, Microsoft's emulator of Azure Blob Storage."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Azurite needs Node.js, and this machine has none")
    with azure_server(tmp_path_factory.mktemp("azure")) as server:
        yield server


@pytest.fixture
def bucket(gcs: GcsServer, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(gcs.endpoint, _of_its_own(request))


@pytest.fixture
def container(azure: AzureServer, request: pytest.FixtureRequest) -> Container:
    return Container(azure, _of_its_own(request))


def _of_its_own(request: pytest.FixtureRequest) -> str:
    return "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
