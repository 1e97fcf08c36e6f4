"""The API server: server-side apply, status patches, guarded deletes, chunked lists.

Objects stay raw JSON: the client library's typed models cost more to build than the whole
decision. Connections, TLS, tokens and proxies are the client library's.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from yarl import URL

from mooring.core.kinds import Kind

Json = dict[str, Any]

FIELD_MANAGER = "mooring"
REPLICAS_MANAGER = "mooring-replicas"

_READ_SECONDS = 60.0
#: Versions count etcd's revisions, and the first of them is never an object's.
_NO_VERSION = "1"
_WRITE_SECONDS = 15.0
#: A read that failed at once is tried again after so long (seconds). A round reads each thing that
#: it is about to take away; were one failure the end of it, it would seldom get through behind an
#: API server that fails now and then.
_READ_AGAIN = (0.1, 0.4)
_FAILED_AT_ONCE = 2.0
#: An API server that has too much to do asks for a second (seconds). So much is waited for within
#: the round, of a dozen reads that it would otherwise begin with again; more, in the queue.
_RETRY_AFTER_AT_MOST = 2.0
#: A watch event can be as large as an object, and objects go up to a few MiB.
_READ_BUFFER = 2**21
#: Before that version asyncio leaves a TLS connection open whose request was cancelled: aiohttp
#: then has to abort it when the session ends.
_TLS_LINGERS = sys.version_info < (3, 12, 7)
#: Requests under way at once: more than there are workers, and never without bound.
_CONNECTIONS = 100
_BY_US = urlencode({"fieldManager": FIELD_MANAGER})
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


@cache
def _apply_query(manager: str) -> str:
    """The query of a server-side apply, made once for each of the few field managers."""
    return urlencode({"fieldManager": manager, "force": "true"})


@dataclass(eq=False)
class ApiError(Exception):
    """An answer of the API server other than success; status 0: there was no answer."""

    status: int
    reason: str
    message: str
    retry_after: float | None = None

    def __str__(self) -> str:
        return self.message or self.reason or f"HTTP {self.status}"

    @property
    def refused(self) -> bool:
        """Whether the request itself is at fault, so that repeating it will not help."""
        return self.status in (400, 403, 405, 413, 422)

    @property
    def passing(self) -> bool:
        """Whether the server or the way to it failed, had too much to do, or answered in part."""
        return self.status in (0, 429, 500, 502, 503, 504) or self.reason == "NotJson"


class Fence(Protocol):
    """Says for how many seconds writing is still allowed; raises when it is not."""

    def remaining(self) -> float: ...


OnRequest = Callable[[str, str, int, float], None]


async def load_configuration(kubeconfig: str | None) -> Configuration:
    """From the given file, else from the pod's service account, else from the user's default."""
    configuration = Configuration()
    # aiohttp would look for proxies and a .netrc in a thread, twice for every single request;
    # a proxy for the API server stands in the kubeconfig. (The Lease's client heeds this.)
    configuration.client_session_kwargs = {"trust_env": False}
    if kubeconfig is None:
        try:
            kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except kube_config.ConfigException:
            await kube_config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig, client_configuration=configuration
        )
    return configuration


def session(
    configuration: Configuration,
    *,
    connections: int = _CONNECTIONS,
    middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = (),
) -> aiohttp.ClientSession:
    """A session for the API server: its TLS as configured, no more than so many connections."""
    context = RESTClientObject(configuration).ssl_context
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections, ssl=context, enable_cleanup_closed=_TLS_LINGERS
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=middlewares,
        read_bufsize=_READ_BUFFER,
    )


async def authorization(configuration: Configuration) -> str | None:
    """The Authorization header of the moment: a pod's token is replaced every hour."""
    token = (await configuration.auth_settings()).get("BearerToken")
    return token["value"] if token and token["value"] else None


