"""The body of an HTTP answer as a :class:`mooring_fetcher.store.Body`, for S3 and https alike.

The bytes are taken as they came: a Content-Encoding is part of what is stored, and so of the
digest. Reading returns what has arrived, so that a trickle is seen as one.
"""

from __future__ import annotations

import http.client
import ssl
from typing import Protocol

from urllib3 import exceptions as wire

from mooring_fetcher.digest import CHUNK
from mooring_fetcher.failure import Interruption, PermanentFailure


class RawResponse(Protocol):
    """The part of urllib3's response that is used; botocore's raw stream is the same class."""

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes: ...

    def close(self) -> None: ...


class HttpBody:
    """Bytes from `start` up to `end` (None: the answer did not say)."""

    def __init__(self, raw: RawResponse, start: int, end: int | None, where: str) -> None:
        self.start = start
        self.end = end
        self._raw = raw
        self._where = where

    def read(self) -> bytes:
        try:
            return self._raw.read1(CHUNK, decode_content=False)
        except (wire.HTTPError, http.client.HTTPException, OSError) as error:
            raise broken(error, self._where) from None

    def close(self) -> None:
        self._raw.close()


def broken(error: BaseException, where: str) -> Interruption | PermanentFailure:
    """What a failed connection means. `where` names the host, as in ``https://host``."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return PermanentFailure(
                f"The certificate of {where} is not trusted ({cause.verify_message}): put the "
                "authority's certificate into the Secret (key ca.crt, or AWS_CA_BUNDLE for s3), "
                "or correct the host name."
            )
    for cause in causes:
        if isinstance(cause, wire.NameResolutionError):
            return Interruption(
                f"The host of {where} is not known to DNS: check its name, and that the pod may "
                "reach DNS"
            )
        if isinstance(cause, (wire.ConnectTimeoutError, wire.NewConnectionError)):
            refused = any(isinstance(inner, ConnectionRefusedError) for inner in causes)
            return Interruption(
                f"The connection to {where} {'was refused' if refused else 'failed or timed out'}: "
                "check host, port and network policies"
            )
        if isinstance(cause, (wire.ReadTimeoutError, TimeoutError)):
            return Interruption(f"{where} sent nothing for too long")
        if isinstance(cause, (ssl.SSLError, wire.SSLError)):
            return Interruption(
                f"No TLS connection to {where} could be made ({_tls_reason(cause)}): check that "
                "the port speaks TLS"
            )
        if isinstance(cause, (wire.IncompleteRead, http.client.IncompleteRead)):
            return Interruption(f"{where} ended the transfer early")
    return Interruption(f"The connection to {where} broke ({type(causes[-1]).__name__})")


def _causes(error: BaseException) -> list[BaseException]:
    """The error and everything inside it, outermost first. urllib3 hides causes in ``reason``
    and in its arguments, botocore in its keyword arguments.
    """
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue and len(found) < 20:
        item = queue.pop(0)
        if not isinstance(item, BaseException) or any(item is known for known in found):
            continue
        found.append(item)
        queue += [
            getattr(item, "reason", None),
            getattr(item, "kwargs", {}).get("error"),
            item.__cause__,
            item.__context__,
            *item.args,
        ]
    return found


def _tls_reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if isinstance(reason, str) else "handshake failed"
