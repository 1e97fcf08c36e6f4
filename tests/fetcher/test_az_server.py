"""Fetching from Azurite, Microsoft's own emulator of Azure Blob Storage."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from tests.fetcher.object_stores import Container

from mooring_dev.stores import AzureServer
from mooring_fetcher.fetch import Request, fetch

if TYPE_CHECKING:
    from tests.fetcher.conftest import Workbench

pytestmark = pytest.mark.stores

BODY = hashlib.shake_256(b"weights").digest(3 << 20)
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()
Get = Callable[..., Any]


@pytest.fixture
def get(azure: AzureServer, bench: Workbench, tmp_path: Path) -> Get:
    def run(uri: str, *, keys: dict[str, str] | None = None) -> Any:
        secret = azure.environment if keys is None else keys
        return fetch(Request(uri, tmp_path / "models"), bench.run(secret=secret))

    return run


def test_a_connection_string_holds_all_that_is_needed(
    container: Container, get: Get, azure: AzureServer
) -> None:
    text = (
        f"DefaultEndpointsProtocol=http;AccountName={azure.account};AccountKey={azure.key};"
        f"BlobEndpoint={azure.endpoint};"
    )
    uri = container.put("model.onnx", BODY)
    assert get(uri, keys={"AZURE_STORAGE_CONNECTION_STRING": text}).digest == SHA


def sas(azure: AzureServer, *, expires: dt.datetime) -> str:
    """An account SAS for reading and listing, signed as Microsoft describes it."""
    expiry = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    version = "2021-12-02"
    lines = (azure.account, "rl", "b", "sco", "", expiry, "", "https,http", version, "", "")
    proof = hmac.digest(base64.b64decode(azure.key), "\n".join(lines).encode(), hashlib.sha256)
    return urlencode(
        {
            "sv": version,
            "ss": "b",
            "srt": "sco",
            "sp": "rl",
            "se": expiry,
            "spr": "https,http",
            "sig": base64.b64encode(proof).decode(),
        }
    )


def test_a_sas_is_enough_to_read_and_list(
    container: Container, get: Get, azure: AzureServer
) -> None:
    container.put("v1/a", b"a")
    token = sas(azure, expires=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    keys = {"AZURE_STORAGE_SAS_TOKEN": f"?{token}", "AZURE_STORAGE_BLOB_ENDPOINT": azure.endpoint}
    assert get(f"az://{container.name}/v1", keys=keys).files == 1


def test_a_sas_that_has_expired_is_told(
    container: Container, get: Get, azure: AzureServer, permanent: Callable[..., Any]
) -> None:
    uri = container.put("model.onnx", BODY)
    token = sas(azure, expires=dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
    keys = {"AZURE_STORAGE_SAS_TOKEN": token, "AZURE_STORAGE_BLOB_ENDPOINT": azure.endpoint}
    with permanent("SAS of Secret fraud-store", "403", "expired at 2"):
        get(uri, keys=keys)


def test_a_public_container_needs_no_secret(azure: AzureServer, get: Get) -> None:
    public = Container(azure, "public-models", public=True)
    uri = public.put("v1/model.onnx", BODY)
    keys = {"AZURE_STORAGE_BLOB_ENDPOINT": azure.endpoint}
    assert get(uri, keys=keys).digest == SHA
    assert get(f"az://{public.name}/v1/", keys=keys).files == 1


def test_a_wrong_key_is_told(
    container: Container, get: Get, azure: AzureServer, permanent: Callable[..., Any]
) -> None:
    uri = container.put("model.onnx", BODY)
    with permanent("does not accept the account key of Secret fraud-store", "403"):
        get(uri, keys=azure.environment | {"AZURE_STORAGE_KEY": "d3Jvbmc="})


def test_a_container_that_is_not_there_is_told(get: Get, permanent: Callable[..., Any]) -> None:
    with permanent("container nothere does not exist", "ContainerNotFound"):
        get("az://nothere/fraud/")
