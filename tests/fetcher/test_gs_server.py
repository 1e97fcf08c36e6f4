"""Fetching from fake-gcs-server, which speaks Google Cloud Storage's JSON API."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from mooring_dev.stores import GcsServer
from mooring_fetcher.fetch import digest_uri

if TYPE_CHECKING:
    from tests.fetcher.conftest import Workbench
    from tests.fetcher.object_stores import Bucket

pytestmark = pytest.mark.stores


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
