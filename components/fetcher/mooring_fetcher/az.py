"""The az store: Azure Blob Storage by its REST API.

Two calls are needed of it, list and get. A blob's ETag changes with every write, so a broken
transfer goes on under If-Match.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote, urlencode
from xml.etree import ElementTree as ET

from mooring_fetcher.az_access import Access, access_of
from mooring_fetcher.body import HttpBody
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import Changed, PermanentFailure
from mooring_fetcher.objects import NoObjectError, one_or_all, pages
from mooring_fetcher.store import Listing, RemoteFile, size_of
from mooring_fetcher.uri import ModelUri
from mooring_fetcher.web import Answer, Web, rest_of

_FOLDER = "x-ms-meta-hdi_isfolder"


class AzStore:
    """Implements :class:`mooring_fetcher.store.Store`."""

    def __init__(self, uri: ModelUri, credentials: Credentials) -> None:
        self._uri = uri
        self._web = Web(ca_file=credentials.ca_file(), shown=credentials.shown)
        self._access: Access = access_of(uri, credentials, self._web)

    def list(self, max_files: int) -> Listing:
        return one_or_all(self._uri.path, self._one, lambda prefix: self._below(prefix, max_files))

    def open(self, file: RemoteFile, offset: int) -> HttpBody:
        headers = {"If-Match": file.version} if file.version else {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        answer = self._ask("GET", f"/{quote(file.key)}", {}, headers)
        if answer.status == 404:
            answer.close()
            raise Changed
        return rest_of(self._ok(answer), file, offset, self._uri.shown)

    def close(self) -> None:
        self._web.close()

    def _one(self) -> RemoteFile:
        name = self._uri.path
        answer = self._ok(self._ask("HEAD", f"/{quote(name)}", {}, {}))
        answer.close()
        if answer.headers.get(_FOLDER, "").lower() == "true" or answer.length is None:
            raise NoObjectError(f"{self._uri.shown} is an empty folder: upload the model.")
        return RemoteFile(name.rsplit("/", 1)[-1], name, answer.length, answer.strong_etag)

    def _below(self, prefix: str, max_files: int) -> Sequence[RemoteFile]:
        def page(marker: str) -> tuple[Sequence[RemoteFile], str]:
            query = {"restype": "container", "comp": "list", "include": "metadata"}
            query |= {"prefix": prefix} if prefix else {}
            query |= {"marker": marker} if marker else {}
            return self._page(self._ok(self._ask("GET", "", query, {})), prefix)

        return pages(page, max_files)

    def _ask(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str]
    ) -> Answer:
        url = f"{self._access.endpoint}/{quote(self._uri.host, safe='$')}{path}"
        signed_query, sent = self._access.authorize(method, url, query, headers)
        url += f"?{urlencode(signed_query)}" if signed_query else ""
        return self._web.ask(url, sent, method=method)

    def _page(self, answer: Answer, prefix: str) -> tuple[Sequence[RemoteFile], str]:
        """The files of a listing, and the mark of its next page."""
        text = answer.read()
        try:
            # The parser expands no external entities, and expat bounds the growth of internal ones.
            held = ET.fromstring(text)  # noqa: S314
            files = [
                _file(blob, prefix)
                for blob in held.iter("Blob")
                if (blob.findtext("Metadata/hdi_isfolder") or "").lower() != "true"
            ]
        except (ET.ParseError, ValueError):
            raise PermanentFailure(
                f"{self._access.endpoint} did not answer with a listing in XML, so it is no Azure "
                "Blob Storage: check the account, or AZURE_STORAGE_BLOB_ENDPOINT in the Secret."
            ) from None
        return files, held.findtext("NextMarker") or ""

    def _ok(self, answer: Answer) -> Answer:
        """The answer, if it is one that can be used; else raises what its status means."""
        return answer.usable(f"{self._uri.shown}: {self._access.endpoint}", self._meaning)

    def _meaning(self, answer: Answer) -> PermanentFailure:
        code = answer.headers.get("x-ms-error-code", "")[:60]
        at = f"{self._access.endpoint} answered {answer.status}{' ' + code if code else ''}"
        where, who = self._uri.shown, self._access.who
        if code == "ContainerNotFound":
            return PermanentFailure(
                f"The container {self._uri.host} does not exist ({at}): correct the URI {where}, "
                "or the account."
            )
        if answer.status == 404:
            return NoObjectError(
                f"There is no blob at {where} and none below it ({at}): correct the URI or upload "
                "the model."
            )
        if answer.status in (401, 403) and (ended := self._access.ended()):
            return PermanentFailure(
                f"The SAS of {who} for {where} expired at {ended} ({at}): renew it in the Secret."
            )
        # A right key may do everything, so one that may not read is a wrong one.
        refused = answer.status == 403 and self._access.kind == "account key"
        if refused or code in ("AuthenticationFailed", "InvalidAuthenticationInfo"):
            return PermanentFailure(
                f"{self._access.endpoint} does not accept the {self._access.kind} of {who} ({at}): "
                "it is wrong, belongs to another account, or the account's firewall lets only "
                "others in; correct it in the Secret."
            )
        if answer.status in (401, 403, 409):
            return NoObjectError(
                f"Access to {where} is denied to {who} ({at}): allow reading and listing (Storage "
                "Blob Data Reader, or sp=rl in the SAS), or name a Secret."
            )
        return PermanentFailure(f"{at} for {where}: check the URI, the account and the Secret.")


def _file(blob: ET.Element, prefix: str) -> RemoteFile:
    name = blob.findtext("Name") or ""
    if (element := blob.find("Name")) is not None and element.get("Encoded") == "true":
        name = unquote(name)
    etag = (blob.findtext("Properties/Etag") or "").strip('"')
    size = size_of(blob.findtext("Properties/Content-Length") or "0")
    return RemoteFile(name.removeprefix(prefix), name, size, f'"{etag}"' if etag else None)