class KubeClient:
    """Requests as raw JSON. Every write asks the fence first and never outlives the lease."""

    def __init__(
        self, configuration: Configuration, fence: Fence, on_request: OnRequest | None = None
    ) -> None:
        self._configuration = configuration
        self._fence = fence
        self._on_request = on_request or _ignore
        self._session: aiohttp.ClientSession | None = None
        self._options: dict[str, Any] = {}
        if configuration.proxy:
            self._options["proxy"] = configuration.proxy
            self._options["proxy_headers"] = configuration.proxy_headers
        if configuration.tls_server_name:
            self._options["server_hostname"] = configuration.tls_server_name

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def apply(
        self,
        kind: Kind,
        manifest: Mapping[str, Any],
        *,
        manager: str = FIELD_MANAGER,
        create_only: bool = False,
    ) -> Json:
        """Server-side apply. Takes fields that others changed back: what we declare is ours.

        ``create_only`` raises ApiError 409 where an object of this name exists, in one request
        and without a race: applied with a resourceVersion that no object has, the API server
        creates what is missing and refuses to touch what is there.
        """
        meta = manifest["metadata"]
        if create_only:
            manifest = {**manifest, "metadata": {**meta, "resourceVersion": _NO_VERSION}}
        return await self._write(
            "apply",
            kind,
            "PATCH",
            kind.path(meta.get("namespace"), meta["name"]),
            query=_apply_query(manager),
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    async def patch_status(self, kind: Kind, namespace: str, name: str, body: Json) -> Json:
        """A merge patch of the status subresource; the body carries its resourceVersion."""
        return await self._write(
            "patch_status",
            kind,
            "PATCH",
            kind.path(namespace, name, "status"),
            query=_BY_US,
            body=body,
            content_type="application/merge-patch+json",
        )

    async def patch(self, kind: Kind, namespace: str, name: str, body: Json) -> Json:
        """A merge patch of an object that is not a child, an Event for instance."""
        return await self._write(
            "patch",
            kind,
            "PATCH",
            kind.path(namespace, name),
            query=_BY_US,
            body=body,
            content_type="application/merge-patch+json",
        )

    async def create(self, kind: Kind, namespace: str, body: Json) -> Json:
        """Creates an object; raises ApiError 409 where one of this name exists."""
        return await self._write(
            "create",
            kind,
            "POST",
            kind.path(namespace),
            query=_BY_US,
            body=body,
            content_type="application/json",
        )

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str, version: str | None = None
    ) -> None:
        """Deletes exactly the object with this uid; one that is gone already is fine.

        With a ``version`` only as it was then; raises ApiError 409 where it is another by now.
        """
        preconditions = {"uid": uid} | ({"resourceVersion": version} if version else {})
        try:
            await self._write(
                "delete",
                kind,
                "DELETE",
                kind.path(namespace, name),
                body={"preconditions": preconditions, "propagationPolicy": "Background"},
                content_type="application/json",
            )
        except ApiError as error:
            # 409 without a version: another object of that name by now
            if error.status != 404 and (error.status != 409 or version):
                raise

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        """The whole object, or None."""
        try:
            return await self._read("get", kind, kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def serves(self, kind: Kind) -> bool:
        """Whether the API server knows this kind, by its discovery."""
        group = Kind(kind.group, kind.version, kind.name, "")
        try:
            found = await self._read("discover", kind, group.path(None))
        except ApiError as error:
            if error.status in (403, 404):
                return False
            raise
        return any(item.get("name") == kind.plural for item in found.get("resources") or ())

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        label_selector: str = "",
        metadata_only: bool = False,
        chunk: int = 500,
    ) -> AsyncIterator[list[Json]]:
        """Lists in chunks. Raises ApiError 410 when the list expired half-way: begin again."""
        query = {"limit": str(chunk)}
        if label_selector:
            query["labelSelector"] = label_selector
        accept = _METADATA_LIST if metadata_only else "application/json"
        while True:
            page = await self._read(
                "list", kind, kind.path(namespace), query=urlencode(query), accept=accept
            )
            items = page.get("items") or []
            for item in items:
                item.setdefault("apiVersion", kind.api_version)
                item.setdefault("kind", kind.name)
            yield items
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            query["continue"] = token

    async def _read(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        query: str = "",
        accept: str = "application/json",
    ) -> Json:
        """A GET, tried again where it failed at once by no fault of the request's."""
        for wait in _READ_AGAIN:
            started = time.monotonic()
            try:
                return await self._request(verb, kind, "GET", path, query=query, accept=accept)
            except ApiError as error:
                slow = time.monotonic() - started > _FAILED_AT_ONCE
                asked = error.retry_after or 0.0
                if slow or not error.passing or asked > _RETRY_AFTER_AT_MOST:
                    raise
            await asyncio.sleep(max(wait, asked))
        return await self._request(verb, kind, "GET", path, query=query, accept=accept)

    async def _write(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any],
        content_type: str,
        query: str = "",
    ) -> Json:
        seconds = min(_WRITE_SECONDS, self._fence.remaining())
        return await self._request(
            verb,
            kind,
            method,
            path,
            query=query,
            body=body,
            content_type=content_type,
            seconds=seconds,
        )

    async def _request(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        *,
        query: str = "",
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        seconds: float = _READ_SECONDS,
    ) -> Json:
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "mooring"}
        allowed = await authorization(self._configuration)
        if allowed is not None:
            headers["Authorization"] = allowed
        if self._session is None:
            self._session = session(self._configuration)
        url = self._configuration.host + path + (f"?{query}" if query else "")
        started = time.monotonic()
        status = 0
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=None if body is None else orjson.dumps(body),
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,  # the token is for the API server and for nobody else
                **self._options,
            ) as response:
                status = response.status
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = "no answer in time" if isinstance(error, TimeoutError) else str(error)
            raise ApiError(0, "Unreachable", f"the API server cannot be reached: {what}") from error
        finally:
            self._on_request(verb, kind.name, status, time.monotonic() - started)
        return _answer(status, text, response.headers.get("Retry-After"))


def _ignore(verb: str, kind: str, code: int, seconds: float) -> None:
    return None


def _answer(status: int, text: bytes, retry_after: str | None) -> Json:
    try:
        value = orjson.loads(text)
    except ValueError:
        value = None
    if 200 <= status < 300 and isinstance(value, dict):
        return value
    if not isinstance(value, dict):
        value = {"message": f"HTTP {status} with a body that is not JSON", "reason": "NotJson"}
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    raise ApiError(status, str(value.get("reason") or ""), str(value.get("message") or ""), seconds)
