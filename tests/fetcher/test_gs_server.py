"""Fetching from fake-gcs-server, which speaks Google Cloud Storage's JSON API."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from mooring_dev.stores import GcsServer, gcs_server
from mooring_fetcher.digest import digest_path
from mooring_fetcher.fetch import Request, digest_uri, fetch

if TYPE_CHECKING:
    from tests.fetcher.conftest import Cutter, Workbench

pytestmark = pytest.mark.stores

BODY = hashlib.shake_256(b"weights").digest(3 << 20)
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()
Get = Callable[..., Any]


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    with gcs_server(tmp_path_factory.mktemp("gcs")) as server:
        yield server


class Bucket:
    """A bucket of one test's own."""

    def __init__(self, endpoint: str, name: str) -> None:
        self._endpoint, self.name = endpoint, name
        self._post("/storage/v1/b", json.dumps({"name": name}).encode(), "application/json")

    def put(self, key: str, body: bytes, **metadata: str) -> str:
        """Stores an object; returns its URI."""
        upload = f"/upload/storage/v1/b/{self.name}/o?uploadType=media&name={quote(key, safe='')}"
        if metadata:
            upload += "&" + "&".join(f"{name}={value}" for name, value in metadata.items())
        self._post(upload, body, "application/octet-stream")
        return f"gs://{self.name}/{key}"

    def _post(self, path: str, body: bytes, kind: str) -> None:
        asked = urllib.request.Request(
            self._endpoint + path, data=body, headers={"Content-Type": kind}
        )
        urllib.request.urlopen(asked, timeout=30).close()


@pytest.fixture
def bucket(gcs: GcsServer, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(gcs.endpoint, "b" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20])


@pytest.fixture
def get(gcs: GcsServer, bench: Workbench, tmp_path: Path) -> Get:
    def run(uri: str, *, endpoint: str = gcs.endpoint, **request: Any) -> Any:
        secret = {"GCS_ENDPOINT_URL": endpoint}
        return fetch(Request(uri, tmp_path / "models", **request), bench.run(secret=secret))

    return run


def test_an_object_lands_under_its_name(bucket: Bucket, get: Get, tmp_path: Path) -> None:
    found = get(bucket.put("fraud/v7/model.onnx", BODY))
    assert (found.digest, found.files) == (SHA, 1)
    assert (tmp_path / "models" / "model.onnx").read_bytes() == BODY


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix_lands_as_a_tree_without_the_objects_that_show_folders(
    bucket: Bucket, get: Get, tmp_path: Path, slash: str
) -> None:
    tree = {"config.json": b"{}", "onnx/model.onnx": BODY, "odd name?#%41.txt": b"x"}
    for path, body in tree.items():
        bucket.put(f"fraud/v7/{path}", body)
    bucket.put("fraud/v7/onnx/", b"")
    bucket.put("fraud/v70/other", b"not part of v7")
    found = get(f"gs://{bucket.name}/fraud/v7{slash}")
    models = tmp_path / "models"
    assert {path: (models / path).read_bytes() for path in tree} == tree
    assert found.files == len(tree)
    (models / ".mooring-fetch.json").unlink()
    assert digest_path(models).digest == found.digest


def test_a_broken_transfer_goes_on_where_it_broke(
    bucket: Bucket, get: Get, gcs: GcsServer, cutting: Callable[[str], Cutter]
) -> None:
    uri = bucket.put("model.onnx", BODY)
    relay = cutting(gcs.endpoint)
    # The first connection lists and begins the download, the second goes on.
    relay.cuts = [2 << 20]
    assert get(uri, endpoint=relay.endpoint).digest == SHA
    assert relay.relayed < len(BODY) + (1 << 20)


def test_an_object_replaced_between_listing_and_reading_is_read_anew(
    bucket: Bucket, bench: Workbench, gcs: GcsServer
) -> None:
    uri = bucket.put("model.onnx", b"old")
    run = bench.run(secret={"GCS_ENDPOINT_URL": gcs.endpoint})
    said = run.say

    def replace(line: str) -> None:
        said(line)
        if line.startswith("fetching") and len(bench.lines) == 1:
            bucket.put("model.onnx", b"new")

    object.__setattr__(run, "say", replace)
    assert digest_uri(uri, run).digest == "sha256:" + hashlib.sha256(b"new").hexdigest()
    assert any("starting over" in line for line in bench.lines)


def test_what_is_not_there_is_told(bucket: Bucket, get: Get, permanent: Callable[..., Any]) -> None:
    with permanent(f"no object at gs://{bucket.name}/nothing", "none below it", "upload the model"):
        get(f"gs://{bucket.name}/nothing")


def test_an_empty_prefix_is_told(bucket: Bucket, get: Get, permanent: Callable[..., Any]) -> None:
    with permanent(f"nothing below gs://{bucket.name}/none/"):
        get(f"gs://{bucket.name}/none/")
