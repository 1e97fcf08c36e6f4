"""Digests that must match, and starts that continue where the last one ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mooring_fetcher.digest import ModelDigest
from mooring_fetcher.failure import TransientFailure
from mooring_fetcher.fetch import Request, digest_uri, fetch
from mooring_fetcher.limits import Limits
from mooring_fetcher.patience import RetryPolicy

if TYPE_CHECKING:
    from tests.fetcher.conftest import Loopback, Workbench

BODY = hashlib.shake_256(b"weights").digest(1 << 20)
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()
OTHER = hashlib.shake_256(b"other").digest(1 << 20)
OTHER_SHA = "sha256:" + hashlib.sha256(OTHER).hexdigest()
PATH = "/models/model.onnx"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models"


Fetch = Callable[..., ModelDigest]


@pytest.fixture
def get(bench: Workbench, target: Path) -> Fetch:
    def run(url: str, *, limits: Limits | None = None, **request: Any) -> ModelDigest:
        secret = request.pop("secret", None)
        wanted = Request(url, target, allow_http=True, **request)
        return fetch(wanted, bench.run(limits=limits, secret=secret))

    return run


def visible(target: Path) -> list[str]:
    """What a server would see: everything but names with a dot in front."""
    return sorted(path.name for path in target.iterdir() if not path.name.startswith("."))


# --- digests --------------------------------------------------------------------------------


def test_the_declared_digest_must_match(
    web: Loopback, get: Fetch, target: Path, permanent: Callable[..., Any]
) -> None:
    url = web.put(PATH, BODY)
    assert get(url, declared=SHA).digest == SHA
    with permanent(SHA, OTHER_SHA, "spec.model.digest", "mooring digest"):
        get(url, declared=OTHER_SHA)


def test_bytes_that_changed_since_the_pin_are_never_visible(
    web: Loopback, get: Fetch, target: Path, permanent: Callable[..., Any]
) -> None:
    url = web.put(PATH, BODY)
    with permanent(
        "changed since this revision was pinned", SHA, OTHER_SHA, "apply a new URI", "restart"
    ):
        get(url, pinned=OTHER_SHA)
    assert visible(target) == []
    assert list(target.rglob("*")) == [target / ".partial"]


def test_contradicting_digests_are_refused_before_fetching(
    web: Loopback, get: Fetch, permanent: Callable[..., Any]
) -> None:
    with permanent("contradict"):
        get(web.put(PATH, BODY), declared=SHA, pinned=OTHER_SHA)
    assert web.asked == []


def test_digest_streams_resumes_and_stores_nothing(
    web: Loopback, bench: Workbench, tmp_path: Path
) -> None:
    url = web.put(PATH, BODY)
    web.script(PATH, {"cut": 400_000})
    assert digest_uri(url, bench.run(), allow_http=True).digest == SHA
    assert web.sent(PATH) == len(BODY)
    assert list(tmp_path.iterdir()) == []


# --- starting over --------------------------------------------------------------------------


def test_a_killed_start_is_continued_by_the_next(
    web: Loopback, get: Fetch, bench: Workbench, target: Path
) -> None:
    url = web.put(PATH, BODY)
    web.always[PATH] = {"cut": 300_000}
    bench.policy = RetryPolicy(without_progress=0)
    with pytest.raises(TransientFailure):
        get(url)
    web.always.clear()
    assert get(url).digest == SHA
    assert web.asked[-1].headers["Range"] == "bytes=300000-"
    assert web.sent(PATH) >= len(BODY)
    assert visible(target) == ["model.onnx"]


def test_what_an_earlier_start_left_of_other_bytes_is_dropped(
    web: Loopback, get: Fetch, bench: Workbench, target: Path
) -> None:
    url = web.put(PATH, BODY)
    web.script(PATH, {"cut": 300_000})
    bench.policy = RetryPolicy(without_progress=0)
    with pytest.raises(TransientFailure):
        get(url)
    web.put(PATH, OTHER, etag='"v2"')
    assert get(url).digest == OTHER_SHA


def test_after_a_reboot_nothing_unfinished_is_trusted(
    web: Loopback,
    get: Fetch,
    bench: Workbench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = web.put(PATH, BODY)
    web.script(PATH, {"cut": 300_000})
    bench.policy = RetryPolicy(without_progress=0)
    with pytest.raises(TransientFailure):
        get(url)
    (tmp_path / "boot").write_text("another boot")
    monkeypatch.setattr("mooring_fetcher.fetch._BOOT_ID", tmp_path / "boot")
    assert get(url).digest == SHA
    assert "Range" not in web.asked[-1].headers


def test_a_verified_model_in_place_needs_no_store(web: Loopback, get: Fetch, target: Path) -> None:
    url = web.put(PATH, BODY)
    first = get(url, pinned=SHA)
    asked = len(web.asked)
    web.files.clear()
    assert get(url, pinned=SHA) == first
    assert len(web.asked) == asked
    assert not (target / ".partial").exists()


@pytest.mark.parametrize("spoil", ["bytes", "missing", "marker"])
def test_a_model_in_place_that_was_touched_is_fetched_again(
    web: Loopback, get: Fetch, target: Path, spoil: str
) -> None:
    url = web.put(PATH, BODY)
    get(url, pinned=SHA)
    if spoil == "bytes":
        (target / "model.onnx").write_bytes(OTHER)
    elif spoil == "missing":
        (target / "model.onnx").unlink()
    else:
        (target / ".mooring-fetch.json").write_text("{")
        (target / "model.onnx").unlink()
    assert get(url, pinned=SHA).digest == SHA
    assert (target / "model.onnx").read_bytes() == BODY
