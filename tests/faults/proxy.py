"""A proxy in front of a real kube-apiserver that does one thing wrong, at one named place.

asyncio does not order calls, so a place is not "the 17th request" but (verb, object, occurrence):
the second apply of ``Deployment fraud-xyz``, the third event of the watch of ``services``. The
same name is the same place in every run of the same scenario.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from tests.faults.history import MEDDLED, steady
from tests.faults.prometheus_proxy import Fault as Wrong

from mooring.core.kinds import CLUSTER_MODEL_RUNTIME, KIND_BY_NAME, MODEL_RUNTIME

#: What can be done to a single request.
REQUEST_FAULTS = (
    "kill-before",  # the operator dies, and the request was not sent
    "kill-after-commit",  # the request was carried out, and the operator dies
    "lost",  # carried out, and the answer does not arrive
    "reset",  # the connection breaks before anything is sent
    "conflict",  # 409
    "throttled",  # 429, Retry-After: 1
    "error",  # 500
    "unavailable",  # 503
    "truncated",  # carried out, and the answer ends in the middle of its JSON
    "delay",  # carried out after a while
    "meddled",  # somebody else changes the object just before it
    "stale",  # carried out, the operator dies, and the next one is shown what was before
)
#: What can be done to an answer of Prometheus (tests.faults.prometheus_proxy): costs one tick.
QUERY_FAULTS = tuple(
    f"query-{wrong}"
    for wrong in (
        Wrong.RESET, Wrong.UNAVAILABLE, Wrong.HANG, Wrong.HTML, Wrong.STATUS_ERROR,
        Wrong.TRUNCATED, Wrong.EMPTY, Wrong.NAN, Wrong.INF, Wrong.SEVERAL, Wrong.OLD,
        Wrong.WARNINGS, Wrong.PARTIAL,
    )
)  # fmt: skip
#: What can be done to a watch at its k-th event.
WATCH_FAULTS = (
    "drop",  # this event is not delivered, and the stream goes on
    "half-open",  # nothing more is delivered, and the stream stays open
    "gone",  # 410 in the stream instead of it
    "stream-error",  # another error in the stream, which is fatal to kopf
    "close",  # the stream ends cleanly instead of it
)
_PLURALS = {
    kind.plural: kind.name
    for kind in (*KIND_BY_NAME.values(), MODEL_RUNTIME, CLUSTER_MODEL_RUNTIME)
}
#: Verbs of places that change nothing; "query" is one of Prometheus.
_READS = ("get", "list", "watch", "query")
#: For how long an operator works on an old state after "stale" (seconds).
_STALE_SECONDS = 1.0
_HOP = ("Transfer-Encoding", "Content-Length", "Content-Encoding", "Connection", "Keep-Alive")
_DELAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A place: the ``occurrence``-th (from 1) ``verb`` on ``target``."""

    verb: str
    target: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.verb}:{self.target}:{self.occurrence}"


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """What to do wrong, and where. Its text form names it, and is read back by :meth:`parse`."""

    what: str
    point: Point

    def __str__(self) -> str:
        return f"{self.what}@{self.point}"

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Reads ``lost@apply:Deployment fraud-xyz:1``; raises ValueError."""
        what, _, place = text.partition("@")
        verb, target, occurrence = place.rsplit(":", 2) if place.count(":") > 1 else ("", "", "")
        if what not in (*REQUEST_FAULTS, *WATCH_FAULTS, *QUERY_FAULTS) or not occurrence.isdigit():
            raise ValueError(f"{text!r} is no fault: write <what>@<verb>:<Kind name>:<occurrence>")
        return cls(what, Point(verb, target, int(occurrence)))


@dataclass
class Proxy:
    """Serves plain HTTP on a port of its own; :meth:`run` writes a kubeconfig that leads to it.

    ``rule`` may answer for any request, for faults that are not single: it gets the point and
    returns what to do, or None.
    """

    session: aiohttp.ClientSession
    server: str
    fault: Fault | None = None
    on_kill: Callable[[], None] = lambda: None
    rule: Callable[[Point], str | None] = lambda point: None
    down: bool = False
    watches_refused: bool = False
    refused: int = 0
    frozen_at: str = ""
    _open: set[asyncio.Transport] = field(default_factory=set)
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    _thawing: bool = False
    seen: list[Point] = field(default_factory=list)
    struck: int = 0
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    @contextlib.asynccontextmanager
    async def run(self, folder: Path) -> AsyncIterator[Path]:
        """Runs the proxy; gives the path of a kubeconfig."""
        runner = web.ServerRunner(
            web.Server(self._handle), handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        path = folder / f"proxy-{port}.kubeconfig"
        path.write_text(_kubeconfig(f"http://127.0.0.1:{port}"))
        try:
            yield path
        finally:
            await runner.cleanup()

    @property
    def writes(self) -> int:
        """How many writes came by, whatever the operator says of itself. Events do not count."""
        return sum(
            point.verb not in _READS and not point.target.startswith("Event") for point in self.seen
        )

    def count(self, verb: str, target: str) -> Point:
        """The point that this request or event is."""
        target = steady(target)
        self._counts[verb, target] += 1
        point = Point(verb, target, self._counts[verb, target])
        self.seen.append(point)
        return point

    def strike(self, point: Point) -> str | None:
        """What to do wrong here, if anything."""
        found = self.rule(point)
        if found is None and self.fault is not None and self.fault.point == point:
            found = self.fault.what
        if found is not None:
            self.struck += 1
        return found

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.down:
            return _abort(request)
        if isinstance(request.transport, asyncio.Transport):
            self._open.add(request.transport)
        body = await request.read()
        verb, target = _place(request)
        if verb == "watch":
            return await self._watch(request, target)
        if not verb:
            return await self._forward(request, body)
        what = self.strike(self.count(verb, target))
        if what is None:
            return await self._forward(request, body)
        return await self._misbehave(what, request, body)

    async def _misbehave(
        self, what: str, request: web.BaseRequest, body: bytes
    ) -> web.StreamResponse:
        if what == "kill-before":
            self._kill()
            return _abort(request)
        if what == "reset":
            return _abort(request)
        if what in _ANSWERS:
            return _answer(what)
        if what == "delay":
            await asyncio.sleep(_DELAY_SECONDS)
            return await self._forward(request, body)
        if what == "meddled":
            await self._meddle(request)
            return await self._forward(request, body)
        if what == "stale":
            await self._freeze(request)
        answer = await self._forward(request, body)
        if what == "truncated":
            assert isinstance(answer.body, bytes)
            return web.Response(
                status=answer.status,
                body=answer.body[: len(answer.body) // 2],
                headers={"Content-Type": "application/json"},
            )
        if what in ("kill-after-commit", "stale"):
            self._kill()
        return _abort(request)

    def _kill(self) -> None:
        self.down = True
        self.on_kill()

    def cut_off(self) -> None:
        """Nothing gets through any more, and open connections end, until ``down`` is cleared."""
        self.down = True
        for transport in self._open:
            transport.abort()

    async def _freeze(self, request: web.BaseRequest) -> None:
        """From now on everything is shown as it is at this moment, for a while."""
        path = request.path.rsplit("/", 1)[0]
        if request.method == "PATCH" and request.path.endswith("/status"):
            path = path.rsplit("/", 1)[0]
        async with self.session.get(f"{self.server}{path}?limit=1") as answer:
            self.frozen_at = (await answer.json())["metadata"]["resourceVersion"]
        self.thawed.clear()
        self._thawing = False

    async def _until_thawed(self) -> None:
        """The next operator has filled its store when it begins to watch; a while it works on that.

        From when it is asked for, since on a busy machine it may take long to come to that.
        """

        def thaw() -> None:
            self.frozen_at = ""
            self.thawed.set()

        if not self._thawing:
            self._thawing = True
            asyncio.get_running_loop().call_later(_STALE_SECONDS, thaw)
        await self.thawed.wait()

    async def _meddle(self, request: web.BaseRequest) -> None:
        """Somebody else annotates the object, if it is there."""
        path = request.path.removesuffix("/status")
        body = {"metadata": {"annotations": {MEDDLED: "yes"}}}
        async with self.session.patch(
            f"{self.server}{path}?fieldManager=somebody-else",
            data=json.dumps(body),
            headers={"Content-Type": "application/merge-patch+json"},
        ) as answer:
            await answer.read()

    def _shown(self, request: web.BaseRequest) -> str:
        """The address at the API server, of an old state while that is what is shown."""
        url = self.server + request.path_qs
        if not self.frozen_at or request.method != "GET" or "continue" in request.query:
            return url
        joint = "&" if request.query_string else "?"
        return f"{url}{joint}resourceVersion={self.frozen_at}&resourceVersionMatch=Exact"

    async def _forward(self, request: web.BaseRequest, body: bytes) -> web.Response:
        address = self._shown(request) if _place(request)[0] == "list" else ""
        async with self.session.request(
            request.method, address or self.server + request.path_qs, data=body or None,
            headers=_passed_on(request),
        ) as answer:  # fmt: skip
            headers = {k: v for k, v in answer.headers.items() if k.title() not in _HOP}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    async def _watch(self, request: web.BaseRequest, target: str) -> web.StreamResponse:
        if self.frozen_at:
            await self._until_thawed()
        if self.watches_refused:
            self.refused += 1
            return _answer("expired")
        async with self.session.get(
            self.server + request.path_qs,
            headers=_passed_on(request),
            timeout=aiohttp.ClientTimeout(total=None),
        ) as upstream:
            response = web.StreamResponse(
                status=upstream.status, headers={"Content-Type": "application/json"}
            )
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                async for line in upstream.content:
                    if self.down:
                        return _abort(request)
                    if not await self._event(response, target, line):
                        break
                await response.write_eof()
            return response

    async def _event(self, response: web.StreamResponse, target: str, line: bytes) -> bool:
        """Passes one event on; False when the stream shall end."""
        event = json.loads(line)
        if event["type"] == "BOOKMARK":
            await response.write(line)
            return True
        what = self.strike(self.count("watch", target))
        if what is None:
            await response.write(line)
            return True
        if what == "half-open":
            await asyncio.Event().wait()  # until the client gives up
        if what in _STREAM_ERRORS:
            status = {"kind": "Status", "apiVersion": "v1", **_STREAM_ERRORS[what]}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return False
        return what == "drop"


_ANSWERS: dict[str, tuple[int, str]] = {
    "conflict": (409, "Conflict"),
    "throttled": (429, "TooManyRequests"),
    "error": (500, "InternalError"),
    "unavailable": (503, "ServiceUnavailable"),
    "forbidden": (403, "Forbidden"),
    "expired": (410, "Expired"),
}
_STREAM_ERRORS: dict[str, dict[str, Any]] = {
    "gone": {"code": 410, "reason": "Expired", "message": "too old resource version"},
    "stream-error": {"code": 500, "reason": "InternalError", "message": "etcd is away"},
}


def _answer(what: str) -> web.Response:
    code, reason = _ANSWERS[what]
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
              "reason": reason, "message": f"the test says {reason}"}  # fmt: skip
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(status, status=code, headers=headers)


def _abort(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _passed_on(request: web.BaseRequest) -> dict[str, str]:
    kept = ("Content-Type", "Accept", "User-Agent")
    return {key: request.headers[key] for key in kept if key in request.headers}


def _place(request: web.BaseRequest) -> tuple[str, str]:
    """The verb and the object of a request; no verb for discovery and what is of no interest."""
    parts = request.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    if not parts or parts[0] not in _PLURALS:
        return "", ""
    kind = _PLURALS[parts[0]]
    if len(parts) == 1:
        if request.query.get("watch") == "true":
            return "watch", kind
        return {"GET": "list", "POST": "create"}[request.method], kind
    target = f"{kind} {parts[1]}"
    if request.method != "PATCH":
        return request.method.lower(), target
    if parts[2:]:
        return f"patch-{parts[2]}", target
    if request.query.get("fieldManager") == "mooring-replicas":
        return "scale", target
    applied = request.headers.get("Content-Type", "").startswith("application/apply-patch")
    return ("apply" if applied else "patch"), target


def _kubeconfig(server: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": server}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        }
    )
