"""The https store: one file or archive behind a URL.

Redirects are followed as :mod:`mooring_fetcher.web` allows. The Authorization header goes out over
https only.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from mooring_fetcher.body import HttpBody
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import Changed, PermanentFailure
from mooring_fetcher.store import Listing, RemoteFile
from mooring_fetcher.uri import ModelUri, file_name
from mooring_fetcher.web import Answer, Web, origin, rest_of, shown_origin

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
        self._private = {"Authorization": held.authorization} if held.authorization else {}
        self._pinned = pinned
        self._web = Web(ca_file=held.ca_file, shown=credentials.shown)
        self._listed: HttpBody | None = None
        """The answer of `list`, kept for the first `open`: signed URLs often refuse HEAD."""

    def list(self, max_files: int) -> Listing:
        self._drop_listed()
        answer = self._get({})
        if answer.status != 200:
            answer.close()
            raise PermanentFailure(
                f"{self._uri.shown} answered {answer.status} to a plain download: check the URL."
            )
        size = answer.length
        chunked = "chunked" in answer.headers.get("Transfer-Encoding", "").lower()
        if size is None and not chunked and not self._pinned:
            answer.close()
            raise PermanentFailure(
                f"{self._uri.shown} is sent without a length, so a download cut short would not "
                "be noticed: set spec.model.digest, or use a server that sends Content-Length."
            )
        self._listed = answer.body(0, size)
        name = file_name(urlsplit(self._uri.text).path)
        return Listing(True, (RemoteFile(name, self._uri.text, size, answer.strong_etag),))

    def open(self, file: RemoteFile, offset: int) -> HttpBody:
        listed, self._listed = self._listed, None
        if listed is not None:
            if offset == 0:
                return listed
            listed.close()
        headers = {}
        if offset and file.version is not None:
            # If-Range: one answer, either the rest of the same bytes or all of the new ones.
            headers = {"Range": f"bytes={offset}-", "If-Range": file.version}
        answer = self._get(headers)
        other = answer.status not in (412, 416) and answer.strong_etag != file.version
        if other or (answer.status == 200 and answer.length != file.size):
            answer.close()
            raise Changed
        return rest_of(answer, file, offset, self._uri.shown)

    def close(self) -> None:
        self._drop_listed()
        self._web.close()

    def _get(self, headers: dict[str, str]) -> Answer:
        """The answer after redirects: 200, 206, 412 or 416."""
        answer = self._web.follow(self._uri.text, headers | self._private, self._uri.shown)
        # Of a redirect, the host that answered is the news.
        who = self._uri.shown
        if origin(answer.url) != origin(self._uri.text):
            who += f" (redirected to {shown_origin(answer.url)})"
        return answer.usable(who, lambda refused: _meaning(who, refused.status))

    def _drop_listed(self) -> None:
        if self._listed is not None:
            self._listed.close()
            self._listed = None


def _meaning(who: str, status: int) -> PermanentFailure:
    meaning = _MEANING.get(status, "this is not a download: check the URL")
    return PermanentFailure(f"{who} answered {status}: {meaning}.")
