"""Fetching from a real S3 server."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mooring_dev.s3 import S3Server
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.digest import digest_path
from mooring_fetcher.fetch import Request, digest_uri, fetch
from mooring_fetcher.stores import open_store
from mooring_fetcher.uri import parse_uri

if TYPE_CHECKING:
    from tests.fetcher.conftest import Cutter, Workbench

pytestmark = pytest.mark.s3

BODY = hashlib.shake_256(b"weights").digest(3 << 20)
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server.start(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, request: pytest.FixtureRequest) -> str:
    """A bucket of this test's own, already there."""
    name = "b" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    s3.put(name, "made", b"x")
    return name


@pytest.fixture
def cutter(s3: S3Server, cutting: Callable[[str], Cutter]) -> Cutter:
    return cutting(s3.endpoint)


Get = Callable[..., Any]


@pytest.fixture
def get(s3: S3Server, bench: Workbench, tmp_path: Path) -> Get:
    def run(uri: str, **request: Any) -> Any:
        secret = s3.environment | request.pop("keys", {})
        return fetch(Request(uri, tmp_path / "models", **request), bench.run(secret=secret))

    return run


def test_an_object_lands_under_its_name(
    s3: S3Server, bucket: str, get: Get, tmp_path: Path
) -> None:
    found = get(s3.put(bucket, "fraud/v7/model.onnx", BODY))
    assert (found.digest, found.files) == (SHA, 1)
    assert (tmp_path / "models" / "model.onnx").read_bytes() == BODY


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_prefix_lands_as_a_tree_with_the_digest_of_the_folder(
    s3: S3Server, bucket: str, get: Get, tmp_path: Path, ending: str
) -> None:
    source = tmp_path / "source"
    for name in ("saved_model.pb", "variables/variables.index", "assets/wörter.txt", "empty"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"" if name == "empty" else name.encode() * 99)
    s3.put_tree(bucket, "fraud/v7", source)
    s3.put(bucket, "fraud/v70/other", b"not below the prefix")
    found = get(f"s3://{bucket}/fraud/v7{ending}")
    assert found == digest_path(source)
    target = tmp_path / "models"
    marker = target / ".mooring-fetch.json"
    assert marker.exists()
    marker.unlink()
    assert digest_path(target) == digest_path(source)


def test_digest_prints_the_same_without_storing(
    s3: S3Server, bucket: str, get: Get, bench: Workbench
) -> None:
    for n in range(5):
        s3.put(bucket, f"p/{n}", BODY[: n * 1000])
    uri = f"s3://{bucket}/p/"
    assert digest_uri(uri, bench.run(secret=s3.environment)).digest == get(uri).digest


def test_more_objects_than_fit_on_one_page_are_all_listed(s3: S3Server, bucket: str) -> None:
    folder = s3.directory / "data" / bucket / "many"
    folder.mkdir()
    for n in range(1005):
        (folder / f"{n:04d}").write_bytes(b"x")
    credentials = Credentials("s3", tuple(s3.environment.items()))
    store = open_store(parse_uri(f"s3://{bucket}/many/"), credentials, expected=None)
    assert [file.path for file in store.list(2000).files] == [f"{n:04d}" for n in range(1005)]
    assert 10 < len(store.list(10).files) <= 1000
    store.close()


def test_a_broken_line_costs_only_what_was_lost(
    s3: S3Server, bucket: str, get: Get, cutter: Cutter, bench: Workbench
) -> None:
    uri = s3.put(bucket, "model.onnx", BODY)
    cutter.cuts = [500_000] * 5
    assert get(uri, keys={"AWS_ENDPOINT_URL": cutter.endpoint}).digest == SHA
    assert len(bench.clock.slept) == 5
    # Six answers' headers, and what was under way when the line broke: no byte twice otherwise.
    assert cutter.relayed < len(BODY) + 6 * 2000


def test_an_object_replaced_in_the_middle_is_read_anew(
    s3: S3Server, bucket: str, get: Get, cutter: Cutter, bench: Workbench
) -> None:
    uri = s3.put(bucket, "model.onnx", BODY)
    cutter.cuts = [500_000]
    other = BODY[::-1]
    sleep = bench.clock.sleep

    def replace_meanwhile(seconds: float, stop: threading.Event) -> None:
        s3.put(bucket, "model.onnx", other)
        sleep(seconds, stop)

    bench.clock.sleep = replace_meanwhile  # type: ignore[method-assign]
    found = get(uri, keys={"AWS_ENDPOINT_URL": cutter.endpoint})
    assert found.digest == "sha256:" + hashlib.sha256(other).hexdigest()
    assert any("starting over" in line for line in bench.lines)


@pytest.mark.parametrize(
    ("path", "keys", "part"),
    [
        ("nothing", {}, r"no object at s3://\S+/nothing and none below it"),
        ("nothing/", {}, r"nothing below s3://\S+/nothing/"),
        ("made", {"AWS_ACCESS_KEY_ID": "nobody"}, "does not know the access key"),
        ("made", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "does not accept the signature"),
    ],
)
def test_what_the_server_refuses_is_told_in_a_sentence(
    bucket: str,
    get: Get,
    path: str,
    keys: dict[str, str],
    part: str,
    permanent: Callable[..., Any],
) -> None:
    with pytest.raises(Exception, match=part):
        get(f"s3://{bucket}/{path}", keys=keys)


def test_a_missing_bucket_is_told_as_such(get: Get, permanent: Callable[..., Any]) -> None:
    with permanent("The bucket no-such-bucket does not exist"):
        get("s3://no-such-bucket/model.onnx")


def test_a_private_bucket_is_closed_to_those_without_credentials(
    s3: S3Server, bucket: str, get: Get, permanent: Callable[..., Any]
) -> None:
    with permanent("is denied"):
        get(f"s3://{bucket}/made", keys={"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""})


def test_messages_name_the_endpoint(get: Get, s3: S3Server) -> None:
    with pytest.raises(Exception, match=re.escape(s3.endpoint)):
        get("s3://no-such-bucket/model.onnx")
