"""The HTTP side: metrics, labels, kept rows and health. Bare ASGI: four paths need no framework."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from mooring_collector.exposition import CONTENT_TYPE, exposition
from mooring_collector.feedback import InvalidFeedback, read_feedback
from mooring_collector.service import Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
MOST_FEEDBACK_BYTES = 1 << 20
MOST_FEEDBACK = 10_000
#: Of all feedback that is being sent: of clients that never end there may be any number.
MOST_HELD_BYTES = 16 << 20
BODY_SECONDS = 10.0
#: Of the sample, at a time: each holds a piece of it.
MOST_READERS = 4
READ_SECONDS = 120.0
_SHOWN_ERRORS = 5
#: Pieces of feedback that are read in one go, of at most 64 labels each: some milliseconds.
_TOGETHER = 16


class TooLarge(Exception):
    """A body over the limit."""


class TooBusy(Exception):
    """All feedback that is being sent is over the limit."""


class Application:
    """Answers what is asked over HTTP."""

    def __init__(self, service: Service, body_seconds: float = BODY_SECONDS) -> None:
        self._service = service
        self._body_seconds = body_seconds
        self._held = self._readers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            return
        asked = scope["method"], scope["path"]
        if asked == ("GET", "/sample") and self._service.telemetry.samples.size:
            await self._show(receive, send)
            return
        status, kind, body = await self._answer(*asked, receive)
        await _send(send, status, kind, body)

    async def _answer(self, method: str, path: str, receive: Receive) -> tuple[int, str, bytes]:
        match method, path:
            case "GET" | "HEAD", "/metrics":
                service = self._service
                text = await exposition(
                    service.telemetry,
                    held_bytes=service.held,
                    exchanges=service.exchanges,
                    lag=service.lag,
                )
                return 200, CONTENT_TYPE, text
            case "GET" | "HEAD", "/healthz":
                return _json(200, {"status": "ok"})
            case "GET", "/sample":
                return _json(404, {"error": "no rows are kept: set spec.monitoring.sampleStore"})
            case "POST", "/feedback":
                return await self._feedback(receive)
            case _, "/metrics" | "/healthz" | "/sample" | "/feedback":
                return _json(405, {"error": f"{path} does not take {method}"})
        return _json(404, {"error": "there are /metrics, /feedback, /sample and /healthz"})

    async def _show(self, receive: Receive, send: Send) -> None:
        """The sample, a row a line. Between its pieces others get their turn."""
        if self._readers >= MOST_READERS:
            await _send(send, *_json(503, {"error": f"{MOST_READERS} read the sample: ask again"}))
            return
        self._readers += 1
        # What is sent to one that has left is dropped without a word.
        gone = asyncio.create_task(_gone(receive))
        try:
            async with asyncio.timeout(READ_SECONDS):
                headers = [(b"content-type", b"application/x-ndjson")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                for rows in self._service.telemetry.samples.shown():
                    part = b"".join(orjson.dumps(row) + b"\n" for row in rows)
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                    await asyncio.sleep(0)
                    if gone.done():
                        return
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            pass  # whoever does not read gets no end: the server closes the connection
        finally:
            gone.cancel()
            self._readers -= 1

    async def _feedback(self, receive: Receive) -> tuple[int, str, bytes]:
        telemetry = self._service.telemetry
        try:
            raw = orjson.loads(await self._body(receive))
        except TimeoutError:
            telemetry.refuse()
            return _json(408, {"error": f"feedback is sent within {self._body_seconds:g} s"})
        except TooBusy:
            telemetry.refuse()
            return _json(503, {"error": "too much feedback is being sent at a time: send it again"})
        except TooLarge:
            telemetry.refuse()
            return _json(413, {"error": f"at most {MOST_FEEDBACK_BYTES} bytes at a time"})
        except ValueError as error:
            telemetry.refuse()
            # NaN and 1e999 end here, too: the parser names their place.
            return _json(400, {"error": f"the body is not JSON: {error}"})
        pieces = raw if isinstance(raw, list) else [raw]
        if len(pieces) > MOST_FEEDBACK:
            telemetry.refuse()
            return _json(413, {"error": f"at most {MOST_FEEDBACK} pieces of feedback at a time"})
        now = time.monotonic()
        results: Counter[str] = Counter(dict.fromkeys(("joined", "late", "unknown", "refused"), 0))
        errors: list[str] = []
        for place, piece in enumerate(pieces, 1):
            if place % _TOGETHER == 0:
                await asyncio.sleep(0)  # half a million labels fit one body: others get their turn
            try:
                labels = read_feedback(piece)
            except InvalidFeedback as error:
                telemetry.refuse()
                results["refused"] += 1
                _note(errors, error)
                continue
            for one in labels:
                try:
                    results[telemetry.label(one, now)] += 1
                except InvalidFeedback as error:
                    results["refused"] += 1
                    _note(errors, error)
        answer: dict[str, Any] = dict(results)
        if errors:
            answer["errors"] = errors
        return _json(400 if errors and results.total() == results["refused"] else 200, answer)

    async def _body(self, receive: Receive) -> bytes:
        """The whole body.

        Raises:
            TimeoutError: it does not end.
            TooBusy: with what others send it is more than is held.
            TooLarge: it alone is more than is read.
        """
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise TooLarge
                    part = message.get("body", b"")
                    size += len(part)
                    self._held += len(part)
                    if size > MOST_FEEDBACK_BYTES:
                        raise TooLarge
                    if self._held > MOST_HELD_BYTES:
                        raise TooBusy
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        finally:
            self._held -= size


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _note(errors: list[str], error: InvalidFeedback) -> None:
    if len(errors) < _SHOWN_ERRORS:
        errors.append(str(error))


def _json(status: int, content: dict[str, Any]) -> tuple[int, str, bytes]:
    return status, "application/json", orjson.dumps(content)
