"""The gs store: Google Cloud Storage by its JSON API.

Two calls are needed of it, list and get; Google's client library would bring thirty times the code
for them. An object's generation names its bytes for ever, so a broken transfer goes on without
risk, and an object that was overwritten meanwhile is seen as gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from mooring_fetcher.body import HttpBody
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import Changed, PermanentFailure
from mooring_fetcher.gs_token import TokenSource
from mooring_fetcher.objects import NoObjectError, one_or_all, pages
from mooring_fetcher.store import Listing, RemoteFile, size_of
from mooring_fetcher.uri import ModelUri
from mooring_fetcher.web import Answer, Web, refuse_plain, rest_of

ENDPOINT = "https://storage.googleapis.com"
T = TypeVar("T")

_FIELDS = "items(name,size,generation),nextPageToken"


class GsStore:
    """Implements :class:`mooring_fetcher.store.Store`."""

    def __init__(self, uri: ModelUri, credentials: Credentials) -> None:
        self._uri = uri
        self._credentials = credentials
        self._endpoint = credentials.endpoint("GCS_ENDPOINT_URL") or ENDPOINT
        self._web = Web(ca_file=credentials.ca_file(), shown=credentials.shown)
        self._tokens = TokenSource.of(credentials, self._web)
        if self._tokens is not None:
            refuse_plain(self._endpoint, credentials.shown)

    def list(self, max_files: int) -> Listing:
        return one_or_all(self._uri.path, self._one, lambda prefix: self._below(prefix, max_files))

    def open(self, file: RemoteFile, offset: int) -> HttpBody:
        # gzip is accepted so that an object with that Content-Encoding comes as it is stored.
        headers = {"Accept-Encoding": "gzip"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        answer = self._get(
            f"/o/{quote(file.key, safe='')}", {"alt": "media", "generation": file.version}, headers
        )
        if answer.status == 404:
            answer.close()
            raise Changed
        return rest_of(self._ok(answer), file, offset, self._uri.shown)

    def close(self) -> None:
        self._web.close()

    def _one(self) -> RemoteFile:
        name = self._uri.path
        answer = self._ok(
            self._get(f"/o/{quote(name, safe='')}", {"fields": "name,size,generation"})
        )
        return self._read(answer, lambda item: _file(item, name.rsplit("/", 1)[-1]))

    def _below(self, prefix: str, max_files: int) -> Sequence[RemoteFile]:
        def page(token: str) -> tuple[Sequence[RemoteFile], str]:
            query = {"prefix": prefix or None, "fields": _FIELDS, "pageToken": token or None}
            return self._read(self._ok(self._get("/o", query)), lambda held: _page(held, prefix))

        return pages(page, max_files)

    def _get(
        self, path: str, query: dict[str, str | None], headers: dict[str, str] | None = None
    ) -> Answer:
        asked = urlencode({key: value for key, value in query.items() if value is not None})
        url = f"{self._endpoint}/storage/v1/b/{quote(self._uri.host, safe='')}{path}?{asked}"
        private = {}
        if self._tokens is not None:
            private = {"Authorization": f"Bearer {self._tokens.token()}"}
        return self._web.ask(url, (headers or {}) | private)

    def _read(self, answer: Answer, parse: Callable[[Any], T]) -> T:
        """What the answer's JSON says."""
        try:
            return parse(json.loads(answer.read()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise PermanentFailure(
                f"{self._endpoint} does not answer as Google Cloud Storage does: check "
                "GCS_ENDPOINT_URL in the Secret."
            ) from None

    def _ok(self, answer: Answer) -> Answer:
        """The answer, if it is one that can be used; else raises what its status means."""
        return answer.usable(f"{self._uri.shown}: {self._endpoint}", self._meaning)

    def _meaning(self, answer: Answer) -> PermanentFailure:
        where = self._uri.shown
        who = self._credentials.shown if self._tokens else "this pod (no Secret given)"
        at = f"{self._endpoint} answered {answer.status}"
        said = _message(answer.words())
        told = f": {said}" if said else ""
        if answer.status == 404 and "bucket" in said.lower():
            return PermanentFailure(
                f"The bucket {self._uri.host} does not exist ({at}): correct the URI {where}."
            )
        if answer.status == 404:
            return NoObjectError(
                f"There is no object at {where} and none below it ({at}): correct the URI or "
                "upload the model."
            )
        if answer.status in (401, 403):
            return NoObjectError(
                f"Access to {where} is denied to {who} ({at}{told}): grant it "
                "roles/storage.objectViewer on the bucket, or correct the Secret."
            )
        return PermanentFailure(f"{at} for {where}{told}: check the URI and the Secret.")


def _file(item: Any, path: str) -> RemoteFile:
    return RemoteFile(path, item["name"], size_of(item["size"]), str(item["generation"]))


def _page(held: Any, prefix: str) -> tuple[Sequence[RemoteFile], str]:
    """The files of a listing, and the token of its next page."""
    items = held.get("items", ())
    files = [_file(item, item["name"].removeprefix(prefix)) for item in items]
    return files, str(held.get("nextPageToken") or "")


def _message(text: str) -> str:
    """The server's own words, of its error in JSON or plain."""
    try:
        said = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = text
    return str(said).strip().rstrip(".")[:200] if "<" not in str(said) else ""
