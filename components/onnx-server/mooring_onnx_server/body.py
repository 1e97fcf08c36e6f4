"""Reads a request's body within its bound."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mooring_onnx_server.errors import InvalidRequestError, RequestRefusedError
from mooring_onnx_server.tensors import shorten

if TYPE_CHECKING:
    from mooring_onnx_server.asgi import Receive, Scope

_LINGER_SECONDS = 5.0
_JSON_LENGTH = b"inference-header-content-length"
_READ_BY_NAME = frozenset({b"content-length", b"content-encoding", _JSON_LENGTH})


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


async def read_body(scope: Scope, receive: Receive, limit: int) -> tuple[bytes, int | None]:
    """Reads the body, up to `limit` bytes.

    Returns:
        The body, and the length of the JSON at its beginning where a header tells one: then
        tensors follow it as bytes.

    Raises:
        BodyTooLargeError: the announced length, or what has come, is over the limit.
        RequestRefusedError: an encoding of the body that is not spoken here, or a length that is
            none.
        ClientGoneError: the connection ended first.
    """
    json_length: int | None = None
    for name, value in scope["headers"]:
        if name in _READ_BY_NAME:
            if name == _JSON_LENGTH:
                json_length = _length(value)
            else:
                _check_header(name, value, limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        if len(body) > limit:
            raise BodyTooLargeError(limit)
        return body, json_length
    return await _read_rest(receive, body, limit), json_length


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
    elif value.lower() not in (b"", b"identity"):
        raise RequestRefusedError(
            415,
            f"content-encoding '{value.decode('latin-1')}' is not supported: send the body "
            "uncompressed",
        )


def _length(value: bytes) -> int:
    # As many digits as any length has; Python refuses to parse thousands of them.
    if not value.isdigit() or len(value) > 18:
        raise InvalidRequestError(
            "Inference-Header-Content-Length must be the JSON's length in bytes, not "
            f"'{shorten(value.decode('latin-1'))}'"
        )
    return int(value)


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
