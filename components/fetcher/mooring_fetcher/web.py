"""HTTP for stores: one connection pool, redirects by hand, and what an answer says of its bytes.

Redirects are few, never from https to http, and never carry credentials to another host. What a
status means is for the store to say; this module knows which of them a retry may mend.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3 import exceptions as wire

from mooring_fetcher.body import HttpBody, broken
from mooring_fetcher.failure import Changed, Interruption, PermanentFailure, redact
from mooring_fetcher.store import RemoteFile

MAX_REDIRECTS = 5
MAX_RETRY_AFTER = 60.0
"""Seconds. A server may ask for a day; the kubelet's own backoff is better at that."""
MAX_ANSWER = 32 << 20
"""Bytes of a listing, a manifest or a token that are read into memory."""
READ_WITHIN = 60.0
"""Seconds for all of such an answer: one that drips would be read for days."""
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
USER_AGENT = "mooring-fetcher"

_REDIRECTS = {301, 302, 303, 307, 308}
_RETRIED = {408, 425, 429}
_USABLE = {200, 206, 412, 416}
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PRIVATE = ("authorization",)


class Answer:
    """An answer whose body has not been read. ``url`` is where it came from, after redirects."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response

    @property
    def retried(self) -> bool:
        """Whether the same request may be answered better later."""
        return self.status >= 500 or self.status in _RETRIED

    @property
    def length(self) -> int | None:
        """Bytes of the body, if the answer says so."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return None
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def strong_etag(self) -> str | None:
        """A weak ETag says that two bodies mean the same, not that they are the same bytes."""
        etag = self.headers.get("ETag", "")
        return etag if etag.startswith('"') and len(etag) <= 1024 else None

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait, at most :data:`MAX_RETRY_AFTER`."""
        text = self.headers.get("Retry-After", "")
        if text.isascii() and text.isdigit():
            return min(float(text), MAX_RETRY_AFTER)
        try:
            until = parsedate_to_datetime(text)
            seen = parsedate_to_datetime(self.headers.get("Date", ""))
            return min(max((until - seen).total_seconds(), 0.0), MAX_RETRY_AFTER)
        except (TypeError, ValueError):
            return None

    def usable(self, who: str, meaning: Callable[[Answer], PermanentFailure]) -> Answer:
        """This answer, if its status is one that :func:`rest_of` understands.

        Else it is closed, and raises Interruption for a status that a retry may mend (`who` is the
        server in messages), and what the store's `meaning` makes of it for any other.
        """
        if self.status in _USABLE:
            return self
        try:
            self.refuse_retried(who)
            raise meaning(self)
        finally:
            self.close()

    def refuse_retried(self, who: str) -> None:
        """Raises Interruption, and closes, where a retry may mend it. `who` is for messages."""
        if self.retried:
            self.close()
            raise Interruption(f"{who} answered {self.status}", retry_after=self.retry_after)

    def body(self, start: int, end: int | None) -> HttpBody:
        """The bytes, as a stream."""
        return HttpBody(self._response, start, end, shown_origin(self.url))

    def read(self, clock: Callable[[], float] = time.monotonic) -> bytes:
        """The whole body, at most :data:`MAX_ANSWER` bytes, and closes the answer.

        Raises PermanentFailure above that, Interruption when the connection breaks or when it is
        not there within :data:`READ_WITHIN`. `clock` gives seconds that only rise.
        """
        until = clock() + READ_WITHIN
        body = self.body(0, self.length)
        parts: list[bytes] = []
        total = 0
        try:
            while chunk := body.read():
                parts.append(chunk)
                total += len(chunk)
                if total > MAX_ANSWER:
                    raise PermanentFailure(
                        f"{shown_origin(self.url)} sent an answer of more than {MAX_ANSWER >> 20} "
                        "MiB where a short one belongs: check the URI and the endpoint."
                    )
                if clock() > until:
                    raise Interruption(
                        f"{shown_origin(self.url)} sent only {total} bytes of an answer in "
                        f"{READ_WITHIN:.0f} s"
                    )
        finally:
            body.close()
        if body.end is not None and total != body.end and self.status != 204:
            raise Interruption(f"{shown_origin(self.url)} ended its answer early")
        return b"".join(parts)

    def words(self) -> str:
        """The first bytes of the body, for a sentence about an error; closes the answer."""
        body = self.body(0, self.length)
        try:
            return body.read()[:4096].decode(errors="replace")
        except (Interruption, PermanentFailure):
            return ""
        finally:
            body.close()

    def close(self) -> None:
        self._response.close()


class Web:
    """Requests with bounded waiting and no retries of their own."""

    def __init__(self, *, ca_file: str | None = None, shown: str = "No Secret") -> None:
        """`ca_file` holds further authorities; `shown` is what messages call its Secret."""
        self._pool = urllib3.PoolManager(
            num_pools=8,
            maxsize=16,
            ssl_context=_tls(ca_file, shown),
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
        )

    def ask(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Answer:
        """One request and its answer, whatever its status; a redirect is not followed.

        Raises PermanentFailure for what is no URL, Interruption when there is no answer.
        """
        sent = {"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **headers}
        try:
            response = self._pool.request(
                method, url, headers=sent, body=body, redirect=False, preload_content=False
            )
        except wire.LocationValueError as error:
            raise PermanentFailure(f"{redact(url)} is not a usable URL: {error}.") from None
        except (wire.HTTPError, http.client.HTTPException, OSError) as error:
            raise broken(error, shown_origin(url)) from None
        return Answer(response, url)

    def post_form(self, url: str, form: Mapping[str, str]) -> Answer:
        """The answer to a form, as OAuth takes it. Raises as :meth:`ask` does."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask(url, kind, method="POST", body=urlencode(form).encode())

    def follow(self, url: str, headers: Mapping[str, str], shown: str) -> Answer:
        """The answer to a GET after redirects. `shown` is the model in messages."""
        sent = dict(headers)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self.ask(url, sent)
            if answer.status not in _REDIRECTS:
                return answer
            answer.close()
            target = _target(url, answer.headers.get("Location", ""))
            if origin(target) != origin(url):
                sent = {k: v for k, v in sent.items() if k.lower() not in _PRIVATE}
            url = target
        raise PermanentFailure(
            f"{shown} redirects more than {MAX_REDIRECTS} times: use the final URL."
        )

    def close(self) -> None:
        self._pool.clear()


