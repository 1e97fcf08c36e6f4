"""Buckets and containers on real servers, each of one test's own."""

from __future__ import annotations

import json
import urllib.request
from typing import Protocol
from urllib.parse import quote, urlencode

from mooring_dev.stores import AzureServer
from mooring_fetcher.az_access import access_of
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.uri import parse_uri
from mooring_fetcher.web import Web


class Place(Protocol):
    """Where a test puts objects."""

    scheme: str
    name: str
    origin: str
    """Scheme, host and port of its server."""

    def put(self, key: str, body: bytes) -> str:
        """Stores an object; returns its URI."""

    def secret(self, origin: str) -> dict[str, str]:
        """What reads it by way of another address."""


class Bucket:
    """A bucket of one test's own."""

    scheme = "gs"

    def __init__(self, endpoint: str, name: str) -> None:
        self.name, self.origin = name, endpoint
        self._post("/storage/v1/b", json.dumps({"name": name}).encode(), "application/json")

    def put(self, key: str, body: bytes, **metadata: str) -> str:
        """Stores an object; returns its URI."""
        upload = f"/upload/storage/v1/b/{self.name}/o?uploadType=media&name={quote(key, safe='')}"
        if metadata:
            upload += "&" + "&".join(f"{name}={value}" for name, value in metadata.items())
        self._post(upload, body, "application/octet-stream")
        return f"gs://{self.name}/{key}"

    def secret(self, origin: str) -> dict[str, str]:
        """What reads it by way of another address."""
        return {"GCS_ENDPOINT_URL": origin}

    def _post(self, path: str, body: bytes, kind: str) -> None:
        asked = urllib.request.Request(
            self.origin + path, data=body, headers={"Content-Type": kind}
        )
        urllib.request.urlopen(asked, timeout=30).close()


class Container:
    """A container of one test's own, written to with the account's key."""

    scheme = "az"

    def __init__(self, azure: AzureServer, name: str, *, public: bool = False) -> None:
        self._azure, self.name = azure, name
        self.origin = azure.endpoint.rpartition("/")[0]
        held = Credentials("own", tuple(azure.environment.items()))
        self._access = access_of(parse_uri(f"az://{name}/x"), held, Web())
        self._put(
            "", {"restype": "container"}, {"x-ms-blob-public-access": "container"} if public else {}
        )

    def put(self, key: str, body: bytes) -> str:
        """Stores a blob; returns its URI."""
        self._put(f"/{quote(key)}", {}, {"x-ms-blob-type": "BlockBlob"}, body)
        return f"az://{self.name}/{key}"

    def secret(self, origin: str) -> dict[str, str]:
        """What reads it by way of another address."""
        endpoint = f"{origin}/{self._azure.account}"
        return self._azure.environment | {"AZURE_STORAGE_BLOB_ENDPOINT": endpoint}

    def _put(
        self, path: str, query: dict[str, str], headers: dict[str, str], body: bytes = b""
    ) -> None:
        url = f"{self._access.endpoint}/{self.name}{path}"
        length = {"Content-Length": str(len(body))} if body else {}
        sent_query, sent = self._access.authorize("PUT", url, query, headers | length)
        if sent_query:
            url += "?" + urlencode(sent_query)
        web = Web()
        try:
            answer = web.ask(
                url, sent | {"Content-Length": str(len(body))}, method="PUT", body=body
            )
            assert answer.status == 201, answer.words()
            answer.read()
        finally:
            web.close()
