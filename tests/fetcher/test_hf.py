"""Fetching from a stand-in for the Hugging Face Hub: answers shaped as its API's, no more.

No server that speaks this API can be run here, so what is tested is our side of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mooring_fetcher.fetch import Request, fetch

if TYPE_CHECKING:
    from tests.fetcher.conftest import Loopback, Workbench

COMMIT = "a" * 40
WEIGHTS = hashlib.shake_256(b"weights").digest(1 << 20)
SHA = hashlib.sha256(WEIGHTS).hexdigest()
API = "/api/models/org/repo"
FILE = f"/org/repo/resolve/{COMMIT}/onnx/model.onnx"
TOKEN = "hf_never_print_me"

SMALL = {"type": "file", "path": "config.json", "size": 2, "oid": "b" * 40}
LARGE = {
    "type": "file",
    "path": "onnx/model.onnx",
    "size": len(WEIGHTS),
    "oid": "c" * 40,
    "lfs": {"oid": SHA, "size": len(WEIGHTS), "pointerSize": 132},
}
FOLDER = {"type": "directory", "path": "onnx", "size": 0, "oid": "d" * 40}


class Hub:
    """One repository with two files, on a branch and by its commit."""

    def __init__(self, web: Loopback) -> None:
        self.web = web
        self.json(f"{API}/revision/main", {"sha": COMMIT})
        self.json(f"{API}/tree/{COMMIT}", [SMALL, FOLDER, LARGE])
        self.json(f"{API}/tree/{COMMIT}/onnx", [LARGE])
        web.put(f"/org/repo/resolve/{COMMIT}/config.json", b"{}", etag='"b"')
        web.put(FILE, WEIGHTS, etag='"c"')

    def json(self, path: str, held: Any, **headers: str) -> None:
        self.web.put(path, json.dumps(held).encode(), etag=None, headers=headers)


Get = Callable[..., Any]


@pytest.fixture
def hub(web: Loopback) -> Hub:
    return Hub(web)


@pytest.fixture
def get(web: Loopback, bench: Workbench, tmp_path: Path) -> Get:
    def run(uri: str, **keys: str) -> Any:
        secret = {"HF_ENDPOINT": web.url, **keys}
        return fetch(Request(uri, tmp_path / "models"), bench.run(secret=secret))

    return run


def placed(folder: Path) -> dict[str, bytes]:
    """The model's files by their paths."""
    files = (path for path in folder.rglob("*") if path.is_file())
    held = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {path: body for path, body in held.items() if not path.startswith(".")}


def test_a_repository_lands_as_a_tree(hub: Hub, get: Get, tmp_path: Path) -> None:
    assert get("hf://org/repo").files == 2
    assert placed(tmp_path / "models") == {"config.json": b"{}", "onnx/model.onnx": WEIGHTS}


def test_a_folder_of_it_lands_without_the_folder_and_is_all_that_is_fetched(
    hub: Hub, get: Get, tmp_path: Path
) -> None:
    hub.json(f"{API}/paths-info/{COMMIT}", [FOLDER])
    get("hf://org/repo/onnx")
    assert placed(tmp_path / "models") == {"model.onnx": WEIGHTS}


def test_a_file_of_it_has_the_digest_of_its_bytes(hub: Hub, get: Get, web: Loopback) -> None:
    hub.json(f"{API}/paths-info/{COMMIT}", [LARGE])
    assert get("hf://org/repo/onnx/model.onnx").digest == f"sha256:{SHA}"
    (asked,) = [asked for asked in web.asked if asked.body]
    assert json.loads(asked.body) == {"paths": ["onnx/model.onnx"]}


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("hf://org/repo@v1.2", f"{API}/revision/v1.2"),
        ("hf://org/repo@refs%2Fpr%2F3", f"{API}/revision/refs%2Fpr%2F3"),
    ],
)
def test_a_revision_is_resolved_to_its_commit_first(
    hub: Hub, get: Get, web: Loopback, uri: str, asked: str
) -> None:
    hub.json(asked, {"sha": COMMIT})
    get(uri)
    assert web.asked[0].path == asked
    assert all(COMMIT in other.path for other in web.asked[1:] if other.path != asked)


def test_a_branch_that_moves_meanwhile_is_read_anew(
    hub: Hub, get: Get, web: Loopback, bench: Workbench
) -> None:
    other = "e" * 40
    moved = {**SMALL, "oid": "f" * 40}
    hub.json(f"{API}/tree/{other}", [moved, LARGE])
    web.put(f"/org/repo/resolve/{other}/config.json", b"[]", etag='"f"')
    web.put(f"/org/repo/resolve/{other}/onnx/model.onnx", WEIGHTS, etag='"c"')
    later = {"body": json.dumps({"sha": other}).encode(), "etag": None}
    web.script(f"{API}/revision/main", {}, {"swap": later})
    get("hf://org/repo")
    assert any("starting over" in line for line in bench.lines)
    # What did not change is kept: the weights were sent once.
    assert sum(asked.sent for asked in web.asked if asked.path.endswith(".onnx")) == len(WEIGHTS)


