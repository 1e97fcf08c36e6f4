"""The https store: one file or archive behind a URL.

Redirects are followed by hand, few of them, never from https to http, and never with the
credentials to another host. The Authorization header goes out over https only.
"""

from __future__ import annotations

import http.client
import re
import ssl
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3 import exceptions as wire

from mooring_fetcher.body import HttpBody, broken
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import Changed, Interruption, PermanentFailure, redact
from mooring_fetcher.store import Listing, RemoteFile
from mooring_fetcher.uri import ModelUri, file_name

MAX_REDIRECTS = 5
MAX_RETRY_AFTER = 60.0
"""Seconds. A server may ask for a day; the kubelet's own backoff is better at that."""
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0

_REDIRECTS = {301, 302, 303, 307, 308}
_RETRIED = {408, 425, 429}
_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")
_MEANING = {
    400: "it does not understand the request: check the URL",
    401: "it wants credentials, or does not accept those given: check the Secret (key token, or "
    "username and password)",
    403: "access is denied: check the credentials, and whether a signed URL has expired",
    404: "there is no such file: check the path",
    405: "it does not allow downloads there: check the URL",
    407: "a proxy wants credentials",
    410: "the file was removed: point the URI at another",
    416: "it cannot serve the rest of the file",
    451: "it may not be served for legal reasons",
}


@dataclass(frozen=True)
class _Meta:
    """What the first answer said of the file."""

    size: int | None
    version: str | None


