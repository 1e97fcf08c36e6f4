"""Reads a request's body within its bound."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mooring_onnx_server.errors import RequestRefusedError

if TYPE_CHECKING:
    from mooring_onnx_server.asgi import Receive, Scope

_LINGER_SECONDS = 5.0
_READ_BY_NAME = frozenset(
    {b"content-length", b"content-encoding", b"inference-header-content-length"}
)


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


class BodyTooLargeError(RequestRefusedError):
    """The body is over the limit (413); what is left of it is still on its way."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            413,
            f"the body is larger than the {limit} bytes that this server takes: send a smaller "
            "batch, or raise --max-body-bytes",
        )


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Reads the body, up to `limit` bytes.

    Raises:
        BodyTooLargeError: the announced length, or what has come, is over the limit.
        RequestRefusedError: an encoding of the body that is not spoken here.
        ClientGoneError: the connection ended first.
    """
    for name, value in scope["headers"]:
        if name in _READ_BY_NAME:
            _check_header(name, value, limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        if len(body) > limit:
            raise BodyTooLargeError(limit)
        return body
    return await _read_rest(receive, body, limit)


async def _read_rest(receive: Receive, first: bytes, limit: int) -> bytes:
    chunks = [first]
    size = len(first)
    while True:
        if size > limit:
            raise BodyTooLargeError(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        chunks.append(chunk)
        if not message.get("more_body", False) and size <= limit:
            return b"".join(chunks)


def _check_header(name: bytes, value: bytes, limit: int) -> None:
    if name == b"content-length":
        if value.isdigit() and int(value) > limit:
            raise BodyTooLargeError(limit)
    elif name == b"content-encoding":
        if value.lower() not in (b"", b"identity"):
            raise RequestRefusedError(
                415,
                f"content-encoding '{value.decode('latin-1')}' is not supported: send the "
                "body as plain JSON",
            )
    else:
        raise RequestRefusedError(
            415,
            "this server has no binary tensor extension (Inference-Header-Content-Length): "
            "send the elements as JSON in 'data'",
        )


async def discard_rest(receive: Receive, limit: int) -> None:
    """Reads on for a while and throws away, so that the client gets to see its answer.

    Closing a connection with unread bytes in it resets it, and many clients then report the
    reset instead of the 413 that was sent.
    """
    left = 8 * limit
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