def test_a_broken_transfer_goes_on_where_it_broke(hub: Hub, get: Get, web: Loopback) -> None:
    web.script(FILE, {"cut": 400_000})
    get("hf://org/repo")
    assert web.sent(FILE) == len(WEIGHTS)


def test_bytes_that_are_not_what_the_hub_says_are_asked_for_again_and_then_refused(
    hub: Hub, get: Get, web: Loopback, permanent: Callable[..., Any], tmp_path: Path
) -> None:
    web.put(FILE, bytes(len(WEIGHTS)), etag='"c"')
    with permanent("'onnx/model.onnx' has the sha256", SHA, "twice", "damaged"):
        get("hf://org/repo")
    assert web.sent(FILE) == 2 * len(WEIGHTS)
    assert placed(tmp_path / "models") == {}


def test_a_listing_is_read_to_its_last_page(hub: Hub, get: Get, web: Loopback) -> None:
    link = f'<{web.url}{API}/tree/{COMMIT}/page2>; rel="next"'
    hub.json(f"{API}/tree/{COMMIT}", [SMALL], Link=link)
    hub.json(f"{API}/tree/{COMMIT}/page2", [LARGE])
    assert get("hf://org/repo").files == 2


def test_a_listing_is_not_continued_at_another_host(
    hub: Hub, get: Get, permanent: Callable[..., Any]
) -> None:
    hub.json(f"{API}/tree/{COMMIT}", [SMALL], Link='<https://evil.example/x>; rel="next"')
    with permanent("continues its listing at another host"):
        get("hf://org/repo")


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(
    bench: Workbench,
    secure_web: Loopback,
    elsewhere: Loopback,
    authority: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    Hub(secure_web)
    target = elsewhere.put("/blob", WEIGHTS)
    secure_web.script(FILE, {"status": 302, "headers": {"Location": target}})
    run = bench.run(secret={"HF_ENDPOINT": secure_web.url, "HF_TOKEN": TOKEN})
    object.__setattr__(run.credentials, "folder", tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority[0].read_bytes())
    held = (*run.credentials.values, ("ca.crt", authority[0].read_text()))
    object.__setattr__(run.credentials, "values", held)
    fetch(Request("hf://org/repo", tmp_path / "models"), run)
    assert all(a.headers["Authorization"] == f"Bearer {TOKEN}" for a in secure_web.asked)
    assert ["Authorization" in asked.headers for asked in elsewhere.asked] == [False]


@pytest.mark.parametrize(
    ("status", "code", "parts"),
    [
        (401, "RepoNotFound", ["org/repo does not exist, or this pod", "HF_TOKEN"]),
        (404, "RevisionNotFound", ["has no revision main", "'@'"]),
        (403, "GatedRepo", ["is gated", "accept its terms"]),
        (418, "", ["answered 418", "HF_ENDPOINT"]),
    ],
)
def test_an_answer_of_the_hub_becomes_a_sentence(
    get: Get, web: Loopback, permanent: Callable[..., Any], status: int, code: str, parts: list[str]
) -> None:
    headers = {"X-Error-Code": code} if code else {}
    web.always[f"{API}/revision/main"] = {"status": status, "headers": headers}
    with permanent(*parts):
        get("hf://org/repo")


def test_a_path_that_is_not_there_is_told(
    hub: Hub, get: Get, permanent: Callable[..., Any]
) -> None:
    hub.json(f"{API}/paths-info/{COMMIT}", [])
    with permanent("has no 'nothing' at revision main"):
        get("hf://org/repo/nothing")


def test_what_is_no_hub_is_told(get: Get, web: Loopback, permanent: Callable[..., Any]) -> None:
    web.put(f"{API}/revision/main", b"<html>")
    with permanent("does not answer as the Hugging Face Hub does", "HF_ENDPOINT"):
        get("hf://org/repo")


def test_an_overloaded_hub_is_asked_again(hub: Hub, get: Get, web: Loopback) -> None:
    web.script(f"{API}/revision/main", {"status": 429, "headers": {"Retry-After": "7"}})
    assert get("hf://org/repo").files == 2


def test_a_token_is_not_sent_over_plain_http(
    bench: Workbench, tmp_path: Path, permanent: Callable[..., Any]
) -> None:
    run = bench.run(secret={"HF_ENDPOINT": "http://hub.example", "HF_TOKEN": TOKEN})
    with permanent("would be sent over plain http to http://hub.example"):
        fetch(Request("hf://org/repo", tmp_path / "models"), run)
