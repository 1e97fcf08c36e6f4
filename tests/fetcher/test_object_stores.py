"""What holds of every store of objects: asked of fake-gcs-server and of Azurite alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mooring_fetcher.digest import digest_path
from mooring_fetcher.fetch import Request, fetch

if TYPE_CHECKING:
    from tests.fetcher.conftest import Cutter, Workbench
    from tests.fetcher.object_stores import Place

pytestmark = pytest.mark.stores

BODY = hashlib.shake_256(b"weights").digest(3 << 20)
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()
Get = Callable[..., Any]


@pytest.fixture(params=["bucket", "container"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def get(place: Place, bench: Workbench, tmp_path: Path) -> Get:
    def run(uri: str, *, origin: str = place.origin) -> Any:
        secret = place.secret(origin)
        return fetch(Request(uri, tmp_path / "models"), bench.run(secret=secret))

    return run


def test_an_object_lands_under_its_name(place: Place, get: Get, tmp_path: Path) -> None:
    found = get(place.put("fraud/v7/model.onnx", BODY))
    assert (found.digest, found.files) == (SHA, 1)
    assert (tmp_path / "models" / "model.onnx").read_bytes() == BODY


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix_lands_as_a_tree_without_the_objects_that_show_folders(
    place: Place, get: Get, tmp_path: Path, slash: str
) -> None:
    odd = {"gs": "odd name?#%41.txt", "az": "odd name#%41 ü.txt"}[place.scheme]
    folder = {"gs": "onnx/", "az": "onnx"}[place.scheme]
    tree = {"config.json": b"{}", "onnx/model.onnx": BODY, odd: b"x"}
    for path, body in tree.items():
        place.put(f"fraud/v7/{path}", body)
    place.put(f"fraud/v7/{folder}", b"")
    place.put("fraud/v70/other", b"not part of v7")
    found = get(f"{place.scheme}://{place.name}/fraud/v7{slash}")
    models = tmp_path / "models"
    assert {path: (models / path).read_bytes() for path in tree} == tree
    assert found.files == len(tree)
    (models / ".mooring-fetch.json").unlink()
    assert digest_path(models).digest == found.digest


def test_a_broken_transfer_goes_on_where_it_broke(
    place: Place, get: Get, cutting: Callable[[str], Cutter]
) -> None:
    uri = place.put("model.onnx", BODY)
    relay = cutting(place.origin)
    # The first connection lists and begins the download, the second goes on.
    relay.cuts = [2 << 20]
    assert get(uri, origin=relay.endpoint).digest == SHA
    assert relay.relayed < len(BODY) + (1 << 20)


def test_what_is_not_there_is_told(place: Place, get: Get, permanent: Callable[..., Any]) -> None:
    uri = f"{place.scheme}://{place.name}/nothing"
    what = {"gs": "object", "az": "blob"}[place.scheme]
    with permanent(f"no {what} at {uri}", "none below it", "upload the model"):
        get(uri)


def test_an_empty_prefix_is_told(place: Place, get: Get, permanent: Callable[..., Any]) -> None:
    uri = f"{place.scheme}://{place.name}/none/"
    with permanent(f"nothing below {uri}"):
        get(uri)
