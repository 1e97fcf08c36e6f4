"""Whatever a server answers, a store lists it, or says in a sentence that it is none."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import Interruption, PermanentFailure
from mooring_fetcher.store import Listing
from mooring_fetcher.stores import open_store
from mooring_fetcher.uri import parse_uri
from mooring_fetcher.web import Answer

FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DIGEST = "sha256:" + "a" * 64

WORDS = st.sampled_from(
    ["", "a/b", DIGEST, "a" * 40, "file", "1", "application/vnd.oci.image.index.v1+json"]
)
KEYS = st.sampled_from(
    [
        "sha",
        "type",
        "path",
        "size",
        "oid",
        "lfs",
        "items",
        "name",
        "generation",
        "nextPageToken",
        "mediaType",
        "layers",
        "manifests",
        "digest",
        "annotations",
        "platform",
        "os",
        "org.opencontainers.image.title",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 1 << 70)
    | st.floats()
    | WORDS
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


class Canned:
    """Stands in for the network: each request gets the next body, and then the last one again."""

    def __init__(self, bodies: list[bytes], status: int = 200) -> None:
        self._bodies, self._status = bodies, status

    def ask(self, url: str, headers: Mapping[str, str], **how: Any) -> Answer:
        body = self._bodies.pop(0) if len(self._bodies) > 1 else self._bodies[0]
        length = {"Content-Length": str(len(body))}
        raw = urllib3.HTTPResponse(
            io.BytesIO(body), headers=length, status=self._status, preload_content=False
        )
        return Answer(raw, url)

    def follow(self, url: str, headers: Mapping[str, str], shown: str) -> Answer:
        return self.ask(url, headers)

    def close(self) -> None:
        return


def listed(uri: str, bodies: list[bytes], status: int = 200) -> Listing | None:
    """The listing, or nothing where it is refused in a sentence."""
    store: Any = open_store(parse_uri(uri), Credentials(), expected=None)
    store._web.close()
    store._web = Canned(bodies, status)
    if hasattr(store, "_access") and hasattr(store._access, "web"):
        store._access.web = store._web
    try:
        found = store.list(3)
    except (PermanentFailure, Interruption) as failure:
        assert "\n" not in str(failure).rstrip()  # noqa: PT017
        return None
    assert isinstance(found, Listing)
    return found


URIS = ("gs://bu/k", "gs://bu/k/", "az://con@acc/k/", "hf://o/r", "hf://o/r/k", "oci://h/r:t")


@FEW
@given(st.sampled_from(URIS), st.lists(VALUES, min_size=1, max_size=3), st.booleans())
def test_any_json_is_a_listing_or_a_sentence(uri: str, held: list[Any], known: bool) -> None:
    bodies = [json.dumps(one).encode() for one in held]
    first = [json.dumps({"sha": "a" * 40}).encode()] if known and uri.startswith("hf") else []
    listed(uri, first + bodies)


@FEW
@given(st.sampled_from(URIS), st.binary(max_size=40), st.sampled_from([200, 206, 302, 400, 503]))
def test_any_bytes_with_any_status_are_a_listing_or_a_sentence(
    uri: str, body: bytes, status: int
) -> None:
    listed(uri, [body], status)


@pytest.mark.parametrize("size", ["-1", "x", "9" * 30])
def test_a_listing_in_xml_with_a_size_that_is_none_is_told(size: str) -> None:
    blob = f"<Blob><Name>k/m</Name><Properties><Content-Length>{size}</Content-Length></Properties>"
    whole = f"<R><Blobs>{blob}</Blob></Blobs></R>".encode()
    assert listed("az://con@acc/k/", [whole.replace(size.encode(), b"7")])
    assert listed("az://con@acc/k/", [whole]) is None


class Drip:
    """A body of one byte after the other, ten seconds apart."""

    headers: Mapping[str, str] = {}
    status = 200

    def __init__(self) -> None:
        self.time = 0.0
        self.closed = False

    def read1(self, amount: int | None = None, decode_content: bool | None = None) -> bytes:
        self.time += 10
        return b" "

    def close(self) -> None:
        self.closed = True


def test_an_answer_that_drips_is_given_up_in_bounded_time() -> None:
    drip = Drip()
    response: Any = drip
    with pytest.raises(Interruption, match="https://host sent only 7 bytes of an answer in 60 s"):
        Answer(response, "https://host/listing").read(clock=lambda: drip.time)
    assert (drip.time, drip.closed) == (70, True)
