"""Writes as the API server gets them: of exactly that object, once, and the token for it alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import InClusterConfigLoader
from tests.listening import listening

from mooring.adapters.kube import ApiError, KubeClient
from mooring.core import kinds
from mooring.engine.lease import Fence

TOKEN = "of-the-service-account"
MANIFEST = {"metadata": {"namespace": "shop", "name": "fraud"}}
Write = Callable[[KubeClient], Awaitable[Any]]
#: Each way to write, by its verb.
WRITES: dict[str, Write] = {
    "apply": lambda client: client.apply(kinds.SERVICE, MANIFEST),
    "create_only": lambda client: client.apply(kinds.SERVICE, MANIFEST, create_only=True),
    "patch": lambda client: client.patch(kinds.SERVICE, "shop", "fraud", {}),
    "patch_status": lambda client: client.patch_status(kinds.SERVICE, "shop", "fraud", {}),
    "create": lambda client: client.create(kinds.EVENT, "shop", {}),
    "delete": lambda client: client.delete(kinds.SERVICE, "shop", "fraud", "uid-7"),
}
Asked = list[tuple[str, str, Any, str]]


@contextlib.asynccontextmanager
async def told(*answers: tuple[int, dict[str, str]]) -> AsyncIterator[tuple[KubeClient, Asked]]:
    """A client, and what its server was asked: method, path, body, Authorization."""
    asked: Asked = []

    async def answer(request: web.Request) -> web.Response:
        body = json.loads(await request.text() or "null")
        asked.append((request.method, request.path, body, request.headers.get("Authorization", "")))
        status, headers = answers[min(len(asked), len(answers)) - 1]
        return web.json_response({"reason": "Said"}, status=status, headers=headers)

    async with listening("*", answer) as url:
        configuration = Configuration(
            host=url, api_key={"BearerToken": TOKEN}, api_key_prefix={"BearerToken": "Bearer"}
        )
        fence = Fence()
        fence.open_for_ever()
        client = KubeClient(configuration, fence)
        try:
            yield client, asked
        finally:
            await client.close()


async def test_a_deletion_names_the_object_that_it_was_decided_on() -> None:
    """Scenario 3: by an old view another object of the same name may be meant by nobody."""
    async with told((200, {})) as (client, asked):
        await client.delete(kinds.SERVICE, "shop", "fraud", "uid-7")
        await client.delete(kinds.SERVICE, "shop", "fraud", "uid-7", "41")
    assert [(method, path) for method, path, _, _ in asked] == [
        ("DELETE", "/api/v1/namespaces/shop/services/fraud")
    ] * 2
    assert [body["preconditions"] for _, _, body, _ in asked] == [
        {"uid": "uid-7"},
        {"uid": "uid-7", "resourceVersion": "41"},
    ]


@pytest.mark.parametrize(("status", "version"), [(404, None), (409, None), (404, "41")])
async def test_what_is_gone_or_another_by_now_is_as_good_as_deleted(
    status: int, version: str | None
) -> None:
    async with told((status, {})) as (client, asked):
        await client.delete(kinds.SERVICE, "shop", "fraud", "uid-7", version)
    assert len(asked) == 1


async def test_what_was_to_be_deleted_as_it_was_and_is_not_is_told() -> None:
    async with told((409, {})) as (client, _):
        with pytest.raises(ApiError) as refused:
            await client.delete(kinds.SERVICE, "shop", "fraud", "uid-7", "41")
    assert refused.value.status == 409


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("status", [403, 429, 500, 503])
async def test_a_write_is_sent_once_whatever_comes_of_it(verb: str, status: int) -> None:
    """It may have been carried out: whether to write again is decided on what is there then."""
    async with told((status, {})) as (client, asked):
        with pytest.raises(ApiError):
            await WRITES[verb](client)
    assert len(asked) == 1


@pytest.mark.parametrize("verb", [*WRITES, "get"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_of_the_api_server_takes_the_token_nowhere(verb: str, status: int) -> None:
    taken: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        taken.append(request.headers.get("Authorization", ""))
        return web.json_response({})

    async with (
        listening("*", elsewhere) as other,
        told((status, {"Location": f"{other}/take-it"})) as (client, asked),
    ):
        with pytest.raises(ApiError):
            await {**WRITES, "get": _get}[verb](client)
    assert {authorization for _, _, _, authorization in asked} == {f"Bearer {TOKEN}"}
    assert taken == []


async def _get(client: KubeClient) -> Any:
    return await client.get(kinds.SERVICE, "shop", "fraud")


async def test_each_request_carries_the_token_of_the_moment(tmp_path: Path) -> None:
    """Scenario 11: a pod's token expires, and another one lies in its file by then."""
    file, authority = tmp_path / "token", tmp_path / "ca.crt"
    file.write_text("one")
    authority.write_text("unused, but must not be empty")
    loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
        token_filename=str(file),
        cert_filename=str(authority),
        environ={"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"},
    )
    loader._token_refresh_period *= 0
    async with told((200, {})) as (client, asked):
        host = client._configuration.host
        await _get(client)  # it has its connection, and keeps it
        loader.load_and_set(client._configuration)  # type: ignore[no-untyped-call]
        loader.host, loader.ssl_ca_cert = host, None
        for text in ("one", "two", "three"):
            file.write_text(text)
            await WRITES["apply"](client)
            await _get(client)
    sent = [authorization.split()[-1] for _, _, _, authorization in asked]
    assert sent == [TOKEN, "one", "one", "two", "two", "three", "three"]