class HttpsStore:
    """Implements :class:`mooring_fetcher.store.Store`."""

    def __init__(self, uri: ModelUri, credentials: Credentials, *, pinned: bool = False) -> None:
        """`pinned`: a digest will be verified, so a body of unknown length is acceptable."""
        held = credentials.https()
        if held.authorization and uri.scheme == "http":
            raise PermanentFailure(
                f"{credentials.shown} would be sent over plain http to {uri.host}, where anyone "
                "on the way can read it: use https."
            )
        self._uri = uri
        self._authorization = held.authorization
        self._pinned = pinned
        self._pool = urllib3.PoolManager(
            num_pools=4,
            ssl_context=_tls(held.ca_file, credentials.shown),
            retries=False,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
        )
        self._listed: tuple[_Meta, HttpBody] | None = None
        """The answer of `list`, kept for the first `open`: signed URLs often refuse HEAD."""

    def list(self, max_files: int) -> Listing:
        self._drop_listed()
        response = self._get({})
        if response.status != 200:
            response.close()
            raise PermanentFailure(
                f"{self._uri.shown} answered {response.status} to a plain download: check the URL."
            )
        size = _length(response)
        meta = _Meta(size, _strong_etag(response))
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if size is None and not chunked and not self._pinned:
            response.close()
            raise PermanentFailure(
                f"{self._uri.shown} is sent without a length, so a download cut short would not "
                "be noticed: set spec.model.digest, or use a server that sends Content-Length."
            )
        self._listed = (meta, self._body(response, 0, size))
        name = file_name(urlsplit(self._uri.text).path)
        return Listing(True, (RemoteFile(name, self._uri.text, meta.size, meta.version),))

    def open(self, file: RemoteFile, offset: int) -> HttpBody:
        listed, self._listed = self._listed, None
        if listed is not None:
            if offset == 0:
                return listed[1]
            listed[1].close()
        headers = {}
        if offset and file.version is not None:
            # If-Range: one answer, either the rest of the same bytes or all of the new ones.
            headers = {"Range": f"bytes={offset}-", "If-Range": file.version}
        response = self._get(headers)
        try:
            start, end = self._check(response, file, offset)
        except BaseException:
            response.close()
            raise
        return self._body(response, start, end)

    def close(self) -> None:
        self._drop_listed()
        self._pool.clear()

    def _check(
        self, response: urllib3.BaseHTTPResponse, file: RemoteFile, offset: int
    ) -> tuple[int, int | None]:
        """Where the answer's bytes begin and end, if they are the listed file's."""
        if response.status in (412, 416):
            raise Changed
        if _strong_etag(response) != file.version:
            raise Changed
        if response.status == 200:
            size = _length(response)
            if size != file.size:
                raise Changed
            return 0, size
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if response.status != 206 or match is None or int(match[1]) != offset:
            raise Interruption(
                f"{self._uri.shown} answered a request for the rest with {response.status} and "
                "another range"
            )
        end = int(match[2]) + 1
        if file.size is not None and (match[3] not in ("*", str(file.size)) or end > file.size):
            raise Changed
        return offset, file.size if file.size is not None else end

    def _get(self, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer after redirects: 200, 206, 412 or 416."""
        url, authorization = self._uri.text, self._authorization
        for _ in range(MAX_REDIRECTS + 1):
            response = self._request(url, headers, authorization)
            if response.status not in _REDIRECTS:
                self._refuse(response, url)
                return response
            response.close()
            target = self._target(url, response.headers.get("Location", ""))
            if _origin(target) != _origin(url):
                authorization = None
            url = target
        raise PermanentFailure(
            f"{self._uri.shown} redirects more than {MAX_REDIRECTS} times: use the final URL."
        )

    def _request(
        self, url: str, headers: dict[str, str], authorization: str | None
    ) -> urllib3.BaseHTTPResponse:
        sent = {"Accept-Encoding": "identity", "User-Agent": "mooring-fetcher", **headers}
        if authorization is not None:
            sent["Authorization"] = authorization
        try:
            return self._pool.request(
                "GET", url, headers=sent, redirect=False, preload_content=False
            )
        except wire.LocationValueError as error:
            raise PermanentFailure(f"{redact(url)} is not a usable URL: {error}.") from None
        except (wire.HTTPError, http.client.HTTPException, OSError) as error:
            raise broken(error, _shown_origin(url)) from None

    def _target(self, url: str, location: str) -> str:
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

    def _refuse(self, response: urllib3.BaseHTTPResponse, url: str) -> None:
        status = response.status
        if status in (200, 206, 412, 416):
            return
        response.close()
        # Of a redirect, the host that answered is the news.
        who = self._uri.shown
        if _origin(url) != _origin(self._uri.text):
            who += f" (redirected to {_shown_origin(url)})"
        if status >= 500 or status in _RETRIED:
            raise Interruption(f"{who} answered {status}", retry_after=_retry_after(response))
        meaning = _MEANING.get(status, "this is not a download: check the URL")
        raise PermanentFailure(f"{who} answered {status}: {meaning}.")

    def _body(self, response: urllib3.BaseHTTPResponse, start: int, end: int | None) -> HttpBody:
        return HttpBody(response, start, end, _shown_origin(self._uri.text))

    def _drop_listed(self) -> None:
        if self._listed is not None:
            self._listed[1].close()
            self._listed = None


def _tls(ca_file: str | None, shown: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise PermanentFailure(
            f"{shown} has a key ca.crt that holds no usable PEM certificates: store the "
            "authority's certificate in it."
        ) from None


def _may_follow(url: str, target: str) -> bool:
    """Raises ValueError for what is no URL."""
    parts = urlsplit(target)
    if not parts.hostname or parts.port == 0:
        return False
    within = parts.scheme == "http" and _origin(target) == _origin(url)
    return parts.scheme == "https" or within


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port


def _shown_origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rsplit('@', 1)[-1]}"


def _length(response: urllib3.BaseHTTPResponse) -> int | None:
    if "chunked" in response.headers.get("Transfer-Encoding", "").lower():
        return None
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _strong_etag(response: urllib3.BaseHTTPResponse) -> str | None:
    """A weak ETag says that two bodies mean the same, not that they are the same bytes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') and len(etag) <= 1024 else None


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(text)
        seen = parsedate_to_datetime(response.headers.get("Date", ""))
        return min(max((until - seen).total_seconds(), 0.0), MAX_RETRY_AFTER)
    except (TypeError, ValueError):
        return None
