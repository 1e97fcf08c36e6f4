"""Fetching by https, from a server that does everything wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from urllib3.exceptions import NameResolutionError

from mooring_fetcher.body import broken
from mooring_fetcher.credentials import read_credentials
from mooring_fetcher.digest import ModelDigest
from mooring_fetcher.failure import Interruption, PermanentFailure
from mooring_fetcher.fetch import Request, Run, fetch
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


def test_a_file_lands_under_its_name_with_its_digest(
    web: Loopback, get: Fetch, target: Path
) -> None:
    found = get(web.put(PATH, BODY))
    assert (found.digest, found.size, found.files) == (SHA, len(BODY), 1)
    assert (target / "model.onnx").read_bytes() == BODY
    assert visible(target) == ["model.onnx"]
    assert not (target / ".partial").exists()
    assert [asked.path for asked in web.asked] == [PATH]


def test_a_name_is_decoded_once_and_the_query_is_no_part_of_it(
    web: Loopback, get: Fetch, target: Path
) -> None:
    get(web.put("/my%20model.onnx", b"x") + "?sig=y")
    assert visible(target) == ["my model.onnx"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_broken_transfer_goes_on_where_it_broke(
    web: Loopback, get: Fetch, bench: Workbench, framing: str, fault: str
) -> None:
    url = web.put(PATH, BODY, framing=framing)
    web.script(PATH, *({fault: 100_000} for _ in range(5)))
    assert get(url).digest == SHA
    assert [asked.headers.get("If-Range") for asked in web.asked] == [None] + ['"v1"'] * 5
    if fault == "cut":
        # A reset may swallow bytes on their way; a cut does not: each byte left once.
        assert web.sent(PATH) == len(BODY)
    assert len(bench.clock.slept) == 5


def test_a_server_without_etag_is_asked_for_everything_again(web: Loopback, get: Fetch) -> None:
    url = web.put(PATH, BODY, etag=None)
    web.script(PATH, {"cut": 100_000})
    assert get(url).digest == SHA
    assert web.sent(PATH) == len(BODY) + 100_000
    assert "Range" not in web.asked[-1].headers


def test_a_weak_etag_does_not_vouch_for_bytes(web: Loopback, get: Fetch) -> None:
    url = web.put(PATH, BODY, etag='W/"v1"')
    web.script(PATH, {"cut": 100_000})
    assert get(url).digest == SHA
    assert "Range" not in web.asked[-1].headers


def test_a_server_that_ignores_ranges_is_read_from_the_start(web: Loopback, get: Fetch) -> None:
    url = web.put(PATH, BODY, ranges=False)
    web.script(PATH, {"cut": 100_000})
    assert get(url).digest == SHA
    assert len(web.asked) == 2


@pytest.mark.parametrize("etag", ['"v2"', None])
def test_bytes_of_two_versions_are_never_mixed(
    web: Loopback, get: Fetch, bench: Workbench, etag: str | None
) -> None:
    url = web.put(PATH, BODY)
    web.script(PATH, {"cut": 500_000}, {"swap": {"body": OTHER, "etag": etag}})
    assert get(url).digest == OTHER_SHA
    assert any("starting over" in line for line in bench.lines)


def test_a_file_that_never_stops_changing_is_given_up(
    web: Loopback, get: Fetch, target: Path, transient: Callable[..., Any]
) -> None:
    url = web.put(PATH, BODY)
    swaps = ({"swap": {"body": BODY, "etag": f'"{n}"'}, "cut": 9} for n in range(20))
    web.script(PATH, {"cut": 9}, *swaps)
    with transient("keeps changing"):
        get(url)
    assert visible(target) == []


def test_416_and_412_mean_that_the_file_changed(web: Loopback, get: Fetch) -> None:
    for status in (416, 412):
        url = web.put(f"/{status}/model.onnx", BODY)
        web.script(f"/{status}/model.onnx", {"cut": 10}, {"status": status})
        assert get(url).digest == SHA


def test_a_body_of_unknown_length_that_was_cut_after_its_last_byte_is_fetched_anew(
    web: Loopback, get: Fetch, target: Path
) -> None:
    url = web.put(PATH, BODY, framing="chunked")
    web.script(PATH, {"cut": len(BODY)})
    assert get(url).digest == SHA
    assert visible(target) == ["model.onnx"]
    ranges = [asked.headers.get("Range") for asked in web.asked]
    assert ranges == [None, f"bytes={len(BODY)}-", None], "whole, the rest that there is not, whole"


def test_a_range_that_was_not_asked_for_is_not_used(web: Loopback, get: Fetch) -> None:
    url = web.put(PATH, BODY)
    wrong = {"status": 206, "headers": {"Content-Range": "bytes 0-4/5", "ETag": '"v1"'}}
    web.script(PATH, {"cut": 10}, wrong)
    assert get(url).digest == SHA


def test_a_content_length_that_is_too_long_is_a_cut_and_given_up(
    web: Loopback, get: Fetch, bench: Workbench, transient: Callable[..., Any]
) -> None:
    url = web.put(PATH, b"short", ranges=False)
    web.always[PATH] = {"claim": 1000, "cut": 5}
    with transient("ended the transfer early, at 5 B of 1000 B of model.onnx", "gave up"):
        get(url)
    assert sum(bench.clock.slept) <= bench.policy.without_progress


def test_a_content_length_that_is_too_short_ends_the_file_there(web: Loopback, get: Fetch) -> None:
    url = web.put(PATH, BODY)
    web.always[PATH] = {"claim": 1000, "cut": 1000}
    assert get(url).digest == "sha256:" + hashlib.sha256(BODY[:1000]).hexdigest()


def test_a_body_whose_end_cannot_be_told_is_only_taken_with_a_digest(
    web: Loopback, get: Fetch, permanent: Callable[..., Any]
) -> None:
    url = web.put(PATH, BODY, framing="close")
    with permanent("without a length", "set spec.model.digest"):
        get(url)
    assert get(url, declared=SHA).digest == SHA


def test_an_empty_file_is_a_file(web: Loopback, get: Fetch, target: Path) -> None:
    assert get(web.put(PATH, b"")).size == 0
    assert (target / "model.onnx").read_bytes() == b""


@pytest.mark.parametrize(
    ("status", "part"),
    [
        (400, "does not understand"),
        (401, "check the Secret"),
        (403, "access is denied"),
        (404, "no such file"),
        (410, "was removed"),
        (418, "check the URL"),
        (204, "check the URL"),
        (304, "check the URL"),
    ],
)
def test_a_refusal_is_final_and_explained(
    web: Loopback,
    get: Fetch,
    bench: Workbench,
    status: int,
    part: str,
    permanent: Callable[..., Any],
) -> None:
    web.always[PATH] = {"status": status}
    with permanent(f"answered {status}", part, PATH):
        get(web.url + PATH)
    assert len(web.asked) == 1
    assert bench.clock.slept == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(
    web: Loopback, get: Fetch, bench: Workbench, status: int
) -> None:
    url = web.put(PATH, BODY)
    web.script(PATH, {"status": status}, {"status": status})
    assert get(url).digest == SHA
    assert len(bench.clock.slept) == 2


def test_a_server_that_stays_in_trouble_is_given_up_in_bounded_time(
    web: Loopback, get: Fetch, bench: Workbench, transient: Callable[..., Any]
) -> None:
    web.always[PATH] = {"status": 503}
    with transient("answered 503", "gave up after"):
        get(web.url + PATH)
    slept = bench.clock.slept
    assert sum(slept) <= bench.policy.without_progress
    assert slept[:5] == [0.375, 0.75, 1.5, 3.0, 6.0]
    assert max(slept) <= bench.policy.max_delay


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "86400"}, 60.0),
        (
            {
                "Date": "Mon, 01 Jan 2029 00:00:00 GMT",
                "Retry-After": "Mon, 01 Jan 2029 00:00:09 GMT",
            },
            9.0,
        ),
        ({"Retry-After": "soon"}, 0.375),
    ],
)
def test_what_the_server_asks_for_is_waited_within_reason(
    web: Loopback, get: Fetch, bench: Workbench, headers: dict[str, str], waited: float
) -> None:
    url = web.put(PATH, BODY)
    web.script(PATH, {"status": 429, "headers": headers})
    get(url)
    assert bench.clock.slept == [waited]


# --- redirects ------------------------------------------------------------------------------


def redirect(to: str) -> dict[str, Any]:
    return {"status": 302, "headers": {"Location": to}}


def test_a_redirect_within_the_host_is_followed_and_the_name_stays(
    web: Loopback, get: Fetch, target: Path
) -> None:
    web.put("/blob/123", BODY)
    web.always[PATH] = redirect("/blob/123")
    assert get(web.url + PATH).digest == SHA
    assert visible(target) == ["model.onnx"]


def test_a_redirect_loop_ends(web: Loopback, get: Fetch, permanent: Callable[..., Any]) -> None:
    web.always[PATH] = redirect(PATH)
    with permanent("redirects more than 5 times"):
        get(web.url + PATH)
    assert len(web.asked) == 6


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//127.0.0.1:1/x", "", "http://[::1/x"]
)
def test_a_redirect_to_another_scheme_or_plain_host_is_not_followed(
    web: Loopback, get: Fetch, to: str, permanent: Callable[..., Any]
) -> None:
    web.always[PATH] = redirect(to)
    with permanent("redirects"):
        get(web.url + PATH)


@pytest.fixture
def trusted(authority: tuple[Path, Path], tmp_path: Path) -> Callable[..., Run]:
    """Makes a run with a mounted Secret that trusts the self-made authority."""
    folder = tmp_path / "secret"

    def make(**keys: str) -> Run:
        folder.mkdir(exist_ok=True)
        (folder / "ca.crt").write_bytes(authority[0].read_bytes())
        for key, value in keys.items():
            (folder / key).write_text(value + "\n")
        return Run(credentials=read_credentials(folder, "store"))

    return make


def test_https_never_falls_back_to_http(
    secure_web: Loopback, web: Loopback, target: Path, trusted: Callable[..., Run]
) -> None:
    secure_web.always[PATH] = redirect(web.put("/x", BODY))
    with pytest.raises(PermanentFailure, match="is not followed"):
        fetch(Request(secure_web.url + PATH, target, allow_http=True), trusted())
    assert web.asked == []


def test_credentials_stay_with_the_host_they_were_given_for(
    secure_web: Loopback, elsewhere: Loopback, target: Path, trusted: Callable[..., Run]
) -> None:
    secure_web.always[PATH] = redirect(elsewhere.put("/x", BODY) + "?sig=1")
    fetch(Request(secure_web.url + PATH, target), trusted(token="t0psecret"))
    assert secure_web.asked[0].headers["Authorization"] == "Bearer t0psecret"
    assert "Authorization" not in elsewhere.asked[0].headers


def test_a_user_and_password_become_basic_authorization(
    secure_web: Loopback, target: Path, trusted: Callable[..., Run]
) -> None:
    fetch(Request(secure_web.put(PATH, BODY), target), trusted(username="u", password="p"))
    assert secure_web.asked[0].headers["Authorization"] == "Basic dTpw"


def test_credentials_never_go_over_plain_http(
    web: Loopback, get: Fetch, permanent: Callable[..., Any]
) -> None:
    with permanent("Secret fraud-store", "plain http"):
        get(web.put(PATH, BODY), secret={"token": "t0psecret"})
    assert web.asked == []


# --- connections ----------------------------------------------------------------------------


def test_an_untrusted_certificate_is_final_and_says_where_to_put_the_authority(
    secure_web: Loopback, get: Fetch, permanent: Callable[..., Any]
) -> None:
    with permanent("is not trusted", "ca.crt"):
        get(secure_web.put(PATH, BODY))


def test_a_port_that_speaks_no_tls_is_named(
    web: Loopback, get: Fetch, transient: Callable[..., Any]
) -> None:
    with transient("No TLS connection", "gave up"):
        get(web.put(PATH, BODY).replace("http://", "https://"))


def test_a_closed_port_is_given_up_after_retries(
    get: Fetch, bench: Workbench, transient: Callable[..., Any]
) -> None:
    with transient("https://127.0.0.1:1", "was refused", "gave up"):
        get("https://127.0.0.1:1/m.onnx")
    assert len(bench.clock.slept) > 3


def test_an_unknown_host_is_told_as_such() -> None:
    error = broken(NameResolutionError("no.such.host", None, OSError()), "https://no.such.host")  # type: ignore[arg-type]
    assert isinstance(error, Interruption)
    assert "https://no.such.host is not known to DNS" in str(error)


def test_a_trickle_is_cut_off_and_given_up(
    web: Loopback, get: Fetch, bench: Workbench, transient: Callable[..., Any]
) -> None:
    bench.policy = RetryPolicy(stall_window=60, without_progress=200)
    bench.clock.tick = 1.0
    url = web.put(PATH, BODY)
    web.always[PATH] = {"trickle": 500}
    with transient("sent only", "gave up"):
        get(url)
    # Looks at the clock, not bytes: a minute of a trickle is a handful of bytes here.
    assert web.sent(PATH) < 5000


def test_the_total_time_is_bounded_even_with_progress(
    web: Loopback, get: Fetch, bench: Workbench, transient: Callable[..., Any]
) -> None:
    bench.policy = RetryPolicy(total=5)
    bench.clock.tick = 0.5
    with transient("not complete after 5 s", "--timeout"):
        get(web.put(PATH, BODY * 4))


def test_progress_is_told_every_few_seconds_only(
    web: Loopback, get: Fetch, bench: Workbench
) -> None:
    bench.clock.tick = 1.0
    get(web.put(PATH, BODY * 8))
    told = [line for line in bench.lines if "left" in line]
    assert 1 <= len(told) <= bench.clock.time / 5
    assert "of 8.0 MiB" in told[0]


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_huge_body_is_stopped_at_the_limit(
    web: Loopback, get: Fetch, target: Path, framing: str, permanent: Callable[..., Any]
) -> None:
    url = web.put(PATH, BODY, framing=framing)
    with permanent("more than 1000 B", "--max-bytes"):
        get(url, limits=Limits(max_bytes=1000))
    assert visible(target) == []


def test_a_stated_size_beyond_the_free_disk_is_told_before_a_byte_is_written(
    web: Loopback, get: Fetch, target: Path, transient: Callable[..., Any]
) -> None:
    url = web.put(PATH, BODY)
    web.always[PATH] = {"claim": 1 << 60, "cut": 10}
    with transient("has only", "free"):
        get(url, limits=Limits(max_bytes=1 << 62))
    assert visible(target) == []