def rest_of(answer: Answer, file: RemoteFile, offset: int, shown: str) -> HttpBody:
    """The file's bytes from `offset` on, out of an answer of 200, 206, 412 or 416.

    The store has made sure that the answer is about the listed version. Closes the answer when it
    raises Changed or Interruption.
    """
    try:
        start, end = _extent(answer, file, offset, shown)
    except BaseException:
        answer.close()
        raise
    return answer.body(start, end)


def _extent(answer: Answer, file: RemoteFile, offset: int, shown: str) -> tuple[int, int | None]:
    if answer.status in (412, 416):
        raise Changed
    if answer.status == 200:
        if file.size is not None and answer.length not in (None, file.size):
            raise Changed
        return 0, file.size if file.size is not None else answer.length
    match = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
    if answer.status != 206 or match is None or int(match[1]) != offset:
        raise Interruption(
            f"{shown} answered a request for the rest with {answer.status} and another range"
        )
    end = int(match[2]) + 1
    if file.size is not None and (match[3] not in ("*", str(file.size)) or end > file.size):
        raise Changed
    return offset, file.size if file.size is not None else end


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what decides where credentials may go."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port


def shown_origin(url: str) -> str:
    """Scheme and host for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}"


def keeps_secrets(url: str) -> bool:
    """Whether what is sent there cannot be read on the way: TLS, or this very machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in _LOOPBACK


def refuse_plain(url: str, shown: str) -> None:
    """Raises PermanentFailure where credentials would cross a network in the clear."""
    if not keeps_secrets(url):
        raise PermanentFailure(
            f"{shown} would be sent over plain http to {shown_origin(url)}, where anyone on the "
            "way can read it: use https."
        )


def _target(url: str, location: str) -> str:
    """Where a redirect leads, if it may be followed."""
    try:
        target = urljoin(url, location)
        allowed = _may_follow(url, target)
    except ValueError:
        allowed = False
    if not allowed:
        raise PermanentFailure(
            f"{redact(url)} redirects to {redact(location[:200])!r}, which is not followed: "
            "only https is (and plain http within its own host)."
        )
    return target


def _may_follow(url: str, target: str) -> bool:
    """Raises ValueError for what is no URL."""
    parts = urlsplit(target)
    if not parts.hostname or parts.port == 0:
        return False
    within = parts.scheme == "http" and origin(target) == origin(url)
    return parts.scheme == "https" or within


def _tls(ca_file: str | None, shown: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise PermanentFailure(
            f"{shown} has a key ca.crt that holds no usable PEM certificates: store the "
            "authority's certificate in it."
        ) from None
