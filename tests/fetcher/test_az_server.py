"""Fetching from Azurite, Microsoft's own emulator of Azure Blob Storage."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from mooring_dev.stores import AzureServer, azure_server
from mooring_fetcher.az_access import access_of
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.digest import digest_path
from mooring_fetcher.fetch import Request, fetch
from mooring_fetcher.uri import parse_uri
from mooring_fetcher.web import Web

if TYPE_CHECKING:
    from tests.fetcher.conftest import Cutter, Workbench

pytestmark = pytest.mark.stores

BODY = hashlib.shake_256(b"weights").digest(3 << 20)
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()
Get = Callable[..., Any]


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Azurite needs Node.js, and this machine has none")
    with azure_server(tmp_path_factory.mktemp("azure")) as server:
        yield server


class Container:
    """A container of one test's own, written to with the account's key."""

    def __init__(self, azure: AzureServer, name: str, *, public: bool = False) -> None:
        self.name = name
        held = Credentials("own", tuple(azure.environment.items()))
        self._access = access_of(parse_uri(f"az://{name}/x"), held, Web())
        self._put(
            "", {"restype": "container"}, {"x-ms-blob-public-access": "container"} if public else {}
        )

    def put(self, key: str, body: bytes) -> str:
        """Stores a blob; returns its URI."""
        self._put(f"/{quote(key)}", {}, {"x-ms-blob-type": "BlockBlob"}, body)
        return f"az://{self.name}/{key}"

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


@pytest.fixture
def container(azure: AzureServer, request: pytest.FixtureRequest) -> Container:
    return Container(azure, "c" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20])


@pytest.fixture
def get(azure: AzureServer, bench: Workbench, tmp_path: Path) -> Get:
    def run(uri: str, *, keys: dict[str, str] | None = None) -> Any:
        secret = azure.environment if keys is None else keys
        return fetch(Request(uri, tmp_path / "models"), bench.run(secret=secret))

    return run


def test_a_blob_lands_under_its_name(container: Container, get: Get, tmp_path: Path) -> None:
    found = get(container.put("fraud/v7/model.onnx", BODY))
    assert (found.digest, found.files) == (SHA, 1)
    assert (tmp_path / "models" / "model.onnx").read_bytes() == BODY


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix_lands_as_a_tree_without_the_blobs_that_show_folders(
    container: Container, get: Get, tmp_path: Path, slash: str
) -> None:
    tree = {"config.json": b"{}", "onnx/model.onnx": BODY, "odd name#%41 ü.txt": b"x"}
    for path, body in tree.items():
        container.put(f"fraud/v7/{path}", body)
    container.put("fraud/v7/onnx", b"")
    container.put("fraud/v70/other", b"not part of v7")
    found = get(f"az://{container.name}/fraud/v7{slash}")
    models = tmp_path / "models"
    assert {path: (models / path).read_bytes() for path in tree} == tree
    assert found.files == len(tree)
    (models / ".mooring-fetch.json").unlink()
    assert digest_path(models).digest == found.digest


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


def test_a_blob_that_is_not_there_is_told(
    container: Container, get: Get, permanent: Callable[..., Any]
) -> None:
    with permanent(f"no blob at az://{container.name}/nothing", "upload the model"):
        get(f"az://{container.name}/nothing")


def test_a_broken_transfer_goes_on_where_it_broke(
    container: Container, get: Get, azure: AzureServer, cutting: Callable[[str], Cutter]
) -> None:
    uri = container.put("model.onnx", BODY)
    relay = cutting(azure.endpoint.rpartition("/")[0])
    relay.cuts = [2 << 20]
    endpoint = f"{relay.endpoint}/{azure.account}"
    assert (
        get(uri, keys=azure.environment | {"AZURE_STORAGE_BLOB_ENDPOINT": endpoint}).digest == SHA
    )
    assert relay.relayed < len(BODY) + (1 << 20)
