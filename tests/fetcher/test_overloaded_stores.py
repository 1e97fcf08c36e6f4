"""A store that is overloaded for a moment is asked again, as long as it wants to be left alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mooring_fetcher.fetch import Request, fetch

if TYPE_CHECKING:
    from tests.fetcher.conftest import Loopback, Workbench

BODY = b"weights"
HEX = hashlib.sha256(BODY).hexdigest()
LAYER = {
    "mediaType": "application/vnd.oci.image.layer.v1.tar",
    "digest": f"sha256:{HEX}",
    "size": len(BODY),
    "annotations": {"org.opencontainers.image.title": "model.onnx"},
}
MANIFEST = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [LAYER]}
PAGE = {"items": [{"name": "v1/model.onnx", "size": str(len(BODY)), "generation": "17"}]}
BLOBS = (
    "<R><Blobs><Blob><Name>v1/model.onnx</Name><Properties><Etag>0x8D</Etag>"
    f"<Content-Length>{len(BODY)}</Content-Length></Properties></Blob></Blobs></R>"
)


@pytest.mark.parametrize(
    ("uri", "listing", "listed", "content"),
    [
        (
            "gs://models/v1/",
            "/storage/v1/b/models/o",
            json.dumps(PAGE),
            "/storage/v1/b/models/o/v1%2Fmodel.onnx",
        ),
        ("az://models/v1/", "/models", BLOBS, "/models/v1/model.onnx"),
        (
            "oci://{host}/models:v1",
            "/v2/models/manifests/v1",
            json.dumps(MANIFEST),
            f"/v2/models/blobs/sha256:{HEX}",
        ),
    ],
    ids=["gs", "az", "oci"],
)
def test_a_store_that_is_overloaded_is_asked_again(
    web: Loopback,
    bench: Workbench,
    tmp_path: Path,
    uri: str,
    listing: str,
    listed: str,
    content: str,
) -> None:
    web.put(listing, listed.encode(), etag=None)
    web.put(content, BODY, etag='"0x8D"')
    web.script(listing, {"status": 429, "headers": {"Retry-After": "7"}}, {"status": 503})
    web.script(content, {"status": 500}, {"cut": 3})
    secret = {"GCS_ENDPOINT_URL": web.url, "AZURE_STORAGE_BLOB_ENDPOINT": web.url}
    host = web.url.removeprefix("http://")
    found = fetch(Request(uri.format(host=host), tmp_path / "models"), bench.run(secret=secret))
    assert found.size == len(BODY)
    assert (tmp_path / "models" / "model.onnx").read_bytes() == BODY
    assert bench.clock.slept[0] == 7
    assert len(bench.clock.slept) == 4
    # After the cut the rest was asked for, not all of it again.
    assert sum(asked.sent for asked in web.asked if asked.path.startswith(content)) == len(BODY)
